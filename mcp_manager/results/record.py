"""The base classes of all records that servers send."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, Final, Literal, Self

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.results.origin import Origin, Path
from mcp_manager.serialization import ImmutableDict, Serializable

__all__ = ["NOTHING", "CacheableResult", "Extra", "Icon", "Record", "Result"]


class Extra(ImmutableDict):
    """Decoded members by their names on the wire; immutable, as records are."""

    __slots__ = ()


NOTHING: Final = Extra()

_ORIGIN: Final = "_origin"
_plain_decoder: JsonDecoder[dict[str, Any]] = JsonDecoder(dict[str, Any])


class Record(
    Serializable,
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    repr_omit_defaults=True,
    forbid_unknown_fields=True,
    # For the origin, which is no field: it does not count when records are compared.
    dict=True,
):
    """Base of the records that servers send.

    Parameters
    ----------
    extra
        Members that the specification does not name, and optional members of a wrong type, by their names on the wire.
    """

    # Reads a record leniently; set by mcp_manager.results.reading, which stands above.
    _reader: ClassVar[Callable[[type[Any], bytes], Any]]

    # Unknown members are refused by the decoder and then read by mcp_manager.results.reading, so that usual replies,
    # which have none, cost nothing extra. No decoder sets this field: a member "extra" on the wire is an unknown one.
    extra: Extra = NOTHING

    def to_dict(self) -> dict[str, Any]:
        """Return everything that the server sent, under the names of the wire.

        Halves of a surrogate pair are U+FFFD in it, and numbers too large for a float are infinite. A record that was
        not received from a server returns the fields that differ from their defaults.

        Raises
        ------
        msgspec.DecodeError
            A schema in it is malformed; schemas are decoded only on access.
        """
        return _plain_decoder.decode(self.to_json(), limits=None)

    def to_json(self) -> bytes:
        """Return what :meth:`to_dict` returns as JSON; schemas are as they were received."""
        origin: tuple[Origin, Path] | None = self.__dict__.get(_ORIGIN)
        return origin[0].text_of(origin[1]) if origin is not None else msgspec.json.encode(_members(self))

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Make a record of plain data as a server would send it; raises ``ValueError`` if that has another shape."""
        try:
            text = msgspec.json.encode(value)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        except TypeError as error:
            # Of something that is no plain data.
            raise ValueError(str(error)) from None
        record: Self = Record._reader(cls, text)
        return record

    def __copy__(self) -> Self:
        """Return the record itself, because it is immutable."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields, and the original text if it holds more than they do."""
        given = ((each, getattr(self, each.name)) for each in _fields_of(type(self)))
        # Defaults are left out, so that unpickling restores the identical objects.
        fields = {each.name: value for each, value in given if value is not each.default}
        return _made_again, (type(self), fields, self.to_json() if _ORIGIN in self.__dict__ else None)

    def _came_from(self, origin: Origin, path: Path) -> None:
        """Remember the original text and the path of this record in it."""
        self.__dict__[_ORIGIN] = origin, path


@cache
def _fields_of(kind: type[Record]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a kind of record; msgspec evaluates its annotations anew every time, in milliseconds."""
    return msgspec.structs.fields(kind)


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
    for field in _fields_of(type(record)):
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
    """Base of the results of requests.

    Parameters
    ----------
    result_type
        ``complete`` from 2026-07-28 on, ``None`` before.
    meta
        The result's ``_meta``, or ``None``.
    """

    result_type: str | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class CacheableResult(Result, frozen=True, kw_only=True):
    """Base of cacheable results (2026-07-28, server/utilities/caching).

    Parameters
    ----------
    ttl_ms
        How long the result may be cached, in milliseconds; ``None`` if the server does not say.
    cache_scope
        ``public`` if requests with other credentials may get it too, else ``private``; ``None`` if not said.
    """

    ttl_ms: int | float | None = None
    cache_scope: Literal["public", "private"] | None = None


class Icon(Record, frozen=True, kw_only=True):
    """A picture for a user interface.

    Parameters
    ----------
    src
        Its URL, as the server claims; treat it as untrusted.
    mime_type
        Its media type, or ``None``.
    sizes
        Its sizes, such as ``48x48`` or ``any``, or ``None``.
    theme
        ``light`` or ``dark``, or ``None``.
    """

    src: str
    mime_type: str | None = None
    sizes: list[str] | None = None
    theme: Literal["light", "dark"] | None = None
