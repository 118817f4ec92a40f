"""The transport of a server, and the fields that apply to it."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from mcp_manager.config._checks import TRANSPORT_SPELLINGS
from mcp_manager.config._plain import describe
from mcp_manager.config._problem import FieldProblem, join, shown
from mcp_manager.config.memory import is_server_object
from mcp_manager.config.tls import TlsConfig

__all__ = ["HTTP_ONLY", "STDIO_ONLY", "choose_transport", "take_misplaced"]

logger = logging.getLogger("mcp_manager.config.parse")

_PLACES: Final = ("url", "command", "server")
STDIO_ONLY: Final = ("args", "env", "cwd", "inherit_env")
HTTP_ONLY: Final = ("headers", "headers_command", "auth", "tls", "proxy", "unix_socket")
_FOR_A_PROGRAM: Final = "pass credentials to a child process in env"
_OF_A_URL, _OF_A_PROGRAM = "drop it: only a url takes it", "drop it: only a command takes it"
_ONLY_FOR: Final = {
    "stdio": _OF_A_URL,
    "http": _OF_A_PROGRAM,
    "sse": _OF_A_PROGRAM,
    "memory": "drop it: the object has its own settings",
}
_KINDS: Final = {
    "stdio": "a stdio server",
    "http": "an HTTP server",
    "sse": "an HTTP server",
    "memory": "a server in memory",
}
_DEFAULT_TLS: Final = msgspec.structs.asdict(TlsConfig())
_CREDENTIALS: Final = (
    "key",
    "token",
    "token_file",
    "token_command",
    "client_secret",
    "private_key",
    "assertion",
    "idp_client_secret",
)


def choose_transport(fields: dict[str, Any], path: str) -> None:
    """Set ``transport`` from its two field names and its spellings, and check it against ``url`` and ``command``."""
    chosen: str | None = None
    for name in ("type", "transport"):
        if name not in fields:
            continue
        value = fields.pop(name)
        where = join(path, name)
        if not isinstance(value, str):
            raise FieldProblem(where, f"expected a string, got {describe(value)}")
        transport = TRANSPORT_SPELLINGS.get(value.lower())
        if transport is None:
            raise FieldProblem(where, f"unknown transport {shown(value)}", "use 'http', 'sse' or 'stdio'")
        if transport == "memory" and "server" not in fields:
            text = "a server in memory is an object, which only Python code can give as server"
            raise FieldProblem(where, text, "here, use 'http', 'sse' or 'stdio'")
        if transport not in ("http", "sse", "stdio", "memory"):
            raise FieldProblem(where, f"{transport} is not supported yet", "use 'http', 'sse' or 'stdio'")
        if chosen not in (None, transport):
            raise FieldProblem(where, "contradicts type", "give one of type and transport")
        chosen = transport
    given = [name for name in _PLACES if name in fields]
    if len(given) > 1:
        first, *_, last = given
        raise FieldProblem(join(path, last), f"cannot be combined with {first}", f"give one of {first} and {last}")
    if "server" in fields:
        _check_object(fields["server"], join(path, "server"))
        if chosen not in (None, "memory"):
            raise FieldProblem(join(path, "transport"), f"{chosen} does not apply to a server in memory", "drop it")
        fields["transport"] = "memory"
        return
    if chosen == "stdio" and "url" in fields:
        raise FieldProblem(join(path, "url"), "cannot be combined with the stdio transport", "give a command instead")
    if chosen in ("http", "sse") and "command" in fields:
        raise FieldProblem(
            join(path, "command"), f"cannot be combined with the {chosen} transport", "give a url instead"
        )
    if not given:
        missing = "command" if chosen == "stdio" else "url"
        raise FieldProblem(join(path, missing), "missing", "give url for an HTTP server or command for a stdio server")
    fields["transport"] = "stdio" if "command" in fields else chosen or "http"


def _check_object(server: object, path: str) -> None:
    if is_server_object(server):
        return
    text = f"expected a server object of the package mcp or fastmcp, got {describe(server)}"
    raise FieldProblem(path, text, "give url or command: only Python code can give a server in memory")


def take_misplaced(fields: dict[str, Any], path: str, *, lenient: bool) -> dict[str, Any]:
    """Remove and return the fields that do not apply to the transport; without ``lenient``, they are an error."""
    transport = fields["transport"]
    stdio, kind = transport == "stdio", _KINDS[transport]
    found: dict[str, Any] = {}
    for name in {"stdio": HTTP_ONLY, "memory": (*HTTP_ONLY, *STDIO_ONLY)}.get(transport, STDIO_ONLY):
        if not fields.get(name) or (name == "auth" and _is_no_auth(fields[name])):
            continue
        if name == "tls" and fields[name] == _DEFAULT_TLS:
            continue
        found[name] = fields.pop(name)
        text = f"does not apply to {kind}"
        if not lenient:
            hint = _FOR_A_PROGRAM if stdio and name in ("headers", "headers_command", "auth") else _ONLY_FOR[transport]
            raise FieldProblem(join(path, name), text, hint)
        logger.warning("%s: %s, ignored", join(path, name), text)
    return found


def _is_no_auth(auth: object) -> bool:
    return isinstance(auth, dict) and auth.get("type") in (None, "none") and not any(map(auth.get, _CREDENTIALS))
