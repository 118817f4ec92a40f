"""The servers in a client's file as servers of ours, before variables are filled in."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from mcp_manager.config._plain import describe, plain
from mcp_manager.config._problem import FieldProblem, join
from mcp_manager.config.clients.conversions import take
from mcp_manager.config.clients.dialects import COMMON_HARMLESS, FOREIGN_FIELDS, GENERIC
from mcp_manager.config.clients.entry import Entry
from mcp_manager.config.clients.placeholders import Surroundings, input_variable
from mcp_manager.config.clients.recognition import Found, client_of, servers_in, workspace_of
from mcp_manager.config.clients.registry import as_server
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.own_file import TABLES
from mcp_manager.config.parse import nearest
from mcp_manager.config.reading import Document

__all__ = [
    "ClientServer",
    "client_servers",
    "input_names",
    "is_client_file",
    "plain_servers",
    "settle",
    "warn_of_no_table",
]

logger: logging.Logger = logging.getLogger(__name__)

_EDITOR_ONLY: Final = ("${input:", "${workspaceFolder", "${userHome}")
_MOST_COMPARED: Final = 100
_FOREIGN: Final = (COMMON_HARMLESS | FOREIGN_FIELDS.keys()) - {
    *ServerConfig.__struct_fields__, "timeout", "id", "version", "source", "provider", "title",
}  # fmt: skip
"""Fields that only clients have: in a file with ``servers``, they tell that it is none of ours."""
_INPUTS: Final = (
    ("inputs",),
    ("mcp", "inputs"),
    ("customizations", "vscode", "mcp", "inputs"),
    ("settings", "mcp", "inputs"),
)
"""Where the values stand that an editor asks its user for."""
_FIRST: Final = ("type", "transport")
_LAST: Final = ("envFile", "env_file")
_EDITOR_FILE: Final = "/mcp.json"


class ClientServer(NamedTuple):
    """A server of a client's file: its id, and what was found out about it; ``entry.ours`` has its fields."""

    server_id: str
    entry: Entry


def is_client_file(document: Document) -> bool:
    """Tell whether a file is in the format of a client rather than in our own."""
    data = document.data
    if "manager" in data or "defaults" in data or not data:
        return False
    if "servers" in data:
        return document.kind == "json" and _is_of_an_editor(document)
    if document.kind == "toml" and "mcpServers" in data:
        return False
    return servers_in(data, document.path) is not None or _is_known_by_name(document)


def _is_known_by_name(document: Document) -> bool:
    """Tell whether the name alone says that it is a client's file, in which there are no servers."""
    client = client_of(document.path)
    return client is not None and "mcpServers" not in document.data and not _is_misspelt(document.data)


def _is_misspelt(data: Mapping[str, Any]) -> bool:
    return any(nearest(name, TABLES, cutoff=0.8) for name in [*data][:_MOST_COMPARED])


def client_servers(document: Document, home: Path) -> Iterator[ClientServer]:
    """Yield the servers of a client's file.

    Raises
    ------
    FieldProblem
        What should hold servers is something else.
    """
    inputs = _inputs(document.data)
    for each in servers_in(document.data, document.path) or ():
        yield _translated(each, document.path, home, inputs)


def warn_of_no_table(document: Document) -> None:
    """Log a warning if a client's file, which its name tells, has no table for servers."""
    client = client_of(document.path)
    if client is not None and servers_in(document.data, document.path) is None:
        tables = dict.fromkeys(".".join(table.path) for table in client.tables if table.path)
        logger.warning("%s: has no servers; %s has them in %s", document.path, client.client, " or ".join(tables))


def plain_servers(table: Mapping[str, Any], path: Path, home: Path) -> Iterator[ClientServer]:
    """Yield the servers of the table ``mcpServers`` in a file of our own."""
    for name, value in table.items():
        found = Found(name, name, value, join("mcpServers", name), GENERIC, is_guessed=False)
        yield _translated(found, path, home, {})


def input_names(server: ClientServer) -> dict[str, str]:
    """Return by variable the values that the client asks its user for."""
    return {input_variable(name): name for name in server.entry.around.inputs}


def _translated(found: Found, path: Path, home: Path, inputs: dict[str, str | None]) -> ClientServer:
    # What comes of it may be used in another folder: a file that is written, or a program with a `cwd`.
    path = path.absolute()
    workspace = Path(found.project) if found.project else workspace_of(path)
    around = Surroundings(path.parent, workspace, home, inputs, [])
    entry = Entry(found.dialect, around, found.path, is_guessed=found.is_guessed)
    entry.is_off = found.is_off
    settings = found.settings
    try:
        if not isinstance(settings, dict):
            raise FieldProblem(found.path, f"expected an object, got {describe(settings)}")
        if found.dialect.client == "the MCP registry":
            settings = as_server(settings, found.path)
        # The type first: it may say that there is no server at all. A file of variables last: ``env`` comes before it.
        ordered = sorted(settings, key=lambda name: 0 if name in _FIRST else 2 if name in _LAST else 1)
        take(entry, {name: settings[name] for name in ordered}, found.path)
        if "settings" in settings and not {"url", "command"} & entry.ours.keys():
            entry.skipped = f"is an extension of {found.dialect.client}, and no server of its own"
        entry.finish()
    except FieldProblem as problem:
        entry.problems.append(problem)
    except RecursionError:
        entry.problems.append(FieldProblem(found.path, "nested too deeply"))
    if found.server_id != found.name:
        logger.info("%s: is named %s, because the id %s is taken", found.path, found.server_id, found.name)
    return ClientServer(found.server_id, entry)


def _is_of_an_editor(document: Document) -> bool:
    """Tell whether a file with ``servers`` is one of VS Code, where ours has the same name for them."""
    name = document.path.absolute().as_posix().lower()
    if document.is_jsonc or "inputs" in document.data or name.endswith(_EDITOR_FILE):
        return True
    if any(each in document.text for each in _EDITOR_ONLY):
        return True
    servers = document.data["servers"]
    settings = [each for each in servers.values() if isinstance(each, dict)] if isinstance(servers, dict) else []
    return any(not _FOREIGN.isdisjoint(each) for each in settings)


def _inputs(data: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the defaults of the values that an editor asks its user for, by id."""
    found: dict[str, str | None] = {}
    for path in _INPUTS:
        value: Any = data
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        for each in value if isinstance(value, list) else ():
            if isinstance(each, dict) and isinstance(each.get("id"), str):
                default = each.get("default")
                found[each["id"]] = default if isinstance(default, str) and "}" not in default else None
    return found


def settle(server: ClientServer) -> tuple[dict[str, Any] | None, list[FieldProblem]]:
    """Log what there is to say of a server, and return its fields and what is wrong with it.

    The fields are ``None`` if the server is left out on purpose.
    """
    entry = server.entry
    if entry.is_off:
        logger.info("%s: is switched off, and left out", entry.path)
        return None, []
    if entry.skipped:
        logger.warning("%s: %s; it is left out", entry.path, entry.skipped)
        return None, []
    warning = entry.warning()
    if warning:
        logger.warning("%s: %s", entry.path, warning)
    problems = list(entry.problems)
    fields = {}
    for name, value in entry.ours.items():
        try:
            fields[name] = plain(value, entry.source_of(name))
        except FieldProblem as problem:
            problems.append(problem)
    return fields, problems
