"""The comparison of JSON Schemas by what they accept, without annotations and without the order of unordered parts."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["first_difference", "what_it_accepts"]

# JSON Schema 2020-12, validation, section 9, and core, sections 8.1.1 and 8.3; "example" is OpenAPI's.
_ANNOTATIONS: Final = frozenset(
    {
        "title",
        "description",
        "default",
        "deprecated",
        "readOnly",
        "writeOnly",
        "example",
        "examples",
        "$comment",
        "$schema",
    }
)
_SCHEMAS: Final = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_NAMED_SCHEMAS: Final = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_ALTERNATIVES: Final = frozenset({"allOf", "anyOf", "oneOf"})
_SETS: Final = frozenset({"enum", "required", "type"})
# Deeper parts are compared literally.
_MAX_DEPTH: Final = 64


def what_it_accepts(schema: Any, depth: int = _MAX_DEPTH) -> Any:
    """Return a canonical form of a schema: without annotations, and with unordered parts sorted.

    Parameters
    ----------
    schema
        The decoded schema.
    depth
        How many levels are processed; deeper ones stay as they are.
    """
    if not isinstance(schema, dict) or depth == 0:
        return schema
    kept: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword in _NAMED_SCHEMAS and isinstance(value, dict):
            value = {name: what_it_accepts(each, depth - 1) for name, each in value.items()}
        elif keyword in _SCHEMAS and isinstance(value, dict):
            value = what_it_accepts(value, depth - 1)
        elif isinstance(value, list) and keyword in _ALTERNATIVES | {"items", "prefixItems"}:
            value = [what_it_accepts(each, depth - 1) for each in value]
            if keyword in _ALTERNATIVES:
                value.sort(key=_written)
        elif isinstance(value, list) and keyword in _SETS:
            value = sorted(value, key=_written)
            if keyword == "type" and len(value) == 1:
                value = value[0]
        if keyword == "required" and value == []:
            continue
        kept[keyword] = value
    return kept


def first_difference(old: Any, new: Any, path: str = "", depth: int = _MAX_DEPTH) -> str:
    """Return the path of the first difference between two documents, such as ``properties.city.type``, or ``""``."""
    if depth > 0 and isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            place = f"{path}.{name}" if path else name
            if name not in old or name not in new:
                return place
            inner = first_difference(old[name], new[name], place, depth - 1)
            if inner:
                return inner
        return ""
    if depth > 0 and isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            inner = first_difference(before, after, f"{path}[{index}]", depth - 1)
            if inner:
                return inner
        return ""
    # In JSON, true is not 1.
    return "" if _written(old) == _written(new) else path or "the whole schema"


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
