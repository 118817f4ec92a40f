"""Schemas of strangers: those that are fine are checked, hostile ones are refused or end soon."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from typing import Any

import pytest

from mcp_manager.protocol.bounded_schema import BoundedSchema, UnusableSchema, bounded_schema

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {"type": "object", "properties": {"inner": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    },
}


def fault(schema: Any, value: Any) -> str | None:
    return BoundedSchema(json.dumps(schema).encode()).fault_in(value)


def nested(depth: int, wrap: Any, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = wrap(leaf)
    return leaf


def chain(keyword: str, length: int = 40) -> dict[str, Any]:
    steps = {f"n{i}": {keyword: [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(length)}
    return {"$ref": "#/$defs/n0", "$defs": {**steps, f"n{length}": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "good", "bad", "place"),
    [
        ({"type": "object", "required": ["a"]}, {"a": 1}, {}, "at the top: required"),
        ({"properties": {"a": {"items": {"type": "integer"}}}}, {"a": [1]}, {"a": [1, "x"]}, "at /a/1: type"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"const": 1}]}, [1], [2], "at /0: const"),
        ({"prefixItems": [{"const": 1}]}, [1], [2], "at /0: const"),
        ({"type": ["null", "object"]}, None, 3, "at the top: type"),
        ({"pattern": "^a+$"}, "aa", "ab", "at the top: pattern"),
        ({"$ref": "#part", "$defs": {"x": {"$anchor": "part", "type": "string"}}}, "s", 1, "at the top: type"),
        (TREE, {"inner": [{"inner": []}]}, {"inner": [{"inner": 3}]}, "at /inner/0/inner: type"),
    ],
)
def test_a_value_is_told_from_one_that_breaks_the_schema(schema: Any, good: Any, bad: Any, place: str) -> None:
    assert fault(schema, good) is None
    assert fault(schema, bad) == place


def test_the_place_quotes_no_value_and_is_bounded() -> None:
    found = fault({"additionalProperties": {"type": "integer"}}, {"k" * 5000: "hunter2"})
    assert found is not None
    assert "hunter2" not in found
    assert len(found) < 300


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "another document"),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "another document"),
        ({"$defs": {"a": {"$id": "http://127.0.0.1:9/a", "$ref": "b"}}}, r"its own \$id"),
        ({"$schema": "http://127.0.0.1:9/dialect", "type": "object"}, "not a valid schema"),
        ({"type": "objekt"}, "not a valid schema"),
        ({"$ref": "#/$defs/none"}, "does not have"),
        ({"$ref": "#none"}, "does not have"),
        ({"enum": ["x" * 1000] * 200}, "bytes"),
        (nested(70, lambda inner: {"not": inner}, {}), "too deep"),
        ({"allOf": [{"pattern": str(i)} for i in range(300)]}, "patterns"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "not a valid schema"),
        ({"pattern": "(a)\\1"}, "not a valid schema"),
        (chain("allOf"), "multiply"),
        (chain("anyOf"), "multiply"),
        (chain("oneOf"), "multiply"),
        (nested(30, lambda inner: {"allOf": [inner], "unevaluatedProperties": False}, {"type": "object"}), "multiply"),
        ([], "not an object"),
    ],
)
def test_what_cannot_be_checked_soon_or_alone_is_refused(schema: Any, reason: str) -> None:
    with pytest.raises(UnusableSchema, match=reason) as caught:
        BoundedSchema(json.dumps(schema).encode())
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            {"properties": {"a": {"$ref": "#"}}, "allOf": [{"properties": {"a": {"$ref": "#"}}}]},
            nested(60, lambda inner: {"a": inner}, 1),
        ),
        ({"$ref": "#"}, {}),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, {}),
        ({"items": {"items": {"type": "integer"}}}, nested(200, lambda inner: [inner], 1)),
        ({"items": {"enum": list(range(2000))}}, [2001] * 2_000),
        ({"items": {"multipleOf": 0.0001}}, [1e300] * 20_000),
        ({"uniqueItems": True}, [{"a": i} for i in range(100_000)]),
    ],
)
def test_a_value_that_would_take_too_long_is_not_checked(schema: Any, value: Any) -> None:
    with pytest.raises(UnusableSchema):
        fault(schema, value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (chain("anyOf", 13), "s"),
        (chain("oneOf", 13), 1),
        (
            nested(8, lambda inner: {"anyOf": [inner], "unevaluatedProperties": False}, {"properties": {"a": True}}),
            {"b": 1},
        ),
        ({"pattern": "^(a+)+$"}, "a" * 200_000 + "b"),
        ({"pattern": "(a|b|ab)*c{100}x"}, "ab" * 100_000),
        ({"uniqueItems": True}, [{"a": i} for i in range(20_000)]),
        ({"properties": {"a": {"$ref": "#"}}}, nested(120, lambda inner: {"a": inner}, 1)),
    ],
)
def test_the_worst_that_is_checked_ends(schema: Any, value: Any) -> None:
    # In a process of its own: the time limit of a test cannot stop compiled code.
    code = (
        "import json, sys\n"
        "from mcp_manager.protocol.bounded_schema import BoundedSchema\n"
        "schema, value = json.load(sys.stdin)\n"
        "BoundedSchema(json.dumps(schema).encode()).fault_in(value)\n"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", code], input=json.dumps([schema, value]).encode(), timeout=60, check=True
    )


def test_schemas_are_compiled_once() -> None:
    text = b'{"type":"integer"}'
    assert bounded_schema(text) is bounded_schema(bytes(bytearray(text)))
    assert isinstance(bounded_schema(b"["), UnusableSchema)


def test_patterns_are_not_run_over_texts_without_end() -> None:
    many = bounded_schema(json.dumps({"allOf": [{"pattern": f"^[ab]*({n})?$"} for n in range(38)]}).encode())
    one = bounded_schema(json.dumps({"pattern": "^[ab]*$"}).encode())
    none = bounded_schema(json.dumps({"allOf": [{"minLength": n} for n in range(190)]}).encode())
    assert isinstance(many, BoundedSchema) and isinstance(one, BoundedSchema) and isinstance(none, BoundedSchema)
    assert many.fault_in("ab" * 1_000) is None
    with pytest.raises(UnusableSchema, match="too large"):
        many.fault_in("ab" * 1_000_000)
    assert one.fault_in("ab" * 1_000_000) is None
    assert none.fault_in("ab" * 1_000_000) is None


def test_references_that_fan_out_are_not_followed_in_memory() -> None:
    members = {f"^p{n}": {"$ref": "#"} for n in range(38)}
    schema = bounded_schema(json.dumps({"patternProperties": members}).encode())
    assert isinstance(schema, BoundedSchema)
    tracemalloc.start()
    try:
        with pytest.raises(UnusableSchema):
            schema.fault_in(dict.fromkeys(map(str, range(20_000)), 1))
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_number_that_no_float_can_hold_is_a_number() -> None:
    schema = BoundedSchema(b'{"properties":{"n":{"items":{"type":"number","minimum":0}}}}')
    assert schema.fault_in({"n": [1, float("inf")]}) is None
    assert schema.fault_in({"n": [float("-inf")]}) == "at /n/0: minimum"
    assert schema.fault_in({"n": ["x", float("inf")]}) == "at /n/0: type"
