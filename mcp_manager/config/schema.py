"""The JSON Schema of the configuration file, made from the structs and their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from mcp_manager.config._checks import TRANSPORT_SPELLINGS
from mcp_manager.config.manager import ManagerConfig
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.own_file import SHARED_FIELDS
from mcp_manager.config.serve import ServeConfig, ViewConfig

__all__ = ["config_schema"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_FIELD: Final = re.compile(r"^([a-z_][a-z_, ]*)\n((?:    .*\n?|\n)+)", re.MULTILINE)
_ROLE: Final = re.compile(r":(?:class|func|data|meth):`~?(?:[\w.]*\.)?(\w+)`")
_LITERAL: Final = re.compile(r"``([^`]*)``")
_TRANSPORTS: Final = [name for name, ours in TRANSPORT_SPELLINGS.items() if ours in ("http", "sse", "stdio")]
_STRUCTS: Final[tuple[type[msgspec.Struct], ...]] = (ManagerConfig, ServerConfig, ServeConfig, ViewConfig)
_SWITCHES: Final = {
    "disabled": "Leave this server out.",
    "enabled": "Leave this server out if false.",
}


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a configuration file in our own format, TOML or JSON.

    Every field has a description, its default, its range and its choices. Editors complete and check a file by it: in
    TOML, write ``#:schema fleet.schema.json`` in the first line (Taplo, Even Better TOML); in JSON, give the key
    ``$schema``.
    """
    _, components = msgspec.json.schema_components(_STRUCTS, ref_template="#/$defs/{name}")
    definitions = {name: _described(name, each) for name, each in components.items()}
    manager, server = definitions["ManagerConfig"], definitions["ServerConfig"]
    del manager["properties"]["servers"]
    # Only Python code can give a server in memory.
    del server["properties"]["server"]
    _adjust_server(server["properties"])
    defaults = {name: each for name, each in server["properties"].items() if name in SHARED_FIELDS}
    definitions["Server"] = {
        "title": "Server",
        "description": server["description"],
        "type": "object",
        "properties": {
            **server["properties"],
            "type": {**server["properties"]["transport"], "description": "Another name of transport."},
            **{name: {"type": "boolean", "description": text} for name, text in _SWITCHES.items()},
        },
        "additionalProperties": False,
    }
    definitions["Defaults"] = {
        "title": "Defaults",
        "description": "Settings for every server that does not give its own.",
        "type": "object",
        "properties": defaults,
        "additionalProperties": False,
    }
    del definitions["ServerConfig"]
    return {
        "$schema": _DIALECT,
        "title": "The configuration file of mcp_manager",
        "type": "object",
        "properties": {
            "$schema": {"type": "string", "description": "The address of this schema, for editors."},
            "manager": {"$ref": "#/$defs/ManagerConfig", "description": "The settings of the manager."},
            "defaults": {"$ref": "#/$defs/Defaults", "description": definitions["Defaults"]["description"]},
            "servers": _map_of({"$ref": "#/$defs/Server"}, "The servers by id."),
            "mcpServers": _map_of({"type": "object"}, "Servers by id in the format that MCP clients share."),
            "serve": {"$ref": "#/$defs/ServeConfig", "description": "The settings of the gateway."},
            "views": _map_of({"$ref": "#/$defs/ViewConfig"}, "The views of the gateway by name."),
        },
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _map_of(values: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"minLength": 1, "maxLength": 256},
        "additionalProperties": values,
        "description": description,
    }


def _described(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a struct with a description of every field."""
    kind = _struct_named(name)
    texts = _descriptions(kind)
    properties = {field: {**_simple(each), "description": texts[field]} for field, each in schema["properties"].items()}
    return {
        "title": name,
        "description": _plain_text((inspect.getdoc(kind) or "").partition("\n\n")[0]),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _struct_named(name: str) -> type[msgspec.Struct]:
    pending = [*_STRUCTS]
    for kind in pending:
        if kind.__name__ == name:
            return kind
        for field in msgspec.structs.fields(kind):
            found = [each for each in _types_in(field.type) if each not in pending]
            pending += found
    raise LookupError(name)


def _types_in(annotation: Any) -> Iterable[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation
    for each in getattr(annotation, "__args__", ()):
        yield from _types_in(each)


def _descriptions(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return what the docstring says of each field; several may share one text."""
    _, _, parameters = (inspect.getdoc(kind) or "").partition("Parameters\n----------\n")
    found = {}
    for names, text in _FIELD.findall(parameters):
        for name in names.split(","):
            found[name.strip()] = _plain_text(text)
    return found


def _plain_text(text: str) -> str:
    """Return the text of a docstring on one line, without its markup."""
    return " ".join(_LITERAL.sub(r"`\1`", _ROLE.sub(r"\1", text)).split())


def _simple(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a field; ``null`` is not among its types, because TOML has none."""
    simple = dict(schema)
    options = [each for each in simple.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1:
        del simple["anyOf"]
        simple = {**options[0], **simple}
    elif options:
        simple["anyOf"] = options
    if simple.get("default", 0) is None:
        del simple["default"]
    if "enum" in simple:
        simple["enum"] = [each for each in simple["enum"] if each is not None]
    return simple


def _adjust_server(properties: dict[str, Any]) -> None:
    """Say what the types alone do not say of a server's fields."""
    properties["instances"] = {**properties["instances"], "minimum": 0}
    del properties["instances"]["default"]
    properties["transport"] = {
        "type": "string",
        "enum": _TRANSPORTS,
        "description": properties["transport"]["description"],
    }
