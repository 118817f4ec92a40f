"""Records that are dicts of plain data, too."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Self, dataclass_transform, get_type_hints

import msgspec

from mcp_manager.serialization.json_schema import first_line, schema_of
from mcp_manager.serialization.records import ForPydantic, ImmutableDict, made_of, plain, schema_of_own

__all__ = ["View"]

_NOTHING: Final[dict[str, Any]] = {}
# With their subclasses: a member of an enumeration may equal its value.
_HASHED: Final = (str, int, float, type(None))


@dataclass_transform(kw_only_default=True, frozen_default=True)
class View(ForPydantic, ImmutableDict):
    """Base of records that are dicts of plain data, too, so that whatever encodes dicts encodes them.

    A subclass declares its fields as a dataclass does, and ``__slots__ = ()``. Attributes and items have the same
    values, except for structs: as items, these are plain data.

    Parameters
    ----------
    structs
        The names of the fields whose values are structs, or ``None``.
    """

    __slots__ = ("_structs",)

    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    _struct_fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, structs: tuple[str, ...] = ()) -> None:
        own = tuple(inspect.get_annotations(cls))
        cls._fields = tuple(dict.fromkeys((*cls._fields, *own)))
        cls._defaults = cls._defaults | {name: cls.__dict__[name] for name in own if name in cls.__dict__}
        cls._struct_fields = (*cls._struct_fields, *structs)
        for name in own:
            setattr(cls, name, property(_struct_reader(name) if name in structs else operator.itemgetter(name)))

    def __init__(self, items: Iterable[tuple[str, Any]] = (), /, **values: Any) -> None:
        if items:
            # What copies a dict makes one of the same class from items, as dataclasses.asdict() does.
            given = self.from_dict({**dict(items), **values})
            values = {name: getattr(given, name) for name in self._fields}
        if tuple(values) != self._fields:
            values = self._completed(values)
        values = {name: ImmutableDict(value) if type(value) is dict else value for name, value in values.items()}
        dict.__init__(self, values)
        if self._struct_fields:
            self._keep_structs(values)

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Self:
        """Make a view of the values of all fields, in their order; unlike the constructor, this checks nothing.

        Keyword arguments would take several times as long.
        """
        view = dict.__new__(cls)
        dict.update(view, values)
        if cls._struct_fields:
            view._keep_structs(values)
        return view

    def _keep_structs(self, values: dict[str, Any]) -> None:
        found = {name: value for name in self._struct_fields if (value := values[name]) is not None}
        self._structs = found or _NOTHING
        for name, value in found.items():
            dict.__setitem__(self, name, ImmutableDict(plain(value)))

    def _completed(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the values of all fields in their order."""
        unknown = given.keys() - set(self._fields)
        missing = [name for name in self._fields if name not in given and name not in self._defaults]
        if unknown or missing:
            what = f"no field {sorted(unknown)[0]!r}" if unknown else f"a value for {missing[0]!r} missing"
            raise TypeError(f"{type(self).__name__} has {what}")
        return {name: given[name] if name in given else self._defaults[name] for name in self._fields}

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as plain data, which can be changed."""
        found: dict[str, Any] = plain(self)
        return found

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return msgspec.json.encode(self)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(value for value in map(self.get, self._fields) if isinstance(value, _HASHED)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    def __copy__(self) -> Self:
        """Return the record itself, because it is immutable."""
        return self

    def __replace__(self, /, **changes: Any) -> Self:
        """Return a record with other values of some fields, as ``copy.replace()`` of Python 3.13 does."""
        return type(self)(**{**{name: getattr(self, name) for name in self._fields}, **changes})

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), {name: getattr(self, name) for name in self._fields})

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Make a record of what :meth:`to_dict` returned; raises ``ValueError`` if that has another shape."""
        read = msgspec.convert(value, _struct_of(cls), dec_hook=made_of)
        return cls(**{name: getattr(read, name) for name in cls._fields})

    @classmethod
    def _json_schema(cls) -> dict[str, Any]:
        schema = schema_of(_struct_of(cls), schema_of_own)
        # All of them are always there.
        return {**schema, "description": first_line(cls), "required": list(cls._fields)}


def _struct_reader(name: str) -> Callable[[View], Any]:
    def read(view: View) -> Any:
        return view._structs.get(name)

    return read


def _made_again(kind: type[View], values: dict[str, Any]) -> View:
    return kind(**values)


_shapes: dict[type[View], type[msgspec.Struct]] = {}


def _struct_of(kind: type[View]) -> type[msgspec.Struct]:
    """Return a struct with the fields of a view, which says to msgspec what they are."""
    struct = _shapes.get(kind)
    if struct is None:
        types = get_type_hints(kind)
        fields = [
            (name, types[name], kind._defaults[name]) if name in kind._defaults else (name, types[name])
            for name in kind._fields
        ]
        struct = _shapes[kind] = msgspec.defstruct(kind.__name__, fields, kw_only=True)
    return struct
