"""The mirroring of tool arguments into HTTP headers (2026-07-28, streamable HTTP, custom headers)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mcp_manager.protocol.header_values import header_line

__all__ = [
    "ANNOTATION",
    "InvalidAnnotation",
    "MirroredParameter",
    "argument_text",
    "mirrored_parameters",
    "parameter_fields",
]

ANNOTATION: Final = "x-mcp-header"
_PREFIX: Final = "Mcp-Param-"
# RFC 9110, section 5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
# Keywords of JSON Schema 2020-12 (and items and definitions of its predecessors) whose values are schemas. Values of
# default, const, enum and examples are data and carry no annotations; references are not followed.
_SCHEMA: Final = (
    "items",
    "contains",
    "additionalItems",
    "additionalProperties",
    "contentSchema",
    "else",
    "if",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_SCHEMA_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_SCHEMA_MAPS: Final = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties")

Path = tuple[str, ...]


class InvalidAnnotation(Exception):
    """A tool's ``x-mcp-header`` annotation breaks a rule; the message says which."""


class MirroredParameter(msgspec.Struct, frozen=True):
    """An argument that is mirrored: its path in the arguments, and the header's name."""

    path: Path
    header: str


def mirrored_parameters(input_schema: object) -> tuple[MirroredParameter, ...]:
    """Return the arguments of a tool that are mirrored into headers.

    Parameters
    ----------
    input_schema
        The tool's decoded ``inputSchema``; references in it are not followed.

    Raises
    ------
    InvalidAnnotation
        An annotation is not a token, repeats another (ignoring case), is not on a string, integer or boolean, or is not
        reachable from the root through ``properties`` alone. The tool must not be used over HTTP.
    """
    found: dict[str, MirroredParameter] = {}
    for path, schema in _positions(input_schema):
        if ANNOTATION not in schema:
            continue
        if not path:
            raise InvalidAnnotation(f"{ANNOTATION} is not reachable through properties alone")
        where = ".".join(path)[:80]
        token = schema[ANNOTATION]
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise InvalidAnnotation(f"{ANNOTATION} of {where!r} is not a token (RFC 9110, section 5.6.2)")
        if not isinstance(schema.get("type"), str) or schema["type"] not in _TYPES:
            raise InvalidAnnotation(f"{ANNOTATION} of {where!r} is not on a string, integer or boolean")
        folded = token.lower()
        if folded in found:
            raise InvalidAnnotation(f"{ANNOTATION} of {where!r} repeats that of {'.'.join(found[folded].path)[:80]!r}")
        found[folded] = MirroredParameter(path, _PREFIX + token)
    return tuple(found.values())


def parameter_fields(parameters: tuple[MirroredParameter, ...], arguments: object) -> bytes:
    """Render the header fields for the arguments of a call; an absent or null argument gets none."""
    return b"".join(
        header_line(parameter.header, text)
        for parameter in parameters
        if (text := argument_text(parameter, arguments)) is not None
    )


def argument_text(parameter: MirroredParameter, arguments: object) -> str | None:
    """Return what the header field of an argument says, before it is encoded; ``None`` if there is none."""
    return _text_of(_value_at(arguments, parameter.path))


def _value_at(arguments: object, path: Path) -> object:
    value = arguments
    for step in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def _text_of(value: object) -> str | None:
    match value:
        case True:
            return "true"
        case False:
            return "false"
        case str():
            return value
        case int():
            # Larger ones are left out: no server compares them, and Python limits how many digits it converts.
            return str(value) if value.bit_length() <= 1024 else None
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return None


def _positions(root: object) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Walk a schema and every schema in it; the path is ``None`` unless it consists of properties alone."""
    pending: list[tuple[Path | None, object]] = [((), root)]
    while pending:
        path, schema = pending.pop()
        if not isinstance(schema, dict):
            continue
        yield path, schema
        properties = schema.get("properties")
        if isinstance(properties, dict):
            # Reversed, because the last one pushed is visited first.
            pending.extend(
                (None if path is None else (*path, name), property_) for name, property_ in reversed(properties.items())
            )
        pending.extend((None, schema[keyword]) for keyword in _SCHEMA if keyword in schema)
        for keyword in _SCHEMA_LISTS:
            if isinstance(schemas := schema.get(keyword), list):
                pending.extend((None, each) for each in schemas)
        for keyword in _SCHEMA_MAPS:
            if isinstance(named := schema.get(keyword), dict):
                pending.extend((None, each) for each in named.values())
