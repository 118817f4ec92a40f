"""Decoding of plain JSON values into types of the caller: of the standard library, msgspec, attrs and pydantic."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from mcp_manager.errors import InvalidRequestError

__all__ = ["Misfit", "Target", "target_of"]

_TYPE_FORMS: Final = frozenset({"typing", "types", "typing_extensions"})
_HINT: Final = "use a dataclass, a TypedDict, a type of msgspec, attrs or pydantic, a builtin type, or a union of them"
_LONGEST_NAME: Final = 100
_LONGEST_REASON: Final = 500
_TOO_DEEP: Final = "it is nested too deeply"
_PLACE: Final = re.compile(r" - at `([^`]*)`$")

Read = Callable[[Any], Any]
"""Returns a plain value as one of the type; raises :class:`Misfit`."""


class Misfit(Exception):
    """A value is not of the wanted type.

    Parameters
    ----------
    reason
        What is wrong with it.
    place
        The path in the value, which begins with ``$``.
    """

    def __init__(self, reason: str, place: str = "$") -> None:
        super().__init__(reason, place)
        self.reason = reason
        self.place = place

    def __str__(self) -> str:
        return f"{self.reason} - at `{self.place}`"


class Target:
    """A type that plain values are decoded into.

    Parameters
    ----------
    kind
        The type.
    read
        Decodes a value.
    """

    __slots__ = ("is_text", "kind", "name", "read")

    def __init__(self, kind: Any, read: Read) -> None:
        self.kind: Any = kind
        self.read: Read = read
        self.name: str = _name_of(kind)
        self.is_text: bool = isinstance(kind, type) and issubclass(kind, str)


def target_of(kind: Any) -> Target:
    """Return what decodes into a type.

    Raises
    ------
    InvalidRequestError
        Nothing can be decoded into this type.
    """
    if isinstance(kind, type) and get_origin(kind) is None:
        return _kept((kind,))
    # Whatever else is given, even its repr() may do anything.
    if get_origin(kind) is None and type(kind).__module__ not in _TYPE_FORMS and kind is not None:
        raise InvalidRequestError(
            f"Invalid request: into must be a type, not of type {type(kind).__name__}", hint=_HINT
        )
    # A union equals one of the same types in another order, but the first type that fits is taken.
    named = tuple(_named_in(kind))
    try:
        hash(named)
    except TypeError:
        return _made(named)
    return _kept(named)


def _made(named: tuple[Any, ...]) -> Target:
    kind = named[0]
    try:
        return Target(kind, _reader(kind))
    except InvalidRequestError:
        # It names the part of the type that is to blame.
        raise
    # The error of pydantic for a type that it does not know is a RuntimeError.
    except (TypeError, NameError, AttributeError, ValueError, RuntimeError, ImportError) as error:
        raise InvalidRequestError(
            f"Invalid request: into={_name_of(kind)} cannot be decoded into: {_cut(str(error), _LONGEST_REASON)}",
            hint=_HINT,
        ) from None


_kept = lru_cache(maxsize=512)(_made)


def _name_of(kind: Any) -> str:
    plain = isinstance(kind, type) and get_origin(kind) is None
    name = kind.__name__ if plain else re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=\w)", "", repr(kind))
    return _cut(name, _LONGEST_NAME)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _reader(kind: Any) -> Read:
    # pydantic is never imported here: a type of it exists only where its user has imported it.
    if any(_is_of_pydantic(each) or _restricts_for_pydantic(each) for each in _named_in(kind)):
        return _reader_of_pydantic(kind)
    try:
        return _reader_of_msgspec(kind)
    except TypeError:
        # msgspec cannot tell apart the kinds of most unions.
        if get_origin(kind) not in (Union, types.UnionType):
            raise
        return _reader_of_union([target_of(each) for each in get_args(kind)])


def _named_in(kind: Any) -> Iterator[Any]:
    """Yield the types that a type names, such as those of the entries of a list, but not those of its fields."""
    yield kind
    for each in get_args(kind):
        yield from _named_in(each)


def _is_of_pydantic(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


def _restricts_for_pydantic(each: Any) -> bool:
    """Tell whether this is what stands in ``Annotated`` to restrict a type, such as ``Field(gt=0)``."""
    return type(each).__module__.partition(".")[0] in ("pydantic", "annotated_types") and not isinstance(each, type)


def _reader_of_pydantic(kind: Any) -> Read:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - no dependency

    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    if not getattr(adapter, "pydantic_complete", True):
        # Names that it refers to were not defined when it was made. They may be now; else this raises.
        adapter.rebuild(raise_errors=True)

    def read(value: Any) -> Any:
        try:
            return adapter.validate_json(msgspec.json.encode(value))
        except RecursionError:
            raise Misfit(_TOO_DEEP) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
            raise Misfit(first["msg"], f"${place}") from None

    return read


def _reader_of_msgspec(kind: Any) -> Read:
    msgspec.json.Decoder(kind, dec_hook=_convert_foreign)
    # Other classes would be found only when there is a value.
    for each in _classes_in(msgspec.inspect.type_info(kind)):
        if not _is_of_pydantic(each):
            raise TypeError(f"{each.__name__} is not a type with known fields")

    def read(value: Any) -> Any:
        try:
            return msgspec.convert(value, kind, dec_hook=_convert_foreign)
        except msgspec.ValidationError as error:
            return _raise_misfit(str(error))
        except RecursionError:
            raise Misfit(_TOO_DEEP) from None

    return read


def _raise_misfit(text: str) -> Any:
    found = _PLACE.search(text)
    if found is None:
        raise Misfit(text) from None
    # A misfit within a type of pydantic has a place of its own, which comes first.
    inner = _PLACE.search(text[: found.start()])
    if inner is None:
        raise Misfit(text[: found.start()], found[1]) from None
    raise Misfit(text[: inner.start()], found[1] + inner[1].removeprefix("$")) from None


def _convert_foreign(kind: type, value: Any) -> Any:
    """Decode into a type of pydantic inside one of msgspec or the standard library."""
    try:
        return target_of(kind).read(value)
    except Misfit as misfit:
        raise ValueError(str(misfit)) from None


def _classes_in(info: msgspec.inspect.Type) -> Iterator[type]:
    """Yield the classes in a type, and in its fields, that msgspec does not know."""
    seen: set[int] = set()
    left: list[Any] = [info]
    while left:
        each = left.pop()
        if isinstance(each, list | tuple):
            left.extend(each)
        elif isinstance(each, msgspec.inspect.CustomType):
            yield each.cls
        elif isinstance(each, msgspec.inspect.Type | msgspec.inspect.Field) and id(each) not in seen:
            seen.add(id(each))
            left.extend(getattr(each, name) for name in each.__struct_fields__)


def _reader_of_union(targets: list[Target]) -> Read:
    def read(value: Any) -> Any:
        reasons: list[str] = []
        for target in targets:
            try:
                return target.read(value)
            except Misfit as misfit:
                reasons.append(f"not {target.name}: {misfit}")
        raise Misfit("; ".join(reasons))

    return read
