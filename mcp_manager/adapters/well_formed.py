"""Making schemas well-formed: servers are free to send anything, but an API refuses a whole request for one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

__all__ = ["DEEPEST", "Schema", "target_of", "well_formed"]

Schema: TypeAlias = dict[str, Any]

DEEPEST: Final = 64
"""Schemas within schemas beyond this depth are taken to allow everything."""

_TYPES: Final = ("string", "integer", "number", "boolean", "object", "array", "null")
_ONE: Final = frozenset(
    "items additionalProperties not if then else contains propertyNames unevaluatedItems unevaluatedProperties".split()
)
_SEVERAL: Final = frozenset("anyOf oneOf allOf prefixItems".split())
_NAMED: Final = frozenset("properties patternProperties $defs definitions dependentSchemas".split())
# What identifies schemas or only serves validators: references are resolved within the document.
_DROPPED: Final = frozenset("$schema $id id $anchor $dynamicRef $dynamicAnchor $recursiveRef $vocabulary".split())


def well_formed(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = DEEPEST) -> Schema:
    """Return a schema that is valid as JSON Schema 2020-12, without what has a wrong form or refers to nothing.

    Lists of schemas for the entries of an array, as older drafts have them, become ``prefixItems``.

    Parameters
    ----------
    schema
        The schema.
    root
        The document that its references refer to.
    depth
        How many levels of schemas may follow.
    """
    if depth <= 0:
        return {}
    found: Schema = {}
    for name, value in schema.items():
        if name in _DROPPED:
            continue
        if name in _ONE:
            if name == "items" and isinstance(value, list):
                found |= _several("prefixItems", value, root, depth)
            elif isinstance(value, dict | bool):
                found[name] = _part(value, root, depth)
        elif name in _SEVERAL:
            found |= _several(name, value, root, depth)
        elif name in _NAMED:
            if isinstance(value, dict):
                found[name] = {key: _part(each, root, depth) for key, each in value.items()}
        elif name == "$ref":
            if isinstance(value, str) and target_of(value, root) is not None:
                found[name] = value
        elif name not in _CHECKS or _CHECKS[name](value):
            found[name] = value
    return found


def target_of(reference: str, root: Mapping[str, Any]) -> object | None:
    """Return what a JSON pointer within the document (RFC 6901) refers to; ``None`` if there is no schema."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    found: object = root
    for step in reference[2:].split("/"):
        key = step.replace("%25", "%").replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found if isinstance(found, dict | bool) else None


def _several(name: str, value: object, root: Mapping[str, Any], depth: int) -> Schema:
    if not isinstance(value, list) or not value:
        return {}
    return {name: [_part(each, root, depth) for each in value]}


def _part(value: object, root: Mapping[str, Any], depth: int) -> Schema | bool:
    if isinstance(value, bool):
        return value
    return well_formed(value, root, depth - 1) if isinstance(value, dict) else {}


def _is_type(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(each in _TYPES for each in value) and len(set(value)) == len(value)
    return value in _TYPES


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _are_dependencies(value: object) -> bool:
    return isinstance(value, dict) and all(map(_are_names, value.values()))


_CHECKS: Final[dict[str, Callable[[object], bool]]] = {
    "type": _is_type,
    "required": _are_names,
    "dependentRequired": _are_dependencies,
    "enum": _is_list,
    "examples": _is_list,
    "multipleOf": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value > 0,
    **dict.fromkeys("title description format pattern $comment contentEncoding contentMediaType".split(), _is_text),
    **dict.fromkeys("minimum maximum exclusiveMinimum exclusiveMaximum".split(), _is_number),
    **dict.fromkeys(
        "minLength maxLength minItems maxItems minProperties maxProperties minContains maxContains".split(), _is_size
    ),
    **dict.fromkeys("uniqueItems readOnly writeOnly deprecated".split(), _is_flag),
    "contentSchema": lambda value: isinstance(value, dict | bool),
}
