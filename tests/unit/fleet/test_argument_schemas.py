"""Whether two releases of a tool take the same arguments: what their words are means nothing, where they differ is said."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from mcp_manager.fleet.argument_schemas import first_difference, what_it_accepts
from mcp_manager.fleet.verification import tool_arguments, what_is_amiss

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where", "examples": ["Bonn"]},
        "unit": {"enum": ["C", "F"], "default": "C"},
        "description": {"type": ["string", "null"]},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "legs": {"type": "array", "items": {"$ref": "#/$defs/leg"}},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
    "$defs": {"leg": {"type": "object", "properties": {"title": {"type": "string"}}}},
}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """Return the schema with one place set to something else, or left out."""
    schema: Any = copy.deepcopy(SCHEMA)
    target = schema
    for step in path[:-1]:
        target = target[step]
    if to is None:
        del target[path[-1]]
    else:
        target[path[-1]] = to
    return dict(schema)


def verdict(new: Any) -> str:
    old = tool_arguments({"forecast": SCHEMA})
    return what_is_amiss(old, tool_arguments({"forecast": new}), "same")


@pytest.mark.parametrize(
    "same",
    [
        changed("title", to="Weather"),
        changed("$schema", to="https://json-schema.org/draft/2020-12/schema"),
        changed("properties", "city", "description", to="In which town the weather is asked for"),
        changed("properties", "city", "examples", to=None),
        changed("properties", "unit", "default", to="F"),
        changed("properties", "unit", "enum", to=["F", "C"]),
        changed("properties", "description", "type", to=["null", "string"]),
        changed(
            "properties", "when", "anyOf", to=[{"type": ["null"]}, {"format": "date", "type": "string", "title": "D"}]
        ),
        changed("properties", "city", "deprecated", to=True),
        changed("properties", "city", "readOnly", to=True),
        changed("$defs", "leg", "required", to=[]),
        changed("required", to=["unit", "city"]),
    ],
)
def test_words_and_the_order_of_sets_mean_nothing(same: dict[str, Any]) -> None:
    assert verdict(same) == ""


@pytest.mark.parametrize(
    ("other", "place"),
    [
        (changed("properties", "city", "type", to="integer"), "properties.city.type"),
        (changed("properties", "city", to=None), "properties.city"),
        (changed("properties", "title", to={"type": "string"}), "properties.title"),
        (changed("properties", "description", to=None), "properties.description"),
        (changed("properties", "unit", "enum", to=["C", "K"]), "properties.unit.enum[1]"),
        (changed("properties", "unit", "enum", to=["C"]), "properties.unit.enum"),
        (changed("properties", "unit", "const", to=1), "properties.unit.const"),
        (changed("required", to=["city"]), "required"),
        (changed("additionalProperties", to=True), "additionalProperties"),
        (changed("additionalProperties", to=0), "additionalProperties"),
        (changed("$defs", "leg", "properties", "title", to={"type": "number"}), "$defs.leg.properties.title.type"),
        (changed("properties", "legs", "items", to=[{"$ref": "#/$defs/leg"}]), "properties.legs.items"),
        ([], "the whole schema"),
        (True, "the whole schema"),
    ],
)
def test_the_place_where_arguments_differ_is_named(other: Any, place: str) -> None:
    assert verdict(other) == f"changes the arguments of forecast (at {place})"


def test_values_are_compared_as_they_are() -> None:
    """What looks like a keyword inside a value is none."""
    old, new = ({"const": {"description": text}, "enum": [{"title": text}]} for text in "ab")
    assert first_difference(what_it_accepts(old), what_it_accepts(new)) == "const.description"


def test_schemas_of_any_depth_are_compared() -> None:
    old: Any = {"type": "string"}
    new: Any = {"type": "integer"}
    for _ in range(100):
        old, new = {"properties": {"a": old}}, {"properties": {"a": new}}
    assert first_difference(what_it_accepts(old), what_it_accepts(new)).startswith("properties.a.properties.a")
    assert first_difference(what_it_accepts(old), what_it_accepts(json.loads(json.dumps(old)))) == ""


def test_names_of_a_server_are_shown_without_control_characters() -> None:
    old = tool_arguments({f"\x1b[31m{number}": {} for number in range(9)})
    assert what_is_amiss(old, {}, "superset").startswith("lacks  [31m0,  [31m1")
    assert what_is_amiss(old, {}, "superset").endswith("and 4 more")


def test_any_order_of_members_is_the_same() -> None:
    dice = random.Random(4)

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            members = [(name, shuffled(member)) for name, member in value.items()]
            dice.shuffle(members)
            return dict(members)
        return value

    for _ in range(20):
        assert verdict(shuffled(SCHEMA)) == ""
