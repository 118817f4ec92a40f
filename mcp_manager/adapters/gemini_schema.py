"""The two forms in which Gemini takes schemas: a part of JSON Schema, and a part of OpenAPI 3.0.

https://ai.google.dev/api/caching#Schema names the fields of the second; the first has the keywords that the
documentation of ``responseJsonSchema`` lists.
"""

from __future__ import annotations

from typing import Any, Final

from mcp_manager.adapters.schemas import DEEPEST, Schema, Steps, as_schema, merged, resolved

__all__ = ["json_schema_subset", "openapi_schema"]

_JSON_SCHEMA: Final = frozenset(
    "$ref type format title description enum minItems maxItems minimum maximum required propertyOrdering".split()
)
_OPENAPI: Final = frozenset(
    "type format title description nullable enum minItems maxItems minProperties maxProperties minLength maxLength"
    " pattern minimum maximum default".split()
)
_FORMATS: Final = {
    "string": {"enum", "date-time"},
    "number": {"float", "double"},
    "integer": {"int32", "int64"},
}
_ANYTHING: Final = ("string", "number", "boolean")
# A recursive schema is written out this often.
_REPETITIONS: Final = 2


def json_schema_subset(schema: Schema) -> Schema:
    """Return a schema with only the keywords that the API knows; references and definitions stay."""
    return _subset(schema, schema, DEEPEST, Steps())


def openapi_schema(schema: Schema) -> Schema:
    """Return a schema in the form of OpenAPI that the API knows, with every reference replaced by what it refers to.

    Recursive schemas are written out twice, and then allow any object.
    """
    return _OpenApiWriter(schema).written(schema, ())


def _subset(schema: Schema, root: Schema, depth: int, steps: Steps) -> Schema:
    if depth <= 0 or not steps.take():
        return {}
    if "allOf" in schema:
        parts = [resolved(as_schema(each), root) or {} for each in schema["allOf"]]
        own = {name: value for name, value in schema.items() if name != "allOf"}
        return _subset(merged([own, *parts]), root, depth - 1, steps)
    found: Schema = {name: value for name, value in schema.items() if name in _JSON_SCHEMA}
    if isinstance(found.get("$ref"), str):
        found["$ref"] = found["$ref"].replace("#/definitions/", "#/$defs/")
    if "const" in schema:
        found["enum"] = [schema["const"]]

    def inner(value: object) -> Schema:
        return _subset(as_schema(value), root, depth - 1, steps)

    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            target = "$defs" if name == "definitions" else name
            found[target] = {key: inner(each) for key, each in schema[name].items() if each is not False}
    for name in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(schema.get(name), list):
            found["anyOf" if name == "oneOf" else name] = [inner(each) for each in schema[name]]
    if "items" in schema:
        found["items"] = inner(schema["items"])
    more = schema.get("additionalProperties")
    if more is not None:
        found["additionalProperties"] = more if isinstance(more, bool) else inner(more)
    return found


class _OpenApiWriter:
    """Writes one schema without references."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._steps = Steps()

    def written(self, schema: Schema, path: tuple[str, ...]) -> Schema:
        """Return the form of a schema; ``path`` are the references that lead to it."""
        may_look = self._steps.take()
        reference = schema.get("$ref")
        if isinstance(reference, str):
            path = (*path, reference)
            if path.count(reference) > _REPETITIONS:
                return {"type": "object"}
        found = resolved(schema, self._root)
        if found is None or not may_look or len(path) > DEEPEST:
            return {"type": "object"}
        if "allOf" in found:
            parts = [resolved(as_schema(each), self._root) or {} for each in found["allOf"]]
            found = merged([{name: value for name, value in found.items() if name != "allOf"}, *parts])
        # One more level, so that schemas that are deep without references end as well.
        return self._plain(found, (*path, ""))

    def _plain(self, schema: Schema, path: tuple[str, ...]) -> Schema:
        kept: Schema = {name: value for name, value in schema.items() if name in _OPENAPI}
        kinds = _kinds_of(schema)
        if "null" in kinds:
            kept["nullable"] = True
            kinds.remove("null")
        branches = [as_schema(each) for each in schema.get("anyOf") or schema.get("oneOf") or ()]
        if branches:
            return self._choice(kept, branches, path)
        if not kinds:
            kinds = _implied_kinds(schema)
        if len(kinds) != 1:
            kept.pop("type", None)
            choices = [self._typed({}, {**schema, "type": each}, each, path) for each in kinds or _ANYTHING]
            return {**_about(kept), "anyOf": choices}
        return self._typed(kept, schema, kinds[0], path)

    def _choice(self, kept: Schema, branches: list[Schema], path: tuple[str, ...]) -> Schema:
        others = [each for each in branches if each.get("type") != "null"]
        found = _about(kept)
        if len(others) < len(branches):
            found["nullable"] = True
        written = [self.written(each, path) for each in others]
        if len(written) == 1:
            return {**written[0], **found}
        return {**found, "anyOf": written} if written else {"type": "string", **found}

    def _typed(self, kept: Schema, schema: Schema, kind: str, path: tuple[str, ...]) -> Schema:
        found = {**kept, "type": kind}
        if found.get("format") not in _FORMATS.get(kind, set()):
            found.pop("format", None)
        choices = found.pop("enum", None) or []
        if "const" in schema:
            choices = [schema["const"]]
        choices = [each for each in choices if each is not None]
        # Only strings may be enumerated.
        texts = [each for each in choices if isinstance(each, str)]
        if kind == "string" and texts:
            found["enum"] = texts
        elif kind != "string" and choices:
            said = f"One of: {', '.join(map(str, choices))}."
            found["description"] = f"{found['description']} {said}" if found.get("description") else said
        if kind == "array":
            items = schema.get("items")
            found["items"] = self.written(as_schema(items), path)
        properties = schema.get("properties")
        if kind == "object" and isinstance(properties, dict) and properties:
            allowed = {name: each for name, each in properties.items() if each is not False}
            found["properties"] = {name: self.written(as_schema(each), path) for name, each in allowed.items()}
            required = [each for each in schema.get("required", ()) if each in allowed]
            if required:
                found["required"] = required
        return found


def _kinds_of(schema: Schema) -> list[str]:
    kind: Any = schema.get("type")
    return [each for each in (kind if isinstance(kind, list) else [kind]) if isinstance(each, str)]


def _implied_kinds(schema: Schema) -> list[str]:
    """Return the types of a schema that names none."""
    if "properties" in schema:
        return ["object"]
    if "items" in schema:
        return ["array"]
    values = [schema["const"]] if "const" in schema else schema.get("enum") or []
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return list(dict.fromkeys(names[type(each)] for each in values if type(each) in names))


def _about(kept: Schema) -> Schema:
    return {name: kept[name] for name in ("title", "description", "nullable", "default") if name in kept}
