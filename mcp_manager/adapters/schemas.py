"""Rewriting JSON Schemas: what the formats of all vendors need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mcp_manager.adapters.well_formed import DEEPEST, Schema, target_of, well_formed

__all__ = ["DEEPEST", "Schema", "Steps", "as_schema", "merged", "object_schema", "resolved"]

_COMBINED: Final = ("allOf", "anyOf", "oneOf")
# What OpenAI and Anthropic refuse at the top of a schema, and what says nothing to a model.
_NOT_AT_TOP: Final = frozenset({*_COMBINED, "$ref", "enum", "const", "not"})
_MOST_STEPS: Final = 5_000


class Steps:
    """Bound the work on one schema: with references, a few bytes can describe more subschemas than fit in memory."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MOST_STEPS

    def take(self) -> bool:
        """Count one more subschema; tell whether it may still be looked at."""
        self._left -= 1
        return self._left >= 0


def object_schema(schema: Mapping[str, Any]) -> Schema:
    """Return a schema of arguments as the APIs take it: an object with ``properties``, and no choice at the top.

    Alternatives at the top become one object: it has the properties of all of them, and requires those that each of
    them requires. So it allows more than the original, which the server still checks.
    """
    whole = well_formed(schema, schema)
    found = _flat(whole, whole, DEEPEST, Steps())
    kept = {name: value for name, value in found.items() if name not in _NOT_AT_TOP}
    kept |= {"type": "object", "properties": found.get("properties", {})}
    # Again, since what a reference refers to may have been at the top.
    return well_formed(kept, kept)


def resolved(schema: Schema, root: Mapping[str, Any]) -> Schema | None:
    """Return a schema with its reference replaced by what it refers to; ``None`` if that is not in ``root``.

    What stands beside the reference overrides what it refers to.
    """
    seen: set[str] = set()
    while "$ref" in schema:
        reference = schema["$ref"]
        target = None if reference in seen else target_of(reference, root)
        if target is None:
            return None
        seen.add(reference)
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        schema = {**as_schema(target), **beside}
    return schema


def as_schema(value: object) -> Schema:
    """Return a subschema as an object: ``true`` allows everything, ``false`` nothing."""
    if isinstance(value, dict):
        return value
    return {"not": {}} if value is False else {}


def merged(parts: Iterable[Schema]) -> Schema:
    """Return one schema for what must match all of several ones."""
    whole: Schema = {}
    for part in parts:
        for name, value in part.items():
            if name not in whole:
                whole[name] = value
            elif name in ("properties", "$defs", "definitions") and isinstance(value, dict):
                whole[name] = {**whole[name], **value}
            elif name == "required" and isinstance(value, list):
                whole[name] = list(dict.fromkeys([*whole[name], *value]))
    return whole


def _flat(schema: Schema, root: Mapping[str, Any], depth: int, steps: Steps) -> Schema:
    """Return a schema without a reference or choice at its top."""
    if not steps.take():
        return {}
    found = resolved(schema, root) or {}
    if depth <= 0 or not any(each in found for each in _COMBINED):
        return found
    parts = [{name: value for name, value in found.items() if name not in _COMBINED}]
    parts += [_flat(as_schema(each), root, depth - 1, steps) for each in _entries(found.get("allOf"))]
    for kind in ("anyOf", "oneOf"):
        branches = [_flat(as_schema(each), root, depth - 1, steps) for each in _entries(found.get(kind))]
        if branches:
            parts.append(_any_of(branches))
    return merged(parts)


def _any_of(branches: list[Schema]) -> Schema:
    """Return one object that allows whatever one of these objects allows."""
    properties: dict[str, Any] = {}
    for branch in branches:
        own = branch.get("properties")
        for name, value in own.items() if isinstance(own, dict) else ():
            if name not in properties or properties[name] == value:
                properties[name] = value
            else:
                before = properties[name]
                is_choice = isinstance(before, dict) and set(before) == {"anyOf"}
                choices = before["anyOf"] if is_choice else [before]
                properties[name] = {"anyOf": choices if value in choices else [*choices, value]}
    required = [set(_entries(branch.get("required"))) for branch in branches]
    common = [each for each in _entries(branches[0].get("required")) if all(each in names for names in required)]
    return {"properties": properties, "required": common}


def _entries(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
