"""What may describe a server: a struct, its fields, a URL, a command line, JSON text, or an object in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mcp_manager.config._plain import describe
from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.fields.server import ServerFields
from mcp_manager.config.memory import ServerObject, is_server_object
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.naming import id_of_command, id_of_url, is_url
from mcp_manager.config.parse import (
    PREFIX,
    SERVER_FIELDS,
    check_server_config,
    parse_server_config,
    refuse_unknown,
    validate_server_id,
)
from mcp_manager.types import SequenceNotStr

__all__ = ["ACCEPTED", "ServerSpec", "fields_of", "server_config_of", "server_id_of"]

ServerSpec = ServerConfig | ServerFields | Mapping[str, Any] | ServerObject | SequenceNotStr[str] | str | bytes
"""What describes a server.

A :class:`ServerConfig`; a mapping of its fields; a URL; a command line, as a list of the program and its arguments; a
list of URLs, one for each instance; a JSON object as text; or a server object in memory.
"""

ACCEPTED: Final = (
    "a ServerConfig, a mapping of its fields, a URL, a list of a program and its arguments, or a server object"
)

_COMMAND_HINT: Final = 'give a program and its arguments as a list, such as ["uvx", "mcp-server-time"]'


def server_config_of(server_id: str, spec: ServerSpec | None, fields: Mapping[str, Any] | None = None) -> ServerConfig:
    """Return the checked configuration of a server.

    Parameters
    ----------
    server_id
        The id of the server.
    spec
        What describes it; ``None`` if the fields alone do.
    fields
        Fields that replace those of ``spec``, each as a whole.

    Raises
    ------
    ConfigError
        The id or the configuration is invalid.
    """
    if isinstance(spec, ServerConfig) and not fields:
        # The usual case in a large fleet.
        return check_server_config(spec, server_id=server_id)
    validate_server_id(server_id)
    try:
        if isinstance(spec, ServerConfig):
            # Unlike a mapping, it may have variables such as ${VAR}, which are taken as they are.
            return check_server_config(_replaced(spec, fields or {}), server_id=server_id)
        given = fields_of(spec) if spec is not None else {}
    except FieldProblem as problem:
        error = problem.error(PREFIX, server_id)
    else:
        if isinstance(given, Mapping):
            return parse_server_config({**given, **(fields or {})} if fields else given, server_id=server_id)
        if not fields:
            return parse_server_config(given, server_id=server_id)
        # The text alone says what is wrong with it.
        config = parse_server_config(given, server_id=server_id)
        return server_config_of(server_id, config, fields)
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def fields_of(spec: object) -> Mapping[str, Any] | str | bytes:
    """Return the fields that a specification stands for, or the JSON text that it is; raises :class:`FieldProblem`."""
    if isinstance(spec, str):
        text = spec.strip()
        if is_url(text):
            return {"url": text}
        if not text.startswith(("{", "[")):
            # It is not quoted: it may hold a credential.
            raise FieldProblem("", "a text must be a URL of http or https, or a JSON object", _COMMAND_HINT)
        return spec
    if isinstance(spec, bytes | bytearray):
        return bytes(spec)
    if isinstance(spec, Mapping):
        return spec
    if is_server_object(spec):
        return {"server": spec}
    if isinstance(spec, Sequence):
        return _of_texts(spec)
    raise FieldProblem("", f"expected {ACCEPTED}, got {describe(spec)}")


def server_id_of(spec: object) -> str:
    """Name a server that nobody has named: by its object, its URL or its program; raises :class:`FieldProblem`."""
    if isinstance(spec, ServerConfig):
        fields: Mapping[str, Any] | str | bytes = {
            name: value for name in ("name", "url", "command", "args", "server") if (value := getattr(spec, name))
        }
    else:
        fields = fields_of(spec)
    if not isinstance(fields, Mapping):
        raise FieldProblem("", "JSON text has no id", "give a mapping of servers by id")
    url, command, server = fields.get("url"), fields.get("command"), fields.get("server")
    if isinstance(name := fields.get("name"), str) and name:
        return name
    if is_server_object(server):
        return server.name
    if isinstance(command, str) and command:
        arguments = fields.get("args", ())
        words = arguments if isinstance(arguments, list | tuple) else ()
        return id_of_command([command, *(each for each in words if isinstance(each, str))])
    first = url[0] if isinstance(url, list | tuple) and url else url
    return id_of_url(first) if isinstance(first, str) else "server"


def _of_texts(texts: Sequence[object]) -> dict[str, Any]:
    if not texts or not all(isinstance(each, str) for each in texts):
        raise FieldProblem("", "expected a list of a program and its arguments, or of URLs", f"or {ACCEPTED}")
    if all(is_url(str(each)) for each in texts):
        return {"url": list(texts)}
    if is_url(str(texts[0])):
        raise FieldProblem("", "a list that begins with a URL must hold nothing but URLs", "one for each instance")
    return {"command": texts[0], "args": list(texts[1:])}


def _replaced(config: ServerConfig, fields: Mapping[str, Any]) -> ServerConfig:
    for name in fields:
        if name not in SERVER_FIELDS:
            refuse_unknown(name, ServerConfig.__struct_fields__, "")
    return msgspec.structs.replace(config, **fields)
