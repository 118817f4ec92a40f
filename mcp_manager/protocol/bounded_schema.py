"""Validation by untrusted JSON Schemas in bounded time: the cost is computed before the validation starts."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder

if TYPE_CHECKING:
    from jsonschema_rs import Validator

__all__ = ["BoundedSchema", "UnusableSchema", "bounded_schema", "has_few_parts"]

MAX_SCHEMA_BYTES: Final = 128 * 1024
_MAX_SCHEMA_NODES: Final = 20_000
_MAX_SCHEMA_DEPTH: Final = 64
# Compiling one of the worst patterns blocks the event loop for a millisecond.
_MAX_PATTERNS: Final = 40
_CHARACTERS_A_STEP: Final = 16
_PATTERN_BYTES: Final = 256 * 1024
_MAX_INSTANCE_DEPTH: Final = 128
# At worst 60 milliseconds, which block the event loop; a typical schema and result need some hundred steps.
_MAX_STEPS: Final = 2_500_000
# Keywords that cost more steps than others: arithmetic with big fractions, and comparing all items with each other.
_COSTLY: Final = {"multipleOf": 250, "uniqueItems": 20}
# With recursive references, the steps are counted one by one in Python.
_MAX_COUNTED_STEPS: Final = 50_000
# Locating a fault takes some hundred times longer than detecting one.
_MAX_STEPS_TO_THE_PLACE: Final = 20_000
_LONGEST_PLACE: Final = 200
_CACHED: Final = 256
_FEW_PARTS: Final = 2_000

_schema_decoder: JsonDecoder[Any] = JsonDecoder(Any)

_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_SAME_VALUE: Final = ("not", "if", "then", "else")
_SAME_VALUE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_SAME_VALUE_MAPS: Final = ("dependentSchemas", "dependencies")
_EACH_VALUE: Final = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_EACH_ITEM: Final = ("items", "additionalItems", "unevaluatedItems", "contains")
_ITEM_LISTS: Final = ("prefixItems", "items")
_DEFINITIONS: Final = ("$defs", "definitions")
# These visit their parts again, to find out which ones other keywords have evaluated.
_REPEATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_REPETITIONS: Final = 4


class UnusableSchema(Exception):
    """A schema must not be used, or not for this value; the message says why."""


class _Node:
    """A subschema: its cost, and the subschemas that apply to the same value or to parts of it."""

    __slots__ = ("by_name", "cost", "each_item", "each_value", "factor", "items", "references", "same_value")

    def __init__(self, schema: dict[str, Any]) -> None:
        self.cost = 1 + len(schema) + sum(len(each) for each in schema.values() if isinstance(each, list))
        self.cost += sum(cost for keyword, cost in _COSTLY.items() if keyword in schema)
        self.factor = _REPETITIONS if any(keyword in schema for keyword in _REPEATED) else 1
        self.references = [schema[keyword] for keyword in _REFERENCES if keyword in schema]
        self.same_value: list[_Node] = []
        self.by_name: dict[str, _Node] = {}
        self.each_value: list[_Node] = []
        self.items: list[_Node] = []
        self.each_item: list[_Node] = []

    def parts(self) -> Iterator[_Node]:
        yield from self.same_value
        yield from self.by_name.values()
        yield from self.each_value
        yield from self.items
        yield from self.each_item


class BoundedSchema:
    """A schema that validates in bounded time and fetches nothing.

    Parameters
    ----------
    text
        The schema as JSON, of 2020-12 unless ``$schema`` says otherwise (2025-11-25, basic, JSON Schema usage).

    Raises
    ------
    UnusableSchema
        It is malformed, too large, nested too deeply, or refers to another document.
    """

    def __init__(self, text: bytes) -> None:
        # A compiled engine of 2 MB that few processes need.
        from jsonschema_rs import ReferencingError, RegexOptions, ValidationError, validator_for  # noqa: PLC0415

        if len(text) > MAX_SCHEMA_BYTES:
            raise UnusableSchema(f"it has {len(text)} bytes; at most {MAX_SCHEMA_BYTES} are allowed")
        try:
            schema = _schema_decoder.decode(text)
        except (msgspec.DecodeError, RecursionError):
            raise UnusableSchema("it is not JSON, or nested too deeply") from None
        if not isinstance(schema, dict):
            raise UnusableSchema("it is not an object")
        self._has_patterns = _checked_patterns(schema) > 0
        self._root = _Graph(schema).root
        self._steps = _steps_of(self._root)
        if self._steps is not None and self._steps > _MAX_STEPS:
            raise UnusableSchema("its references multiply into too many checks")
        options = RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)
        self._failure = ValidationError
        try:
            self._validator: Validator = validator_for(
                schema, offline=True, pattern_options=options, validate_formats=False
            )
        except (ValidationError, ReferencingError, ValueError):
            # The engine's error quotes the schema, so it is dropped.
            raise UnusableSchema("it is not a valid schema") from None

    def fault_in(self, value: Any) -> str | None:
        """Return where a value violates the schema and which keyword, ``None`` if it is valid.

        Raises
        ------
        UnusableSchema
            The check would take too long.
        """
        size = _size_of(value, self._has_patterns)
        if self._steps is None:
            if self._has_patterns and size > _MAX_COUNTED_STEPS:
                raise UnusableSchema("the result is too large to be checked")
            steps = _counted_steps(self._root, value)
        else:
            steps = self._steps * size
            if steps > _MAX_STEPS:
                raise UnusableSchema("the result is too large to be checked")
        if self._validator.is_valid(value):
            return None
        # Numbers too large for a float are valid JSON, but the validator rejects infinite ones.
        value = _finite(value)
        if self._validator.is_valid(value):
            return None
        if steps > _MAX_STEPS_TO_THE_PLACE:
            return "somewhere"
        try:
            self._validator.validate(value)
        except self._failure as failure:
            place = "".join(f"/{step}" for step in failure.instance_path)
            keyword = next((step for step in reversed(failure.schema_path) if isinstance(step, str)), "schema")
            return f"at {_quoted(place) or 'the top'}: {_quoted(keyword)}"
        return None


@lru_cache(maxsize=_CACHED)
def bounded_schema(text: bytes) -> BoundedSchema | UnusableSchema:
    """Return a schema ready for use, or why it cannot be used; the 256 used last are cached."""
    try:
        return BoundedSchema(text)
    except UnusableSchema as reason:
        return UnusableSchema(*reason.args)


def _checked_patterns(schema: dict[str, Any]) -> int:
    """Return the number of patterns in a schema; raises :class:`UnusableSchema` if it or their number is too large."""
    nodes = patterns = 0
    pending: list[tuple[Any, int]] = [(schema, 1)]
    while pending:
        value, depth = pending.pop()
        nodes += 1
        if depth > _MAX_SCHEMA_DEPTH or nodes > _MAX_SCHEMA_NODES:
            raise UnusableSchema("it is nested too deeply, or too large")
        if isinstance(value, dict):
            named = value.get("patternProperties")
            patterns += ("pattern" in value) + (len(named) if isinstance(named, dict) else 0)
            pending.extend((each, depth + 1) for each in value.values())
        elif isinstance(value, list):
            pending.extend((each, depth + 1) for each in value)
    if patterns > _MAX_PATTERNS:
        raise UnusableSchema(f"it has {patterns} patterns; at most {_MAX_PATTERNS} are allowed")
    return patterns


class _Graph:
    """The subschemas of a schema, and how they refer to each other."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._document = root
        self._nodes: dict[int, _Node] = {}
        self._anchors: dict[str, dict[str, Any]] = {}
        self._unlinked: list[_Node] = []
        self.root = self._node(root)
        while self._unlinked:
            node = self._unlinked.pop()
            for reference in node.references:
                node.same_value.append(self._node(self._target(reference)))

    def _node(self, schema: Any) -> _Node:
        if not isinstance(schema, dict):
            return _LEAF
        known = self._nodes.get(id(schema))
        if known is not None:
            return known
        if schema is not self._document and isinstance(schema.get("$id", schema.get("id")), str):
            raise UnusableSchema("a part of it has its own $id")
        node = self._nodes[id(schema)] = _Node(schema)
        self._unlinked.append(node)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(keyword), str):
                self._anchors[schema[keyword]] = schema
        node.same_value += [self._node(schema[keyword]) for keyword in _SAME_VALUE if keyword in schema]
        node.same_value += [self._node(each) for keyword in _SAME_VALUE_LISTS for each in _list(schema, keyword)]
        node.same_value += [self._node(each) for keyword in _SAME_VALUE_MAPS for each in _map(schema, keyword).values()]
        node.by_name = {name: self._node(each) for name, each in _map(schema, "properties").items()}
        node.each_value = [self._node(schema[keyword]) for keyword in _EACH_VALUE if keyword in schema]
        node.each_value += [self._node(each) for each in _map(schema, "patternProperties").values()]
        node.each_item = [self._node(schema[keyword]) for keyword in _EACH_ITEM if keyword in schema]
        node.items = [self._node(each) for keyword in _ITEM_LISTS for each in _list(schema, keyword)]
        for keyword in _DEFINITIONS:
            for each in _map(schema, keyword).values():
                self._node(each)
        return node

    def _target(self, reference: Any) -> Any:
        """Return the part of this document that a reference names."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise UnusableSchema("it refers to another document, which is not fetched")
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise UnusableSchema("it refers to a part that it does not have")
            return self._anchors[fragment]
        target: Any = self._document
        for step in fragment.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and step in target:
                target = target[step]
            elif isinstance(target, list) and step.isascii() and step.isdigit() and int(step) < len(target):
                target = target[int(step)]
            else:
                raise UnusableSchema("it refers to a part that it does not have")
        return target


_LEAF: Final = _Node({})


def _finite(value: Any) -> Any:
    """Return a copy of a value with infinite floats replaced by the largest ones."""
    if isinstance(value, float) and math.isinf(value):
        return math.copysign(sys.float_info.max, value)
    if isinstance(value, list):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return value


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []


def _map(schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    value = schema.get(keyword)
    return value if isinstance(value, dict) else {}


def _steps_of(root: _Node) -> int | None:
    """Return how many steps the check of one value takes at most, ``None`` if the references are recursive."""
    graph: dict[_Node, list[_Node]] = {}
    pending = [root]
    while pending:
        node = pending.pop()
        if node not in graph:
            graph[node] = list(node.parts())
            pending.extend(graph[node])
    steps: dict[_Node, int] = {}
    try:
        for node in TopologicalSorter(graph).static_order():
            inner = sum(steps[part] for part in graph[node])
            # Capped, because the numbers could grow exponentially.
            steps[node] = min(node.cost + node.factor * inner, _MAX_STEPS + 1)
    except CycleError:
        return None
    return steps[root]


def _counted_steps(root: _Node, value: Any) -> int:
    """Count the steps of a check by walking the value; raises :class:`UnusableSchema` if there are too many."""
    steps = 0
    pending: list[tuple[_Node, Any, int]] = [(root, value, 1)]
    while pending:
        node, part, factor = pending.pop()
        steps += node.cost * factor
        if steps > _MAX_COUNTED_STEPS:
            raise UnusableSchema("its references go round too often for this result")
        factor *= node.factor
        pending.extend((each, part, factor) for each in node.same_value)
        # Every pending part costs a step: stop before listing too many of them.
        parts = len(part) if isinstance(part, dict | list) else 0
        fan = len(node.each_value) if isinstance(part, dict) else len(node.each_item)
        if steps + len(pending) + parts * fan > _MAX_COUNTED_STEPS:
            raise UnusableSchema("its references go round too often for this result")
        if isinstance(part, dict):
            pending.extend((node.by_name[name], part[name], factor) for name in node.by_name.keys() & part.keys())
            pending.extend((each, inner, factor) for each in node.each_value for inner in part.values())
        elif isinstance(part, list):
            pending.extend((each, inner, factor) for each, inner in zip(node.items, part, strict=False))
            pending.extend((each, inner, factor) for each in node.each_item for inner in part)
    return steps


def has_few_parts(value: Any) -> bool:
    """Tell whether a value is small enough to be walked in a millisecond."""
    size = 0
    pending = [value]
    while pending:
        part = pending.pop()
        size += 1
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
        if size + len(pending) > _FEW_PARTS:
            return False
    return True


def _size_of(value: Any, has_patterns: bool) -> int:
    """Return how many parts a value has; with patterns, strings count by their length."""
    size = 0
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        part, depth = pending.pop()
        size += 1
        if depth > _MAX_INSTANCE_DEPTH or size > _MAX_STEPS:
            raise UnusableSchema("the result is nested too deeply, or too large, to be checked")
        if isinstance(part, dict):
            pending.extend((each, depth + 1) for each in part.values())
            if has_patterns:
                size += sum(len(name) for name in part) // _CHARACTERS_A_STEP
        elif isinstance(part, list):
            pending.extend((each, depth + 1) for each in part)
        elif has_patterns and isinstance(part, str):
            size += len(part) // _CHARACTERS_A_STEP
    return size


def _quoted(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text[:_LONGEST_PLACE])
    return printable + ("…" if len(text) > _LONGEST_PLACE else "")
