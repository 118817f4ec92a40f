"""What the vendors' APIs refuse in the schemas of tools, as their documentation and error messages say."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

__all__ = ["check_gemini_json_schema", "check_gemini_openapi", "check_openai_parameters"]

_REFUSED_AT_TOP = {"oneOf", "anyOf", "allOf", "enum", "not"}
_STRICT = set(
    "type description title enum const pattern format multipleOf minimum maximum exclusiveMinimum exclusiveMaximum"
    " minItems maxItems properties required additionalProperties items anyOf $ref $defs".split()
)
_STRICT_FORMATS = set("date-time time date duration email hostname ipv4 ipv6 uuid".split())
_GEMINI_JSON_SCHEMA = set(
    "$id $defs $ref $anchor type format title description enum items prefixItems minItems maxItems minimum maximum anyOf"
    " oneOf properties additionalProperties required propertyOrdering".split()
)
_GEMINI_OPENAPI = set(
    "type format title description nullable enum maxItems minItems properties required minProperties maxProperties"
    " minLength maxLength pattern example anyOf propertyOrdering default items minimum maximum".split()
)


def check_openai_parameters(parameters: Any, *, strict: bool) -> None:
    """Refuse what OpenAI refuses, in its strict form or without it."""
    assert jsonschema_rs.meta.is_valid(parameters)
    assert parameters["type"] == "object"
    assert isinstance(parameters.get("properties"), dict), "object schema missing properties"
    assert not _REFUSED_AT_TOP & set(parameters)
    if strict:
        _check_strict(parameters, parameters)


def _check_strict(schema: Any, root: Any) -> None:
    assert isinstance(schema, dict)
    if "$ref" in schema:
        assert set(schema) == {"$ref"}, "$ref cannot have keywords beside it"
        assert schema["$ref"] == "#" or schema["$ref"].removeprefix("#/$defs/") in root["$defs"]
        return
    assert set(schema) <= _STRICT, set(schema) - _STRICT
    assert {"type", "anyOf", "enum", "const"} & set(schema), "schema must have a 'type' key"
    assert schema.get("format", "date") in _STRICT_FORMATS
    if schema.get("type") == "object":
        assert schema.get("additionalProperties") is False
        assert schema.get("required") == list(schema["properties"]), "'required' must include every key in properties"
    if schema.get("type") == "array":
        assert "items" in schema, "array schema missing items"
    for each in (*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())):
        _check_strict(each, root)
    if "items" in schema:
        _check_strict(schema["items"], root)


def check_gemini_json_schema(schema: Any) -> None:
    """Refuse the keywords that Gemini's ``parametersJsonSchema`` does not know."""
    assert isinstance(schema, dict)
    assert set(schema) <= _GEMINI_JSON_SCHEMA, set(schema) - _GEMINI_JSON_SCHEMA
    for name in ("properties", "$defs"):
        for each in schema.get(name, {}).values():
            check_gemini_json_schema(each)
    for name in ("anyOf", "prefixItems"):
        for each in schema.get(name, ()):
            check_gemini_json_schema(each)
    for name in ("items", "additionalProperties"):
        if not isinstance(schema.get(name, True), bool):
            check_gemini_json_schema(schema[name])


def check_gemini_openapi(schema: Any) -> None:
    """Refuse what Gemini refuses in ``parameters``."""
    assert isinstance(schema, dict)
    assert set(schema) <= _GEMINI_OPENAPI, set(schema) - _GEMINI_OPENAPI
    kind = schema.get("type")
    if "anyOf" in schema:
        assert len(schema["anyOf"]) > 1
    else:
        assert kind in ("string", "number", "integer", "boolean", "array", "object"), "schema has no type"
    if "enum" in schema:
        assert kind == "string" and all(isinstance(each, str) for each in schema["enum"])
    if kind == "array":
        assert "items" in schema, "missing field items"
    assert set(schema.get("required", ())) <= set(schema.get("properties", {})), "property is not defined"
    for each in (*schema.get("properties", {}).values(), *schema.get("anyOf", ())):
        check_gemini_openapi(each)
    if "items" in schema:
        check_gemini_openapi(schema["items"])
