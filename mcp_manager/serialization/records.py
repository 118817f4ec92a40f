"""Plain data of public records for ``json`` and web frameworks, and the hooks that pydantic asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self

import msgspec

from mcp_manager.serialization.json_schema import schema_of

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["ForPydantic", "ImmutableDict", "Serializable", "made_of", "plain", "schema_of_own"]


def plain(value: object) -> Any:
    """Return a value as plain data, with lists in place of tuples."""
    return msgspec.json.decode(msgspec.json.encode(value))


class ForPydantic:
    """Let pydantic, and FastAPI with it, validate and serialize instances, and describe them in schemas."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: dicts, lists, texts, numbers, booleans and ``None``."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Make a record of what :meth:`to_dict` returned; raises ``ValueError`` if that has another shape."""
        return msgspec.convert(value, cls, dec_hook=made_of)

    @classmethod
    def _json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of :meth:`to_dict`, without references to other schemas."""
        return schema_of(cls, schema_of_own)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Called by pydantic only, so that it is there.
        from pydantic_core import core_schema  # noqa: PLC0415

        def validated(value: Any) -> Any:
            return value if isinstance(value, cls) else cls.from_dict(value)

        return core_schema.no_info_plain_validator_function(
            validated,
            # What pydantic calls the schema of this class wherever it is used.
            ref=f"{cls.__module__}.{cls.__qualname__}:{id(cls)}",
            serialization=core_schema.plain_serializer_function_ser_schema(lambda record: record.to_dict()),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return cls._json_schema()


class Serializable(ForPydantic):
    """Give a struct the methods of all public records: ``to_dict``, ``to_json``, and what pydantic asks for.

    The names in plain data are those of the fields, but for what the protocol names: that has its names on the wire.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data, which ``json`` can encode."""
        found: dict[str, Any] = plain(self)
        return found

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return msgspec.json.encode(self)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        # dict(record) is what FastAPI tries on a value of a type that it does not know.
        return iter(self.to_dict().items())


class ImmutableDict(dict[str, Any]):
    """A dict that cannot be changed; it can be hashed."""

    __slots__ = ()

    # A dict has no hash, because it is mutable.
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    def __setitem__(self, name: str, value: Any) -> NoReturn:
        _refuse_changes()

    def __delitem__(self, name: str) -> NoReturn:
        _refuse_changes()

    def __ior__(self, other: Any) -> NoReturn:  # type: ignore[misc]
        _refuse_changes()

    def clear(self) -> NoReturn:
        """Raise ``TypeError``."""
        _refuse_changes()

    def pop(self, *_: Any) -> NoReturn:
        """Raise ``TypeError``."""
        _refuse_changes()

    def popitem(self) -> NoReturn:
        """Raise ``TypeError``."""
        _refuse_changes()

    def setdefault(self, *_: Any) -> NoReturn:
        """Raise ``TypeError``."""
        _refuse_changes()

    def update(self, *_: Any, **__: Any) -> NoReturn:
        """Raise ``TypeError``."""
        _refuse_changes()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def _refuse_changes() -> NoReturn:
    raise TypeError("members of a record cannot be changed: copy them with dict() first")


def made_of(kind: type, value: Any) -> Any:
    """Make a view inside another record of plain data."""
    if issubclass(kind, ForPydantic):
        return kind.from_dict(value)
    if issubclass(kind, ImmutableDict) and isinstance(value, Mapping):
        return kind(value)
    raise NotImplementedError


def schema_of_own(kind: type) -> dict[str, Any] | None:
    """Return the JSON schema of a class that msgspec does not know; ``None`` if anything may be in its place."""
    if issubclass(kind, ForPydantic):
        return kind._json_schema()
    return {"type": "object"} if issubclass(kind, ImmutableDict) else None
