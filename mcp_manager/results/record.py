"""The base of everything that a server sends: named members, and beside them whatever else it sent."""

from __future__ import annotations

from typing import Any, Final, NoReturn, Self

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.results.origin import Origin, Path

__all__ = ["NOTHING", "CacheableResult", "Extra", "Icon", "Record", "Result"]


class Extra(dict[str, Any]):
    """Members by their name on the wire, decoded; not to be changed, since records are not."""

    __slots__ = ()

    # A dict has none, since it changes.
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("what a server sent cannot be changed: make a dict of it first")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Extra], tuple[dict[str, Any]]]:
        return Extra, (dict(self),)


NOTHING: Final = Extra()

_ORIGIN: Final = "_origin"
_plain_decoder: JsonDecoder[dict[str, Any]] = JsonDecoder(dict[str, Any])


class Record(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    repr_omit_defaults=True,
    forbid_unknown_fields=True,
    # For the origin: no field, since it is nothing that two records could differ in.
    dict=True,
):
    """Base of what a server sends.

    ``extra`` holds the members that the specification does not name, and optional ones that have not the specified type,
    both by their name on the wire. (That the decoder refuses unknown ones makes the usual reply, which has none, cost
    nothing; see :mod:`mcp_manager.results.reading`.)
    """

    # No decoder makes one of these: a member of that name on the wire is an unknown one like any other.
    extra: Extra = NOTHING

    def to_dict(self) -> dict[str, Any]:
        """Return everything the server sent, under the names of the wire; of a record made here, what differs from the default.

        Halves of a surrogate pair are U+FFFD in it, and numbers beyond every float infinite.

        Raises
        ------
        msgspec.DecodeError
            A schema in it, which is decoded only when it is looked at, is malformed.
        """
        return _plain_decoder.decode(self.to_json(), limits=None)

    def to_json(self) -> bytes:
        """Encode what :meth:`to_dict` returns; schemas are written as they were received."""
        origin: tuple[Origin, Path] | None = self.__dict__.get(_ORIGIN)
        return origin[0].text_of(origin[1]) if origin is not None else msgspec.json.encode(_members(self))

    def __copy__(self) -> Self:
        """Return the record itself: it does not change."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Take along what the server sent, where that is more than the fields hold."""
        given = ((each, getattr(self, each.name)) for each in msgspec.structs.fields(self))
        # What is a default must be the very same again.
        fields = {each.name: value for each, value in given if value is not each.default}
        return _made_again, (type(self), fields, self.to_json() if _ORIGIN in self.__dict__ else None)

    def _came_from(self, origin: Origin, path: Path) -> None:
        """Remember where to find all that the server sent."""
        self.__dict__[_ORIGIN] = origin, path


def _made_again(kind: type[Record], fields: dict[str, Any], text: bytes | None) -> Record:
    record = kind(**fields)
    if text is not None:
        record._came_from(Origin(text), ())
    return record


def _members(record: Record) -> dict[str, Any]:
    config = record.__struct_config__
    found: dict[str, Any] = {}
    if config.tag_field is not None:
        found[config.tag_field] = config.tag
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        if field.name == "extra" or value is field.default:
            continue
        if field.default_factory is not msgspec.NODEFAULT and not value and value == field.default_factory():
            continue
        found[field.encode_name] = _written(value)
    found.update(record.extra)
    return found


def _written(value: Any) -> Any:
    if isinstance(value, Record):
        return msgspec.Raw(value.to_json())
    if isinstance(value, list):
        return [_written(each) for each in value]
    return value


class Result(Record, frozen=True, kw_only=True):
    """Base of what answers a request. ``result_type`` is ``None`` before 2026-07-28, which means ``complete``."""

    result_type: str | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class CacheableResult(Result, frozen=True, kw_only=True):
    """Base of what may be kept: for ``ttl_ms`` milliseconds, and by ``cache_scope`` for whom (2026-07-28, caching)."""

    ttl_ms: int | float | None = None
    cache_scope: str | None = None


class Icon(Record, frozen=True, kw_only=True):
    """A picture for a user interface. The address is the server's own claim: fetch none that you would not open."""

    src: str
    mime_type: str | None = None
    sizes: list[str] | None = None
    theme: str | None = None
