"""Loading of configuration files: JSON or TOML, in our own format and that of MCP clients."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from mcp_manager.config._interpolate import NotedVariables, interpolate
from mcp_manager.config._plain import describe, plain
from mcp_manager.config._problem import FieldProblem, join
from mcp_manager.config._secret_forms import plain_forms
from mcp_manager.config.model import ManagerConfig, ServerConfig
from mcp_manager.config.parse import (
    HTTP_ONLY,
    SERVER_FIELDS,
    STDIO_ONLY,
    build_server,
    check_server_id,
    convert,
    decode_json,
    decode_utf8,
    refuse_unknown,
    warn_of_near_misses,
)
from mcp_manager.config.redaction import masked
from mcp_manager.errors import ConfigError

__all__ = ["load_manager_config"]

logger = logging.getLogger(__name__)

_TOP_LEVEL: Final = ("manager", "defaults", "servers", "mcpServers")
_MANAGER_ALONE: Final = frozenset(ManagerConfig.__struct_fields__) - {*_TOP_LEVEL, *ServerConfig.__struct_fields__}
_INTERPOLATED: Final = (
    "command", "args", "env", "url", "headers", "cwd", "auth", "tls", "proxy", "unix_socket", "hidden_texts"
)  # fmt: skip
_MERGED: Final = frozenset(
    {
        "env",
        "headers",
        "tls",
        "breaker",
        "health",
        "restart",
        "balancing",
        "discovery",
        "retry",
        "hedge",
        "fallback",
        "limits",
        "tools",
    }
)
_NOT_SHARED: Final = frozenset({"name", "url", "command", "transport", "extras"})


def load_manager_config(path: str | os.PathLike[str], *, environment: Mapping[str, str] | None = None) -> ManagerConfig:
    """Read the configuration file of a manager.

    The name ends in ``.toml`` or ``.json``. At the top level:

    - ``manager``: fields of :class:`ManagerConfig`; an unknown one is an error.
    - ``defaults``: fields of :class:`ServerConfig` for every server that does not set its own; an unknown one is an
      error. Objects such as ``env``, ``headers`` or ``breaker`` are merged member by member; ``auth`` is replaced as a
      whole. Fields that apply only to HTTP or only to stdio servers are used for those alone.
    - ``servers`` and ``mcpServers``: servers by id, with our fields or those of MCP clients (``command``, ``args``,
      ``env``, ``cwd``; ``type`` or ``transport``, ``url``, ``headers``). Unknown fields are kept in ``extras`` and
      ignored; one that looks like a misspelt field is logged as a warning. ``"disabled": true`` skips a server.
      ``timeout`` counts as unknown, because its unit differs between clients: use ``request_timeout_s``.

    ``${VAR}``, ``${env:VAR}`` and ``${VAR:-default}`` stand for environment variables in ``command``, ``args``,
    ``env``, ``url``, ``headers``, ``cwd``, ``tls``, ``proxy``, ``unix_socket``, ``hidden_texts``, ``auth.key`` and
    ``auth.token``; ``$${`` stands for ``${`` itself.

    Parameters
    ----------
    path
        The file.
    environment
        The variables by name. Default: ``os.environ``.

    Returns
    -------
    The checked configuration.

    Raises
    ------
    ConfigError
        The file cannot be read or something in it is malformed. The message begins with
        "Invalid config file <path>: " and names the field, or the position in the file.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"the path of a configuration file must be text or a Path, not of type {type(path).__name__}")
    filled_in = NotedVariables(os.environ if environment is None else environment)
    try:
        return _build(_read(Path(path)), filled_in)
    except FieldProblem as found:
        error = found.error(f"Invalid config file {os.fspath(path)}")
    secrets = {form for each in filled_in.noted for form in plain_forms(each)}
    error.message, error.hint = masked(error.message, secrets), masked(error.hint, secrets)
    error.args = (error.message,)
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def _read(path: Path) -> dict[str, Any]:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".toml"):
        raise FieldProblem("", "the name must end in .json or .toml")
    try:
        data = path.read_bytes()
    except OSError as failed:
        reason = failed.strerror or type(failed).__name__
    except ValueError:
        reason = "the name contains a NUL character"
    else:
        document = _decode_toml(data) if suffix == ".toml" else decode_json(decode_utf8(data))
        if not isinstance(document, dict):
            raise FieldProblem("", f"expected an object, got {describe(document)}")
        return document
    raise FieldProblem("", f"cannot be read: {reason}")


