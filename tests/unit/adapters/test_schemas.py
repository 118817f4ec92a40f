"""Schemas as the vendors take them: alternatives at the top, references, recursion, strictness, and the way back."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec
import pytest
from support.schema_rules import check_gemini_json_schema, check_gemini_openapi, check_openai_parameters

from mcp_manager import Tool
from mcp_manager.adapters.definitions import ToolDefinition, definition_of
from mcp_manager.adapters.gemini_schema import json_schema_subset, openapi_schema
from mcp_manager.adapters.openai_strict import strict_parameters, without_nulls
from mcp_manager.adapters.schemas import object_schema
from mcp_manager.verbs.fleet_tools import FleetTool

TEXT = {"type": "string"}
TREE = {
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/Node"}},
    "required": ["root"],
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"name": TEXT, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
            "required": ["name"],
        }
    },
}


def tool_with(schema: bytes, **fields: Any) -> FleetTool:
    tool = Tool(name="t", input_schema_json=msgspec.Raw(schema), **fields)
    return FleetTool(name="s__t", server_id="s", tool=tool)


@pytest.mark.parametrize("schema", [b"{}", b"true", b"[]", b"null", b'{"type": "object", "properties": null}'])
def test_a_tool_without_a_schema_takes_any_object(schema: bytes) -> None:
    found = definition_of(tool_with(schema, title="A title"))
    assert found == ToolDefinition(name="s__t", description="A title", parameters={"type": "object", "properties": {}})


@pytest.mark.parametrize("kind", ["allOf", "anyOf", "oneOf"])
def test_choices_that_double_with_every_level_end(kind: str) -> None:
    schema: dict[str, Any] = {kind: [{"$ref": "#/$defs/0"}], "properties": {"top": {}}, "$defs": {}}
    for level in range(40):
        schema["$defs"][str(level)] = {kind: [{"$ref": f"#/$defs/{level + 1}"}] * 2, "properties": {f"p{level}": {}}}
    found = object_schema(schema)
    assert found["type"] == "object" and {"top", "p0", "p9"} <= found["properties"].keys()


def test_a_null_is_kept_where_choices_do_not_end() -> None:
    definitions = {str(level): {"anyOf": [{"$ref": f"#/$defs/{level + 1}"}] * 2} for level in range(40)}
    parameters = {"type": "object", "properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": {**definitions, "40": TEXT}}
    definition = ToolDefinition(name="t", description="", parameters=parameters)
    assert without_nulls({"a": None}, definition) == {"a": None}


@pytest.mark.parametrize("levels", [5_000, 100_000])
def test_arguments_that_are_nested_too_deeply_stay_as_they_are(levels: int) -> None:
    definition = ToolDefinition(
        name="t", description="", parameters={"type": "object", "properties": {"a": {"$ref": "#"}}}
    )
    deep = '{"a":' * levels + "null" + "}" * levels
    assert without_nulls(deep, definition) == deep


def test_an_ordinary_schema_stays_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": TEXT}, "required": ["a"], "additionalProperties": False}
    assert object_schema({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"}) == schema
    assert object_schema(TREE) == TREE


def test_alternatives_at_the_top_become_one_object() -> None:
    by_id = {"properties": {"id": {"type": "integer"}, "note": TEXT}, "required": ["id", "note"]}
    by_name = {"properties": {"name": TEXT, "id": TEXT, "note": TEXT}, "required": ["name", "note"]}
    schema = {
        "type": "object",
        "properties": {"verbose": {"type": "boolean"}},
        "required": ["verbose"],
        "anyOf": [by_id, {"$ref": "#/$defs/ByName"}],
        "allOf": [{"properties": {"page": TEXT}, "required": ["page"]}],
        "$defs": {"ByName": by_name},
    }
    found = object_schema(schema)
    check_openai_parameters(found, strict=False)
    assert found["required"] == ["verbose", "page", "note"]
    assert found["properties"] == {
        "verbose": {"type": "boolean"},
        "page": TEXT,
        "id": {"anyOf": [{"type": "integer"}, TEXT]},
        "note": TEXT,
        "name": TEXT,
    }
    assert object_schema({"$ref": "#/definitions/A", "definitions": {"A": by_id}})["required"] == ["id", "note"]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": "https://example.com/schema.json"},
        {"anyOf": [{"$ref": "#"}]},
        {"allOf": "wrong", "properties": [], "required": "wrong"},
    ],
)
def test_references_that_lead_nowhere_allow_anything(schema: dict[str, Any]) -> None:
    found = object_schema(schema)
    check_openai_parameters({name: each for name, each in found.items() if name != "$defs"}, strict=False)
    assert found["properties"] == {}


def test_the_strict_form_requires_everything_and_makes_it_nullable() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 1, "format": "city"},
            "days": {"type": "integer", "default": 3},
            "unit": {"enum": ["C", "F"]},
            "place": {"type": "object", "properties": {"zip": TEXT}},
            "tags": {"type": "array", "items": TEXT, "uniqueItems": True},
            "when": {"oneOf": [{"type": "string", "format": "date"}, {"type": "integer"}]},
        },
        "required": ["city"],
    }
    strict = strict_parameters(schema)
    assert strict is not None
    check_openai_parameters(strict, strict=True)
    assert strict["properties"]["city"] == TEXT
    assert strict["properties"]["days"]["type"] == ["integer", "null"]
    assert strict["properties"]["unit"] == {"anyOf": [{"enum": ["C", "F"]}, {"type": "null"}]}
    for arguments in ({"city": "a", "days": None}, {"city": "a", "unit": "C", "place": {"zip": None}}):
        whole = {**dict.fromkeys(schema["properties"]), **arguments}  # type: ignore[call-overload]
        assert jsonschema_rs.is_valid(strict, whole)


def test_the_strict_form_keeps_recursion() -> None:
    strict = strict_parameters(TREE)
    assert strict is not None
    check_openai_parameters(strict, strict=True)
    tree = {"name": "a", "children": [{"name": "b", "children": None}]}
    assert jsonschema_rs.is_valid(strict, {"root": tree})
    assert not jsonschema_rs.is_valid(strict, {"root": {"name": "a"}})


@pytest.mark.parametrize(
    "value",
    [
        {},
        True,
        {"type": "object"},
        {"type": "object", "additionalProperties": TEXT},
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": True},
        {"type": "object", "patternProperties": {"a": TEXT}, "properties": {"b": TEXT}},
        {"type": "array"},
        {"type": ["object", "string"], "properties": {"a": TEXT}},
        {"if": TEXT, "then": TEXT},
        {"$ref": "https://example.com/schema.json"},
        {"enum": list(range(1_001))},
    ],
)
def test_what_has_no_strict_form_is_offered_without(value: Any) -> None:
    assert strict_parameters({"type": "object", "properties": {"a": value}, "required": ["a"]}) is None


def test_a_tool_without_parameters_has_a_strict_form() -> None:
    strict = strict_parameters({"type": "object", "properties": {}})
    assert strict == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def test_nulls_for_absent_arguments_do_not_reach_the_server() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": TEXT,
            "must": TEXT,
            "free": {},
            "may": {"type": ["string", "null"]},
            "one": {"anyOf": [TEXT, {"type": "null"}]},
            "list": {"type": "array", "items": {"$ref": "#/$defs/P"}},
        },
        "required": ["must"],
        "$defs": {"P": {"type": "object", "properties": {"q": {"type": "integer"}}}},
    }
    definition = ToolDefinition(name="t", description="", parameters=schema)
    nulls = {"a": None, "must": None, "free": None, "may": None, "one": None, "list": [{"q": None}], "other": None}
    left = {"must": None, "free": None, "may": None, "one": None, "list": [{}], "other": None}
    assert without_nulls(nulls, definition) == left
    assert without_nulls(msgspec.json.encode(nulls).decode(), definition) == left
    for kept in ('{"a": ', '["null"]', '{"a": "b"}', "", None):
        assert without_nulls(kept, definition) == kept
    assert without_nulls(nulls, None) == nulls


def test_gemini_gets_what_it_knows_of_json_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "pattern": "x", "default": "y", "const": "z"},
            "b": {"oneOf": [TEXT, {"type": "integer", "exclusiveMinimum": 3}]},
            "c": {"$ref": "#/definitions/C"},
            "d": {"allOf": [{"type": "object"}, {"properties": {"e": TEXT}}]},
            "never": False,
        },
        "definitions": {"C": {"type": "array", "items": {"$ref": "#/definitions/C"}, "uniqueItems": True}},
        "additionalProperties": False,
    }
    found = json_schema_subset(schema)
    check_gemini_json_schema(found)
    assert found["properties"] == {
        "a": {"type": "string", "enum": ["z"]},
        "b": {"anyOf": [TEXT, {"type": "integer"}]},
        "c": {"$ref": "#/$defs/C"},
        "d": {"type": "object", "properties": {"e": TEXT}},
    }
    assert found["$defs"] == {"C": {"type": "array", "items": {"$ref": "#/$defs/C"}}}


def test_gemini_gets_the_form_of_openapi() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "format": "uuid"},
            "b": {"enum": [1, 2], "description": "A number."},
            "c": {"type": "array"},
            "d": {"anyOf": [{"type": "integer", "format": "int64"}, {"type": "null"}], "title": "D"},
            "e": {},
            "f": {"const": "x"},
            "g": {"type": ["string", "integer"]},
            "never": False,
        },
        "required": ["a", "never"],
        "additionalProperties": False,
    }
    found = openapi_schema(schema)
    check_gemini_openapi(found)
    anything = [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]
    assert found == {
        "type": "object",
        "properties": {
            "a": {"type": "string", "nullable": True},
            "b": {"type": "integer", "description": "A number. One of: 1, 2."},
            "c": {"type": "array", "items": {"anyOf": anything}},
            "d": {"type": "integer", "format": "int64", "nullable": True, "title": "D"},
            "e": {"anyOf": anything},
            "f": {"type": "string", "enum": ["x"]},
            "g": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        },
        "required": ["a"],
    }


def test_recursion_ends_where_references_are_written_out() -> None:
    found = openapi_schema(TREE)
    check_gemini_openapi(found)
    node = found["properties"]["root"]
    for _ in range(1):
        node = node["properties"]["children"]["items"]
        assert node["required"] == ["name"]
    assert node["properties"]["children"]["items"] == {"type": "object"}
    # Each level refers to the next one twice: written out, it would have a billion subschemas.
    levels = {f"L{n}": {"type": "array", "items": {"anyOf": [{"$ref": f"#/$defs/L{n + 1}"}] * 2}} for n in range(30)}
    wide = {"type": "object", "properties": {"a": {"$ref": "#/$defs/L0"}}, "$defs": {**levels, "L30": TEXT}}
    check_gemini_openapi(openapi_schema(wide))
    assert len(msgspec.json.encode(openapi_schema(wide))) < 1_000_000


TWICE = {"$ref": "#"}
ENDLESS: dict[str, dict[str, Any]] = {
    "choices of itself": {"anyOf": [TWICE, TWICE, TWICE]},
    "all of itself": {"allOf": [TWICE, TWICE], "properties": {"a": {"allOf": [TWICE]}, "b": {"allOf": [TWICE]}}},
    "choices within choices": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/0"}},
        "anyOf": [{"$ref": "#/$defs/0"}],
        "$defs": {str(n): {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}] * 3} for n in range(60)} | {"60": TEXT},
    },
    "objects within objects": {
        "type": "object",
        "properties": {name: {"allOf": [{"$ref": "#/$defs/X"}]} for name in "abcdefghij"},
        "$defs": {"X": {"type": "object", "properties": {n: {"allOf": [{"$ref": "#/$defs/X"}]} for n in "abcdefghij"}}},
    },
    "an optional choice of itself": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/X"}},
        "$defs": {"X": {"anyOf": [{"$ref": "#/$defs/X"}, {"$ref": "#/$defs/X"}]}},
    },
}


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS.keys())
def test_schemas_without_an_end_are_written_in_few_steps(schema: dict[str, Any]) -> None:
    # Without a bound, each of them takes longer than the time limit of a test.
    parameters = object_schema(schema)
    assert parameters["type"] == "object"
    assert json_schema_subset(parameters)["type"] == "object"
    assert openapi_schema(parameters)["type"] == "object"
    definition = ToolDefinition(name="t", description="", parameters=parameters)
    assert without_nulls({"a": None, "c": {"a": None}}, definition) is not None
    strict = strict_parameters(parameters)
    if strict is not None:
        check_openai_parameters(strict, strict=True)
