"""Whatever a server sends as a schema, each vendor gets one that its API takes."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.schema_rules import check_gemini_json_schema, check_gemini_openapi, check_openai_parameters

from mcp_manager import Tool
from mcp_manager.adapters.definitions import ToolDefinition, definition_of
from mcp_manager.adapters.gemini_schema import json_schema_subset, openapi_schema
from mcp_manager.adapters.openai_strict import strict_parameters, without_nulls
from mcp_manager.verbs.fleet_tools import FleetTool

NAMES = st.sampled_from(["a", "b", "A", "B"])
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", "y", ""])
KINDS = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"])
REFERENCES = st.sampled_from(["#", "#/$defs/A", "#/$defs/B", "#/definitions/A", "#/properties/a", "#/x", "http://x"])


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas whose parts are ``inner``."""
    several = st.lists(inner, min_size=1, max_size=3)
    by_name = st.dictionaries(NAMES, inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": KINDS | st.lists(KINDS, min_size=1, max_size=3, unique=True),
            "properties": by_name,
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": inner,
            "items": inner,
            "anyOf": several,
            "oneOf": several,
            "allOf": several,
            "not": inner,
            "if": inner,
            "enum": st.lists(SCALARS, min_size=1, max_size=3, unique_by=repr),
            "const": SCALARS,
            "format": st.sampled_from(["date", "int32", "odd"]),
            "minLength": st.integers(0, 3),
            "description": st.sampled_from(["Some text.", ""]),
            "$ref": REFERENCES,
            "$defs": by_name,
            "definitions": by_name,
        },
    )


SCHEMAS = st.recursive(st.booleans() | st.just({}) | st.fixed_dictionaries({"type": KINDS}), keywords, max_leaves=12)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
# What a careless or hostile server sends: keywords with values of the wrong kind.
MALFORMED = st.dictionaries(
    st.sampled_from("type properties required items anyOf oneOf allOf enum format description $ref $defs".split()), JSON
)


def definition(schema: object) -> ToolDefinition:
    raw = msgspec.Raw(msgspec.json.encode(schema))
    return definition_of(FleetTool(name="s__t", server_id="s", tool=Tool(name="t", input_schema_json=raw)))


@given(SCHEMAS)
def test_every_vendor_gets_a_schema_that_its_api_takes(schema: object) -> None:
    check_all(schema)


def check_all(schema: object) -> ToolDefinition:
    """Check what each vendor gets of a schema."""
    found = definition(schema)
    check_openai_parameters(found.parameters, strict=False)
    strict = strict_parameters(found.parameters)
    if strict is not None:
        check_openai_parameters(strict, strict=True)
    check_gemini_json_schema(json_schema_subset(found.parameters))
    check_gemini_openapi(openapi_schema(found.parameters))
    return found


@given(SCHEMAS | MALFORMED, JSON)
def test_no_schema_and_no_arguments_raise(schema: object, arguments: object) -> None:
    found = check_all(schema)
    without_nulls(msgspec.json.encode(arguments).decode(), found)


@given(SCHEMAS, st.dictionaries(NAMES, JSON, max_size=3))
def test_what_the_server_takes_is_what_the_definition_takes(schema: object, arguments: dict[str, Any]) -> None:
    if isinstance(schema, dict) and "http://x" not in str(schema):
        try:
            is_taken = jsonschema_rs.is_valid(schema, arguments)
        except ValueError:
            # A reference that leads nowhere.
            return
        found = definition(schema).parameters
        if is_taken and not {"$ref", "not", "if"} & _keys_of(schema):
            assert jsonschema_rs.is_valid(found, arguments)


def _keys_of(value: object) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_keys_of, value)) if value else set()
    if isinstance(value, dict):
        return set(value).union(*map(_keys_of, value.values()))
    return set()
