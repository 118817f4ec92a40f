"""Whatever a server sends as a form's schema: no exception, and nothing but defaults that its fields can hold."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mcp_manager import elicitation_defaults

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object"])
CHOICES = JSON | st.lists(st.text(max_size=2) | st.fixed_dictionaries({"const": JSON}), max_size=3)
FIELD = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | JSON,
        "default": JSON,
        "enum": CHOICES,
        "oneOf": CHOICES,
        "items": JSON | st.fixed_dictionaries({}, optional={"enum": CHOICES, "anyOf": CHOICES}),
    },
)
FIELDS = st.dictionaries(st.text(max_size=3), JSON | FIELD, max_size=4)
PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
}


@given(st.fixed_dictionaries({"properties": JSON | FIELDS}) | st.dictionaries(st.text(max_size=10), JSON))
def test_any_schema_gives_defaults_of_its_fields_types(schema: dict[str, Any]) -> None:
    for name, value in elicitation_defaults(schema).items():
        field = schema["properties"][name]
        assert value is field["default"]
        assert isinstance(value, PYTHON_TYPES[field["type"]])
        assert isinstance(value, bool) == (field["type"] == "boolean")
        if field["type"] == "string" and isinstance(field.get("enum"), list):
            assert value in field["enum"]


@given(st.dictionaries(st.text(max_size=3), st.text() | st.booleans() | st.integers() | st.floats(allow_nan=False)))
def test_every_well_formed_default_is_taken(defaults: dict[str, Any]) -> None:
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    fields = {name: {"type": names[type(value)], "default": value} for name, value in defaults.items()}
    assert elicitation_defaults({"type": "object", "properties": fields}) == defaults