def _decode_toml(data: bytes) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - only TOML files need it

    text = decode_utf8(data)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as malformed:
        problem = f"malformed TOML: {malformed.args[0]}"
    except RecursionError:
        problem = "malformed TOML: nested too deeply"
    except ValueError:
        problem = "malformed TOML: a number or date is out of range"
    raise FieldProblem("", problem)


def _build(document: dict[str, Any], environment: NotedVariables) -> ManagerConfig:
    if document and not any(name in document for name in _TOP_LEVEL):
        raise FieldProblem("", "has none of the known tables", f"use {', '.join(_TOP_LEVEL)}")
    warn_of_near_misses((name for name in document if name not in _TOP_LEVEL), _TOP_LEVEL, "")
    _warn_of_misplaced(document, "")
    for name in _TOP_LEVEL:
        if not isinstance(document.get(name, {}), dict):
            raise FieldProblem(name, f"expected an object, got {describe(document[name])}")
    defaults = _checked_defaults(document.get("defaults", {}), environment)
    shared = environment.take()
    servers: dict[str, ServerConfig] = {}
    for table in ("servers", "mcpServers"):
        for server_id, settings in document.get(table, {}).items():
            where = join(table, server_id)
            check_server_id(server_id, where)
            if server_id in document.get("servers" if table == "mcpServers" else "mcpServers", {}):
                raise FieldProblem(where, "the same id is in servers and in mcpServers", "rename or remove one")
            if not isinstance(settings, dict):
                raise FieldProblem(where, f"expected an object, got {describe(settings)}")
            if _is_disabled(settings, where):
                continue
            _warn_of_misplaced(settings, where)
            own = _merge(defaults, _interpolated(settings, where, environment))
            filled_in = (*shared, *environment.take())
            if filled_in and isinstance(own.get("hidden_texts", []), list):
                own["hidden_texts"] = [*own.get("hidden_texts", []), *dict.fromkeys(filled_in)]
            servers[server_id] = build_server(own, server_id=server_id, lenient=True, path=where)
    return _manager(document.get("manager", {}), servers)


def _manager(settings: dict[str, Any], servers: dict[str, ServerConfig]) -> ManagerConfig:
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


def _warn_of_misplaced(names: Iterable[str], path: str) -> None:
    """Log a warning for every field of :class:`ManagerConfig` that is outside the ``manager`` table."""
    for name in names:
        if name in _MANAGER_ALONE:
            logger.warning("%s: ignored here; it belongs in the manager table", join(path, name))


def _checked_defaults(defaults: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Substitute variables in the defaults, and check them as parts of an HTTP and of a stdio server."""
    for name in defaults:
        if name in _NOT_SHARED:
            raise FieldProblem(join("defaults", name), "cannot be a default", "give it with each server")
        if name not in SERVER_FIELDS:
            refuse_unknown(name, sorted(SERVER_FIELDS - _NOT_SHARED), "defaults")
    filled = _interpolated(plain(defaults, "defaults"), "defaults", environment)
    for own in ({"url": "http://localhost"}, {"command": "true"}):
        build_server(_merge(filled, own), server_id="defaults", lenient=False, path="defaults")
    return filled


def _merge(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Complete ``own`` with those of the ``defaults`` that apply to its transport."""
    skipped = HTTP_ONLY if own.get("command") is not None else STDIO_ONLY
    merged = {name: value for name, value in defaults.items() if name not in skipped}
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


def _merge_members(name: str, shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if name == "headers":
        given = {header.lower() for header in own}
        shared = {header: value for header, value in shared.items() if header.lower() not in given}
    return {**shared, **own}


def _interpolated(settings: dict[str, Any], path: str, environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: interpolate(value, join(path, name), environment, only=("key", "token") if name == "auth" else None)
        if name in _INTERPOLATED
        else value
        for name, value in settings.items()
    }


def _is_disabled(settings: dict[str, Any], path: str) -> bool:
    disabled = settings.get("disabled", False)
    if not isinstance(disabled, bool):
        raise FieldProblem(join(path, "disabled"), f"expected true or false, got {describe(disabled)}")
    return disabled
