"""Read results: in one pass where every member is known, and member by member where one is not."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from mcp_manager.catalog.content import UnknownContent
from mcp_manager.catalog.record import Extra, Record
from mcp_manager.errors import ProtocolError

__all__ = ["decode_result"]

T = TypeVar("T")

_Path = tuple[str | int, ...]
_Found = list[tuple[_Path, dict[str, Any]]]

# Optional members that mean something else when they are left out: one of the wrong type is no ornament gone wrong.
_ESSENTIAL: Final = frozenset({"nextCursor", "text", "blob"})
# The specification nests six deep. Every level is read once more, so the levels must have an end.
_MAX_DEPTH: Final = 16

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_entries_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode_result(server_id: str, result: bytes | memoryview, kind: type[T]) -> T:
    """Decode a reply's ``result`` as ``kind``.

    Raises
    ------
    ProtocolError
        The result does not have that shape; the message names the place.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    decoded: T
    try:
        try:
            decoded = decoder.decode(result)
        except msgspec.ValidationError:
            if not (isinstance(kind, type) and issubclass(kind, Record)):
                raise
            decoded = _read_by_members(bytes(result), kind, decoder)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(
            f"the result is not a {kind.__name__}: {error}", server_id=server_id, delivery="answered"
        ) from None
    return decoded


def _read_by_members(result: bytes, kind: Any, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Take out what the records do not have, decode the rest, and put it back as their ``extra``."""
    found: _Found = []
    try:
        known = _known_of(msgspec.Raw(result), (kind,), (), found, False)
        record = decoder.decode(msgspec.json.encode(known))
    except msgspec.ValidationError:
        found = []
        known = _known_of(msgspec.Raw(result), (kind,), (), found, True)
        record = decoder.decode(msgspec.json.encode(known))
    for path, extra in found:
        target = record
        for step in path:
            target = target[step] if isinstance(step, int) else getattr(target, step)
        msgspec.structs.force_setattr(target, "extra", Extra(extra))
    return record


class _Member:
    """What is known of one member of a record."""

    __slots__ = ("attribute", "decoder", "default", "is_ornament", "kinds", "tagged")

    def __init__(self, field: msgspec.structs.FieldInfo) -> None:
        self.attribute = field.name
        self.default = field.default is not msgspec.NODEFAULT or field.default_factory is not msgspec.NODEFAULT
        self.is_ornament = field.default is None and field.encode_name not in _ESSENTIAL
        self.kinds = tuple(_records_in(field.type))
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(field.type)


_shapes: dict[type[Record], dict[str, _Member]] = {}


def _shape_of(kind: type[Record]) -> dict[str, _Member]:
    shape = _shapes.get(kind)
    if shape is None:
        fields = msgspec.structs.fields(kind)
        shape = _shapes[kind] = {each.encode_name: _Member(each) for each in fields if each.name != "extra"}
    return shape


def _records_in(kind: Any) -> Iterator[type[Record]]:
    """Yield the kinds of record that a member may hold, alone or in a list."""
    if isinstance(kind, type) and get_origin(kind) is None:
        if issubclass(kind, Record):
            yield kind
    elif get_origin(kind) in (list, Union, types.UnionType):
        for each in get_args(kind):
            yield from _records_in(each)


def _known_of(raw: msgspec.Raw, kinds: tuple[type[Record], ...], path: _Path, found: _Found, check: bool) -> Any:
    """Return what is known of a record, or of a list of them, as members still encoded; ``check`` their types too."""
    if bytes(memoryview(raw)[:1]) == b"[":
        entries = _entries_decoder.decode(raw)
        return [_known_of(entry, kinds, (*path, index), found, check) for index, entry in enumerate(entries)]
    members = _members_decoder.decode(raw)
    kind = _kind_of(members, kinds)
    if kind is UnknownContent:
        found.append((path, {name: msgspec.json.decode(value) for name, value in members.items()}))
        return {"type": "unknown"}
    if len(path) > _MAX_DEPTH:
        raise msgspec.ValidationError("its records are nested too deep")
    shape = _shape_of(kind)
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in members.items():
        member = shape.get(name)
        if member is not None:
            kept = _known_member(member, value, path, found, check) if check or member.kinds else value
            if kept is not None:
                known[name] = kept
                continue
        elif name == kind.__struct_config__.tag_field:
            known[name] = value
            continue
        extra[name] = msgspec.json.decode(value)
    if extra:
        found.append((path, extra))
    return known


def _kind_of(members: dict[str, msgspec.Raw], kinds: tuple[type[Record], ...]) -> type[Record]:
    if len(kinds) == 1:
        return kinds[0]
    tag = msgspec.json.decode(members.get("type", b"null"))
    if not isinstance(tag, str):
        raise msgspec.ValidationError("a block of content has no type")
    return next((kind for kind in kinds if kind.__struct_config__.tag == tag), UnknownContent)


def _known_member(member: _Member, value: msgspec.Raw, path: _Path, found: _Found, check: bool) -> Any:
    """Return a member as it can be decoded, ``None`` for one that only ``extra`` can hold."""
    before = len(found)
    try:
        kept: Any = value
        if member.kinds and bytes(value) != b"null":
            kept = _known_of(value, member.kinds, (*path, member.attribute), found, check)
        if check:
            member.decoder.decode(kept if kept is value else msgspec.json.encode(kept))
    except msgspec.ValidationError:
        if member.is_ornament or (member.default and bytes(value) == b"null"):
            del found[before:]
            return None
        return value
    return kept
