"""The format of this package's own files: the tables ``manager``, ``defaults``, ``servers``, ``serve`` and ``views``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from mcp_manager.config._plain import describe, plain
from mcp_manager.config._problem import FieldProblem, join
from mcp_manager.config._transport import HTTP_ONLY, STDIO_ONLY
from mcp_manager.config.building import build_with_all_problems
from mcp_manager.config.gateway_tables import GATEWAY_TABLES
from mcp_manager.config.manager import ManagerConfig
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.parse import (
    SERVER_FIELDS,
    check_object,
    convert,
    nearest,
    refuse_unknown,
)
from mcp_manager.config.rates import RetryBudgetConfig
from mcp_manager.config.telemetry import TelemetryConfig
from mcp_manager.config.traces import TracesConfig

__all__ = [
    "FLEET_TABLES",
    "INTERPOLATED",
    "MANAGER_ALONE",
    "SHARED_FIELDS",
    "TABLES",
    "Defaults",
    "check_defaults",
    "check_tables",
    "manager_of",
    "manager_problems",
    "switched_off",
]

FLEET_TABLES: Final = ("manager", "defaults", "servers", "mcpServers")
TABLES: Final = (*FLEET_TABLES, *GATEWAY_TABLES)
MANAGER_ALONE: Final = frozenset(ManagerConfig.__struct_fields__) - {*TABLES, *ServerConfig.__struct_fields__}
INTERPOLATED: Final = (
    "command", "args", "env", "url", "headers", "headers_command", "cwd", "auth", "tls", "proxy", "unix_socket",
    "hidden_texts",
)  # fmt: skip
"""The fields of a server in which variables are replaced."""
_MERGED: Final = frozenset(
    {
        "env", "headers", "tls", "tools", "breaker", "health", "restart", "balancing", "discovery", "retry", "hedge",
        "fallback", "limits",
    }
)  # fmt: skip
_NOT_SHARED: Final = frozenset({"name", "url", "command", "server", "transport", "extras"})
SHARED_FIELDS: Final = SERVER_FIELDS - _NOT_SHARED
"""The fields of a server that can be defaults."""
_MOST_COMPARED: Final = 100
_MANAGER_TABLES: Final[Mapping[str, type[msgspec.Struct]]] = {
    "retry_budget": RetryBudgetConfig,
    "telemetry": TelemetryConfig,
    "telemetry.traces": TracesConfig,
}
"""The tables within the manager's."""
_SWITCHES: Final = {"disabled": True, "enabled": False}


