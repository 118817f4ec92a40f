"""Files of MCP clients, each with exactly what it must mean."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from mcp_manager.config import ServerConfig
from mcp_manager.config.load import FleetFile, load_fleet_file
from mcp_manager.errors import ConfigError

__all__ = ["ENVIRONMENT", "SECRET", "ClientFile", "check", "ids"]

SECRET = "tok-4711-S3cr3t"
ENVIRONMENT = {"HOME": "/home/u", "TOKEN": SECRET, "PORT": "8080", "EMPTY": ""}
_SHOWN = ("auth", "tls", "tools")


class ClientFile(NamedTuple):
    """A file, and what it must mean.

    Parameters
    ----------
    about
        The client and the trap.
    name
        The file, below the folder of a project.
    content
        Its text, or what JSON text says.
    servers
        By id, every field that differs from its default, but for ``name`` and what is kept in ``extras``. ``{project}``
        stands for the folder.
    warnings
        The warnings, in their order.
    problems
        ``line:column: message`` of everything that is wrong.
    off
        The servers that it turns off.
    beside
        Other files in the folder.
    """

    about: str
    name: str
    content: Any
    servers: Mapping[str, Mapping[str, Any]] = {}
    warnings: Sequence[str] = ()
    problems: Sequence[str] = ()
    off: Sequence[str] = ()
    beside: Mapping[str, str] = {}


def ids(file: ClientFile) -> str:
    """Return the name of a test for a file."""
    return file.about


def check(file: ClientFile, folder: Path, caplog: pytest.LogCaptureFixture) -> FleetFile | None:
    """Write a file, load it, and compare it with what it must mean; the names of variables, not their values, show."""
    folder = folder / "project"
    path = _write(folder / file.name, file.content)
    for name, text in file.beside.items():
        _write(folder / name, text)
    loaded, problems = None, []
    with caplog.at_level(logging.INFO, "mcp_manager"):
        try:
            loaded = load_fleet_file(path, environment=ENVIRONMENT)
        except ConfigError as error:
            assert str(error).startswith(f"Invalid config file {path}:")
            assert SECRET not in f"{error!r} {error}"
            problems = [f"{each.line}:{each.column}: {each.message}" for each in error.problems]
    told = [record.getMessage() for record in caplog.records]
    assert SECRET not in " ".join(told)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [_general(each, folder) for each in warnings] == list(file.warnings)
    assert [_general(each, folder) for each in problems] == list(file.problems)
    if loaded is not None:
        found = {server_id: _meaning(server, folder) for server_id, server in loaded.config.servers.items()}
        assert found == _general({server_id: dict(fields) for server_id, fields in file.servers.items()}, folder)
        assert loaded.switched_off == tuple(file.off)
        assert SECRET not in repr(loaded.config)
    return loaded


def _write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1), encoding="utf-8")
    return path


def _meaning(server: ServerConfig, folder: Path) -> dict[str, Any]:
    """Return the fields that differ from their defaults, and the members of the sections that do."""
    plain = ServerConfig()
    found = {}
    for name in ServerConfig.__struct_fields__:
        value, default = getattr(server, name), getattr(plain, name)
        if value == default or name in ("name", "extras", "hidden_texts"):
            continue
        if name in _SHOWN:
            value = {
                field: each for field, each in msgspec.structs.asdict(value).items() if each != getattr(default, field)
            }
        found[name] = _general(value, folder)
    if found.get("transport") == "stdio":
        del found["transport"]
    return found


def _general(value: Any, folder: Path) -> Any:
    """Replace the folder of the project by a name, and tuples by lists."""
    if isinstance(value, str):
        return value.replace(str(folder), "{project}")
    if isinstance(value, list | tuple):
        return [_general(each, folder) for each in value]
    if isinstance(value, dict):
        return {name: _general(each, folder) for name, each in value.items()}
    return value
