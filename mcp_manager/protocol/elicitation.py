"""Answers to ``elicitation/create`` from the defaults of a form's schema (2025-11-25, client/elicitation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["accept_with_defaults", "elicitation_defaults"]


def elicitation_defaults(requested_schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of a form's fields by name (SEP-1034, SEP-1330).

    A default that does not have its field's type or is not among its choices is left out, because the server would
    refuse it. Lengths, bounds, patterns and formats are not checked.

    Parameters
    ----------
    requested_schema
        The ``requestedSchema`` of the request: a flat object of strings, numbers, integers, booleans, and choices of
        one or several strings.
    """
    properties = requested_schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {
        name: field["default"]
        for name, field in properties.items()
        if isinstance(field, Mapping) and "default" in field and _fits(field["default"], field)
    }


def accept_with_defaults(params: Mapping[str, Any], content: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the result that accepts an elicitation.

    Parameters
    ----------
    params
        The params of the ``elicitation/create`` request.
    content
        The user's input by field name; other fields get their defaults. Ignored in mode ``url``, which has no content.
    """
    if params.get("mode") == "url":
        return {"action": "accept"}
    schema = params.get("requestedSchema")
    defaults = elicitation_defaults(schema) if isinstance(schema, Mapping) else {}
    return {"action": "accept", "content": {**defaults, **(content or {})}}


def _fits(value: Any, field: Mapping[str, Any]) -> bool:
    match field.get("type"):
        case "string":
            return isinstance(value, str) and _is_choice(value, field, "oneOf")
        case "boolean":
            return isinstance(value, bool)
        case "number":
            return _is_number(value)
        case "integer":
            return _is_number(value) and value == value // 1
        case "array":
            items = field.get("items")
            return (
                isinstance(value, list)
                and isinstance(items, Mapping)
                and all(isinstance(each, str) and _is_choice(each, items, "anyOf") for each in value)
            )
        case _:
            return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_choice(value: str, schema: Mapping[str, Any], titled: str) -> bool:
    """Tell whether a string is among the choices, with or without titles; any string is if there are no choices."""
    if isinstance(bare := schema.get("enum"), list):
        return value in bare
    if isinstance(choices := schema.get(titled), list):
        return any(isinstance(each, Mapping) and each.get("const") == value for each in choices)
    return True
