"""JSON schemas of public records, for OpenAPI and the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import NODEFAULT, inspect

__all__ = ["first_line", "schema_of"]

# Fields with these names in a record that servers send are no members of it.
_NO_MEMBERS: Final = frozenset({"extra"})
_NAMES: Final[dict[type, dict[str, Any]]] = {
    inspect.NoneType: {"type": "null"},
    inspect.BoolType: {"type": "boolean"},
    inspect.IntType: {"type": "integer"},
    inspect.FloatType: {"type": "number"},
    inspect.StrType: {"type": "string"},
    inspect.BytesType: {"type": "string", "contentEncoding": "base64"},
    inspect.DateTimeType: {"type": "string", "format": "date-time"},
}

Own = Callable[[type], dict[str, Any] | None]
"""Returns the schema of a class that msgspec does not know; ``None`` if anything may be in its place."""


def first_line(kind: type) -> str:
    """Return the first line of a class's docstring."""
    return (kind.__doc__ or "").strip().partition("\n")[0]


def schema_of(kind: type, own: Own) -> dict[str, Any]:
    """Return the JSON schema of a struct, with the schemas of the structs in it.

    It refers to nothing else, so that it can stand anywhere. A struct within itself may be anything.
    """
    return _Writer(own).struct(inspect.type_info(kind), ())


class _Writer:
    """Writes the schema of one struct."""

    def __init__(self, own: Own) -> None:
        self._own = own

    def struct(self, info: Any, around: tuple[type, ...]) -> dict[str, Any]:
        kind = info.cls
        if kind in around:
            return {}
        if (own := getattr(kind, "_own_schema", None)) is not None:
            return dict(own)
        inside = (*around, kind)
        properties: dict[str, Any] = {}
        if info.tag_field is not None:
            properties[info.tag_field] = {"const": info.tag, "type": "string"}
        required = list(properties)
        for field in info.fields:
            if field.name in _NO_MEMBERS:
                continue
            properties[field.encode_name] = self._of(field.type, inside)
            if field.default is NODEFAULT and field.default_factory is NODEFAULT:
                required.append(field.encode_name)
        schema = {"title": kind.__name__, "type": "object", "description": first_line(kind), "properties": properties}
        return {**schema, "required": required} if required else schema

    def _of(self, info: Any, around: tuple[type, ...]) -> dict[str, Any]:
        match info:
            case inspect.Metadata():
                return self._of(info.type, around)
            case inspect.StructType():
                return self.struct(info, around)
            case inspect.UnionType():
                return {"anyOf": [self._of(each, around) for each in info.types]}
            case inspect.EnumType():
                return {"title": info.cls.__name__, "enum": [each.value for each in info.cls]}
            case inspect.LiteralType():
                return {"enum": list(info.values)}
            case inspect.DictType():
                return {"type": "object", "additionalProperties": self._of(info.value_type, around)}
            case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
                return {"type": "array", "items": self._of(info.item_type, around)}
            case inspect.CustomType():
                return self._own(info.cls) or {}
        return dict(_NAMES.get(type(info), {}))
