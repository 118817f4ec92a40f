"""The form of JSON Schema that OpenAI holds models to (``strict``), and the way back from it.

In that form, every object lists all of its properties as required and allows no others; optional ones are nullable
(https://platform.openai.com/docs/guides/structured-outputs, supported schemas).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_manager.adapters.definitions import ToolDefinition
from mcp_manager.adapters.schemas import DEEPEST, Schema, Steps, as_schema, merged, resolved

__all__ = ["strict_parameters", "without_nulls"]

_KEPT: Final = frozenset(
    "type description title enum const pattern format multipleOf minimum maximum exclusiveMinimum exclusiveMaximum"
    " minItems maxItems".split()
)
# Left out without harm: the server checks the arguments.
_DROPPED: Final = frozenset(
    "$schema $id $comment default examples example deprecated readOnly writeOnly minLength maxLength uniqueItems"
    " minProperties maxProperties contentEncoding contentMediaType additionalProperties required properties items"
    " anyOf oneOf allOf $ref $defs definitions nullable not".split()
)
_FORMATS: Final = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid".split())
_DEEPEST: Final = 10
_MOST_PROPERTIES: Final = 5_000
_MOST_CHOICES: Final = 1_000


class _NoStrictForm(Exception):
    """A schema has no strict form."""


def strict_parameters(parameters: Schema) -> Schema | None:
    """Return the strict form of a schema of arguments; ``None`` if it has none.

    There is none for objects with properties of any name, for values of any type, for keywords such as
    ``patternProperties`` and ``if``, and for schemas beyond the limits of OpenAI.
    """
    writer = _StrictWriter(parameters)
    try:
        strict = writer.written(parameters, 0)
        if writer.definitions:
            strict["$defs"] = writer.definitions
    except _NoStrictForm:
        return None
    return strict


class _StrictWriter:
    """Writes one schema in the strict form, with the definitions that it refers to."""

    def __init__(self, root: Schema) -> None:
        self.definitions: dict[str, Schema] = {}
        self._root = root
        self._names: dict[str, str] = {}
        self._steps = Steps()
        self._properties = 0
        self._choices = 0

    def written(self, schema: Schema, depth: int) -> Schema:
        """Return the strict form of a schema; raises ``_NoStrictForm``."""
        if depth > _DEEPEST or not self._steps.take() or set(schema) - _KEPT - _DROPPED:
            raise _NoStrictForm
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "allOf" in schema:
            return self.written(self._all_of(schema), depth + 1)
        kept = {name: value for name, value in schema.items() if name in _KEPT}
        if kept.get("format") not in _FORMATS:
            kept.pop("format", None)
        self._choices += len(kept.get("enum", ()))
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches:
            kept.pop("type", None)
            kept["anyOf"] = [self.written(as_schema(each), depth + 1) for each in branches]
        elif kept.get("type") == "object":
            kept |= self._object(schema, depth)
        elif kept.get("type") == "array":
            kept["items"] = self.written(as_schema(schema.get("items")), depth + 1)
        elif not {"type", "enum", "const"} & set(kept) or not _is_simple(kept.get("type")):
            raise _NoStrictForm
        if self._properties > _MOST_PROPERTIES or self._choices > _MOST_CHOICES:
            raise _NoStrictForm
        return kept

    def _object(self, schema: Schema, depth: int) -> Schema:
        properties = schema.get("properties", {})
        is_open = not properties or schema.get("additionalProperties", False) is not False
        if not isinstance(properties, dict) or (is_open and depth > 0) or (is_open and properties):
            raise _NoStrictForm
        required = set(schema.get("required", ()))
        if required - set(properties):
            raise _NoStrictForm
        self._properties += len(properties)
        written = {}
        for name, value in properties.items():
            strict = self.written(as_schema(value), depth + 1)
            written[name] = strict if name in required else _nullable(strict)
        return {"properties": written, "required": list(properties), "additionalProperties": False}

    def _all_of(self, schema: Schema) -> Schema:
        parts = [resolved(as_schema(each), self._root) for each in schema["allOf"]]
        own = {name: value for name, value in schema.items() if name != "allOf"}
        if None in parts:
            raise _NoStrictForm
        return merged([own, *(each for each in parts if each is not None)])

    def _reference(self, reference: object) -> Schema:
        if not isinstance(reference, str):
            raise _NoStrictForm
        if reference == "#":
            return {"$ref": "#"}
        name = self._names.get(reference)
        if name is None:
            target = resolved({"$ref": reference}, self._root)
            if target is None:
                raise _NoStrictForm
            name = self._names[reference] = f"{len(self._names)}_{reference.rpartition('/')[2]}"
            # Its place is taken first: it may refer to itself.
            self.definitions[name] = {}
            self.definitions[name] = self.written(target, 1)
        return {"$ref": f"#/$defs/{name}"}


def _is_simple(kind: object) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return not {"object", "array"} & {each for each in kinds if isinstance(each, str)}


def _nullable(schema: Schema) -> Schema:
    kind = schema.get("type")
    if isinstance(kind, str) and kind != "null" and "enum" not in schema and "const" not in schema:
        return {**schema, "type": [kind, "null"]}
    if isinstance(kind, list) and "null" in kind and "enum" not in schema and "const" not in schema:
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


def without_nulls(
    arguments: Mapping[str, Any] | str | None, definition: ToolDefinition | None
) -> Mapping[str, Any] | str | None:
    """Return arguments without the nulls that stand for optional ones in the strict form.

    Parameters
    ----------
    arguments
        The arguments by name, or JSON text; text that is no JSON object is returned as it is.
    definition
        The tool; ``None`` if it is not known.
    """
    if definition is None or (isinstance(arguments, str) and "null" not in arguments):
        return arguments
    given: Any = arguments
    if isinstance(arguments, str):
        try:
            given = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return arguments
    if not isinstance(given, dict):
        return arguments
    cleaned: dict[str, Any] = _cleaned(given, definition.parameters, definition.parameters, Steps())
    return cleaned


def _cleaned(value: Any, schema: Schema, root: Schema, steps: Steps) -> Any:
    found = resolved(schema, root) or {}
    if "allOf" in found:
        found = merged([found, *(resolved(as_schema(each), root) or {} for each in found["allOf"])])
    if isinstance(value, list):
        items = as_schema(found.get("items"))
        return [_cleaned(each, items, root, steps) for each in value]
    if not isinstance(value, dict):
        return value
    properties, required = found.get("properties", {}), found.get("required", ())
    return {
        name: _cleaned(each, as_schema(properties.get(name)), root, steps)
        for name, each in value.items()
        if each is not None
        or name in required
        or name not in properties
        or _takes_null(as_schema(properties[name]), root, DEEPEST, steps)
    }


def _takes_null(schema: Schema, root: Schema, depth: int, steps: Steps) -> bool:
    found = resolved(schema, root)
    if not found or depth <= 0 or not steps.take():
        return True
    branches = found.get("anyOf") or found.get("oneOf")
    if branches:
        return any(_takes_null(as_schema(each), root, depth - 1, steps) for each in branches)
    kind = found.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if "enum" in found:
        return None in found["enum"]
    return (kind is None and "const" not in found and "allOf" not in found) or "null" in kinds