class Defaults(NamedTuple):
    """The settings for every server that does not give its own, and the secrets that were filled in there."""

    fields: Mapping[str, Any]
    hidden: tuple[str, ...]

    def applied_to(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the fields of a server with those of the defaults that apply to its transport."""
        skipped: tuple[str, ...] = HTTP_ONLY if own.get("command") is not None else STDIO_ONLY
        if own.get("server") is not None:
            skipped = (*HTTP_ONLY, *STDIO_ONLY)
        merged = {name: value for name, value in self.fields.items() if name not in skipped}
        if own.get("unix_socket") or str(own.get("url")).lower().startswith("http+unix:"):
            # A server on a unix socket uses no proxy, so a default one does not apply.
            merged.pop("proxy", None)
        for name, value in own.items():
            shared = merged.get(name)
            if name in _MERGED and isinstance(shared, dict) and isinstance(value, dict):
                merged[name] = _merge_members(name, shared, value)
            elif shared is None or value is not None:
                merged[name] = value
        return merged


def check_tables(document: Mapping[str, Any]) -> Iterator[FieldProblem]:
    """Yield what is wrong at the top of a file, and in the defaults."""
    known = [name for name in document if name in TABLES]
    unknown = [name for name in document if name not in (*TABLES, "$schema")]
    if unknown and not known and not any(nearest(name, TABLES, cutoff=0.7) for name in unknown[:_MOST_COMPARED]):
        yield FieldProblem("", "has none of the known tables", f"use {', '.join(TABLES)}", unknown[0])
        return
    for name in unknown[:_MOST_COMPARED]:
        if name in MANAGER_ALONE:
            yield FieldProblem("", f"unknown table {name!r}", "it belongs in the manager table", name)
            continue
        try:
            refuse_unknown(name, TABLES, "")
        except FieldProblem as problem:
            yield FieldProblem(
                "",
                problem.text.replace("unknown field", "unknown table"),
                problem.hint.replace("known fields", "known tables"),
                name,
            )
    for name in known:
        if not isinstance(document[name], dict):
            way_out = f"write [{name}], with single brackets" if isinstance(document[name], list) else ""
            yield FieldProblem(name, f"expected an object, got {describe(document[name])}", way_out)
    defaults = document.get("defaults", {})
    for name in defaults if isinstance(defaults, dict) else ():
        if name in _NOT_SHARED:
            yield FieldProblem(join("defaults", name), "cannot be a default", "give it with each server")
        elif name not in SERVER_FIELDS:
            try:
                refuse_unknown(name, sorted(SHARED_FIELDS), "defaults")
            except FieldProblem as problem:
                yield problem


def check_defaults(defaults: Defaults) -> Iterator[FieldProblem]:
    """Yield what is wrong with the defaults as parts of an HTTP and of a stdio server."""
    told: set[str] = set()
    for own in ({"url": "http://localhost"}, {"command": "true"}):
        _, problems = build_with_all_problems(defaults.applied_to(own), server_id="defaults", path="defaults")
        for problem in problems:
            if str(problem) not in told:
                told.add(str(problem))
                yield problem


def manager_of(settings: Mapping[str, Any], servers: dict[str, ServerConfig]) -> ManagerConfig:
    """Return the configuration of a manager; raises :class:`FieldProblem`."""
    known = [name for name in ManagerConfig.__struct_fields__ if name != "servers"]
    for name in settings:
        if name not in known:
            refuse_unknown(name, known, "manager")
    config: ManagerConfig = convert(plain(settings, "manager"), ManagerConfig, "manager")
    for name in ("client_name", "client_version"):
        text = getattr(config, name)
        if not text or not text.isascii() or not text.isprintable() or len(text) > 256:
            raise FieldProblem(join("manager", name), "expected 1 to 256 printable ASCII characters")
    return msgspec.structs.replace(config, servers=servers)


def manager_problems(settings: Mapping[str, Any]) -> Iterator[FieldProblem]:
    """Yield everything that is wrong with the manager's settings."""
    yield from _table_problems(settings, ())


def _table_problems(table: Mapping[str, Any], outer: tuple[str, ...]) -> Iterator[FieldProblem]:
    """Yield what is wrong in a table of the manager's settings: each field is judged by itself."""
    for name, value in table.items():
        names = (*outer, name)
        kind = _MANAGER_TABLES.get(".".join(names))
        if kind is not None and isinstance(value, dict):
            yield from _table_problems(value, names)
            continue
        settings: Any = value
        for each in reversed(names):
            settings = {each: settings}
        try:
            if outer:
                check_object({name: value}, _MANAGER_TABLES[".".join(outer)], ".".join(("manager", *outer)))
            manager_of(settings, {})
        except FieldProblem as problem:
            yield problem


def switched_off(settings: dict[str, Any], path: str, problems: list[FieldProblem]) -> bool:
    """Take ``disabled`` and ``enabled`` out of a server's settings, and tell whether they turn it off.

    One that is no boolean is added to ``problems``.
    """
    is_off = False
    for name, off in _SWITCHES.items():
        value = settings.pop(name, not off)
        if not isinstance(value, bool):
            problems.append(FieldProblem(join(path, name), f"expected true or false, got {describe(value)}"))
        is_off = is_off or value is off
    return is_off


def _merge_members(name: str, shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if name == "headers":
        given = {header.lower() for header in own}
        shared = {header: value for header, value in shared.items() if header.lower() not in given}
    return {**shared, **own}
