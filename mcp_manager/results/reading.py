"""Lenient decoding of results: in one pass if every member is known, else member by member."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from mcp_manager._core.mending import says_default
from mcp_manager.errors import ProtocolError
from mcp_manager.protocol.json_reading import DEFAULT_LIMITS, DecodingLimits, JsonDecoder, TooMuchToDecodeError
from mcp_manager.results.content import UnknownContent
from mcp_manager.results.origin import Origin, Path
from mcp_manager.results.record import Extra, Record

__all__ = ["FaultTaker", "decode_result"]

T = TypeVar("T")

FaultTaker = Callable[[str, str], None]
"""``take(kind, detail)`` counts a tolerated fault."""

LEFT_OUT: Final = "a malformed entry was left out"
ODD_BLOCK: Final = "a malformed content block"
ODD_MEMBER: Final = "a member of another type than specified"

# Optional members whose absence has a meaning, so that one of a wrong type must not be dropped.
_ESSENTIAL: Final = frozenset({"nextCursor", "text", "blob"})
# The specification nests records six deep. Every level is decoded again, so their number needs a limit.
_MAX_DEPTH: Final = 16
_QUOTED: Final = 200
# A result with more faults is refused instead of repaired.
_MAX_FAULTS: Final = 1000
_TRUTH: Final = {b'"true"': b"true", b"1": b"true", b'"false"': b"false", b"0": b"false"}

_members_decoder = JsonDecoder(dict[str, msgspec.Raw])
_entries_decoder = JsonDecoder(list[msgspec.Raw])
_any_decoder: JsonDecoder[Any] = JsonDecoder(Any)
_decoders: dict[Any, JsonDecoder[Any]] = {}


def decode_result(
    server_id: str,
    result: bytes | memoryview,
    kind: type[T],
    on_fault: FaultTaker | None = None,
    limits: DecodingLimits = DEFAULT_LIMITS,
) -> T:
    """Decode a reply's ``result``, tolerating faults where possible.

    An entry of a list without the specified shape is left out; such a content block becomes :class:`UnknownContent`.

    Parameters
    ----------
    server_id
        The server's id, for errors.
    result
        The JSON text.
    kind
        The type to decode to.
    on_fault
        Called with the kind and detail of every tolerated fault.
    limits
        The limits on the result.

    Raises
    ------
    ProtocolError
        The result does not have the shape of ``kind``; the message names the place. Or it exceeds the limits.
    """
    decoder = _decoder_of(kind)
    mended: list[str] = []
    reading: _Reading | None = None
    decoded: T
    try:
        try:
            decoded = decoder.decode(result, mended, limits)
        except msgspec.ValidationError:
            if not (isinstance(kind, type) and issubclass(kind, Record)):
                raise
            decoded, reading = _read_by_members(result, kind, mended)
    except TooMuchToDecodeError as error:
        raise ProtocolError(
            f"the result is too large to decode: {error}",
            server_id=server_id,
            delivery="answered",
            hint=f"use execute_raw, which returns it undecoded, or raise {error.setting} for this server",
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(
            f"the result is not a {kind.__name__}: {error or 'it is nested too deeply'}",
            server_id=server_id,
            delivery="answered",
        ) from None
    if isinstance(decoded, Record) and (mended or reading is not None or _forgets(type(decoded), result)):
        _remember_origin(decoded, Origin(result), reading.kept if reading is not None else {})
    if on_fault is not None and (mended or reading is not None):
        for fault in dict.fromkeys(mended):
            on_fault(fault, kind.__name__)
        for fault, detail in reading.faults if reading is not None else ():
            on_fault(fault, detail)
    return decoded


def _decoder_of(kind: Any) -> JsonDecoder[Any]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = JsonDecoder(kind)
    return decoder


def _read_by_members(result: bytes | memoryview, kind: Any, mended: list[str]) -> tuple[Any, _Reading]:
    """Remove unknown members, decode the rest, and put the removed ones into ``extra``."""
    decoder = _decoder_of(kind)
    try:
        reading = _Reading(mended, check=False)
        record = decoder.decode(
            msgspec.json.encode(reading.known_of(msgspec.Raw(result), (kind,), ())), mended, limits=None
        )
    except msgspec.ValidationError:
        reading = _Reading(mended, check=True)
        record = decoder.decode(
            msgspec.json.encode(reading.known_of(msgspec.Raw(result), (kind,), ())), mended, limits=None
        )
    for path, extra in reading.found:
        target = record
        for step in path:
            target = target[step] if isinstance(step, int) else getattr(target, step)
        msgspec.structs.force_setattr(target, "extra", Extra(extra))
    return record, reading


def _read_plain(kind: type[T], text: bytes) -> T:
    try:
        return decode_result("", text, kind)
    except ProtocolError as error:
        raise ValueError(error.message) from None


Record._reader = staticmethod(_read_plain)


class _Member:
    """The properties of one member of a kind of record."""

    __slots__ = ("attribute", "decoder", "default", "holds_truth", "is_list", "is_ornament", "kinds", "name")

    def __init__(self, field: msgspec.structs.FieldInfo) -> None:
        self.attribute = field.name
        self.name = field.encode_name
        self.default = field.default is not msgspec.NODEFAULT or field.default_factory is not msgspec.NODEFAULT
        self.is_ornament = field.default is None and field.encode_name not in _ESSENTIAL
        self.kinds = tuple(_records_in(field.type))
        self.is_list = get_origin(field.type) is list
        self.holds_truth = field.type is bool
        self.decoder: JsonDecoder[Any] = JsonDecoder(field.type)


_shapes: dict[type[Record], dict[str, _Member]] = {}


def _shape_of(kind: type[Record]) -> dict[str, _Member]:
    shape = _shapes.get(kind)
    if shape is None:
        fields = msgspec.structs.fields(kind)
        shape = _shapes[kind] = {each.encode_name: _Member(each) for each in fields if each.name != "extra"}
    return shape


def _records_in(kind: Any) -> Iterator[type[Record]]:
    """Yield the kinds of record that a member may hold, as its value or in a list."""
    if isinstance(kind, type) and get_origin(kind) is None:
        if issubclass(kind, Record):
            yield kind
    elif get_origin(kind) in (list, Union, types.UnionType):
        for each in get_args(kind):
            yield from _records_in(each)


def _first_byte(raw: msgspec.Raw) -> bytes:
    return bytes(memoryview(raw)[:1])


class _Reading:
    """One reading of a result, member by member.

    ``found`` lists the members that belong into ``extra``, with the path of their record; ``faults`` lists kind and
    detail of every tolerated fault; ``kept`` has the original indexes of the remaining entries of a list, by its path.

    Parameters
    ----------
    mended
        Receives the faults that decoders tolerated.
    check
        Whether to check the types of members and to repair wrong ones; otherwise the first wrong one raises an error.
    """

    def __init__(self, mended: list[str], *, check: bool) -> None:
        self._mended = mended
        self._check = check
        self.found: list[tuple[Path, dict[str, Any]]] = []
        self.faults: list[tuple[str, str]] = []
        self.kept: dict[Path, list[int | None]] = {}

    def known_of(self, raw: msgspec.Raw, kinds: tuple[type[Record], ...], path: Path) -> Any:
        """Return the known members of a record, still encoded."""
        if _first_byte(raw) == b"[":
            return [
                self.known_of(entry, kinds, (*path, index))
                for index, entry in enumerate(_entries_decoder.decode(raw, self._mended, limits=None))
            ]
        members = _members_decoder.decode(raw, self._mended, limits=None)
        kind = self._kind_of(members, kinds)
        if kind is UnknownContent:
            return self._unknown(path, {name: self._plain(value) for name, value in members.items()})
        if len(path) > _MAX_DEPTH:
            raise msgspec.ValidationError("its records are nested too deeply")
        shape = _shape_of(kind)
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in members.items():
            member = shape.get(name)
            if member is not None:
                kept = self._known_member(member, value, path) if self._check or member.kinds else value
                if kept is not None:
                    known[name] = kept
                    continue
            elif name == kind.__struct_config__.tag_field:
                known[name] = value
                continue
            extra[name] = self._plain(value)
        if extra:
            self.found.append((path, extra))
        return known

    def _plain(self, raw: msgspec.Raw) -> Any:
        return _any_decoder.decode(raw, self._mended, limits=None)

    def _unknown(self, path: Path, members: dict[str, Any]) -> dict[str, Any]:
        self.found.append((path, members))
        return {"type": "unknown"}

    def _kind_of(self, members: dict[str, msgspec.Raw], kinds: tuple[type[Record], ...]) -> type[Record]:
        if len(kinds) == 1:
            return kinds[0]
        tag = self._plain(members.get("type", msgspec.Raw(b"null")))
        if not isinstance(tag, str):
            raise msgspec.ValidationError("a block of content has no type")
        return next((kind for kind in kinds if kind.__struct_config__.tag == tag), UnknownContent)

    def _known_member(self, member: _Member, value: msgspec.Raw, path: Path) -> Any:
        """Return a member in a form that can be decoded, ``None`` for one that goes into ``extra``."""
        found, faults = len(self.found), len(self.faults)
        place = (*path, member.attribute)
        is_null = bytes(value) == b"null"
        try:
            kept: Any = value
            if member.kinds and not is_null:
                if self._check and member.is_list:
                    return self._entries(member, value, place)
                kept = self._alone(member, value, place)
            if self._check:
                member.decoder.decode(kept if kept is value else msgspec.json.encode(kept), self._mended, limits=None)
        except msgspec.ValidationError as error:
            del self.faults[faults:]
            if is_null and member.is_list and not member.default:
                self._fault(ODD_MEMBER, place, error)
                return []
            if member.holds_truth and bytes(value) in _TRUTH:
                self._fault(ODD_MEMBER, place, error)
                return msgspec.Raw(_TRUTH[bytes(value)])
            if member.is_ornament or (member.default and is_null):
                if not is_null:
                    self._fault(ODD_MEMBER, place, error)
                del self.found[found:]
                return None
            return value
        return kept

    def _alone(self, member: _Member, value: msgspec.Raw, place: Path) -> Any:
        """Return the known members of the record, or records, that a member holds."""
        if not self._check or UnknownContent not in member.kinds or _first_byte(value) == b"[":
            return self.known_of(value, member.kinds, place)
        return self._entry(value, member.kinds, place)

    def _entries(self, member: _Member, value: msgspec.Raw, place: Path) -> list[Any]:
        """Return the known members of a list's entries, without malformed entries."""
        is_content = UnknownContent in member.kinds
        if is_content and _first_byte(value) in (b"{", b'"'):
            # A single block instead of a list of them.
            self.faults.append((ODD_MEMBER, f"{_shown(place)} is not a list"))
            self.kept[place] = [None]
            return [self._entry(value, member.kinds, (*place, 0))]
        entries: list[Any] = []
        kept: list[int | None] = []
        for index, raw in enumerate(_entries_decoder.decode(value, self._mended, limits=None)):
            found, faults = len(self.found), len(self.faults)
            try:
                entries.append(self._entry(raw, member.kinds, (*place, len(entries))))
            except msgspec.ValidationError as error:
                if member.is_ornament:
                    raise
                del self.found[found:], self.faults[faults:]
                self._fault(LEFT_OUT, (*place, index), error)
            else:
                kept.append(index)
        if len(kept) != len(entries) or kept != list(range(len(kept))):
            self.kept[place] = kept
        return entries

    def _entry(self, raw: msgspec.Raw, kinds: tuple[type[Record], ...], place: Path) -> Any:
        """Return the known members of an entry; raises ``ValidationError`` for a malformed one."""
        found, faults = len(self.found), len(self.faults)
        try:
            if _first_byte(raw) == b"[":
                raise msgspec.ValidationError("Expected `object`, got `array`")
            known = self.known_of(raw, kinds, place)
            kind = self._kind_of({"type": msgspec.Raw(msgspec.json.encode(known.get("type")))}, kinds)
            _decoder_of(kind).decode(msgspec.json.encode(known), self._mended, limits=None)
        except msgspec.ValidationError as error:
            if UnknownContent not in kinds:
                raise
            del self.found[found:], self.faults[faults:]
            self._fault(ODD_BLOCK, place, error)
            return self._odd_block(self._plain(raw), place)
        return known

    def _odd_block(self, block: Any, place: Path) -> dict[str, Any]:
        if isinstance(block, str):
            return {"type": "text", "text": block}
        return self._unknown(place, block if isinstance(block, dict) else {"value": block})

    def _fault(self, kind: str, place: Path, error: Exception) -> None:
        if len(self.faults) >= _MAX_FAULTS:
            if kind == ODD_MEMBER:
                # Harmless by itself: tolerated, but no longer counted.
                return
            raise msgspec.ValidationError("too much of it is malformed")
        self.faults.append((kind, f"{_shown(place)}: {error}"[:_QUOTED]))


def _shown(path: Path) -> str:
    """Format a path as msgspec does in its errors."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _forgets(kind: type[Record], text: bytes | memoryview) -> bool:
    """Tell whether a text may contain members with their default values, which the record would not write again."""
    # A view is part of a whole reply: search all of that, to avoid a copy.
    whole: Any = text.obj if isinstance(text, memoryview) else text
    return says_default(whole if isinstance(whole, bytes) else bytes(text), _names_in(kind))


def _names_in(kind: type[Record]) -> frozenset[bytes]:
    """Return the names on the wire of all members of a kind of record, and of the records in it."""
    names = _names.get(kind)
    if names is None:
        kinds, left = {kind}, [kind]
        while left:
            inside = {each for member in _shape_of(left.pop()).values() for each in member.kinds} - kinds
            kinds |= inside
            left += inside
        names = _names[kind] = frozenset(name.encode() for each in kinds for name in _shape_of(each))
    return names


_names: dict[type[Record], frozenset[bytes]] = {}
_holders: dict[type[Record], tuple[tuple[str, str], ...]] = {}


def _holders_of(kind: type[Record]) -> tuple[tuple[str, str], ...]:
    """Return the members that hold records: the attribute and the name on the wire of each."""
    holders = _holders.get(kind)
    if holders is None:
        members = _shape_of(kind).values()
        holders = _holders[kind] = tuple((each.attribute, each.name) for each in members if each.kinds)
    return holders


def _remember_origin(record: Record, origin: Origin, kept: dict[Path, list[int | None]]) -> None:
    """Record in a record, and in all records inside it, its origin and path."""

    def tell(record: Record, place: Path, path: Path) -> None:
        record._came_from(origin, path)
        for attribute, name in _holders_of(type(record)):
            value = getattr(record, attribute)
            if value is None:
                continue
            inner_place, inner_path = (*place, attribute), (*path, name)
            if not isinstance(value, list):
                tell(value, inner_place, inner_path)
                continue
            indexes = kept.get(inner_place) if kept else None
            for index, entry in enumerate(value):
                before = index if indexes is None else indexes[index]
                if before is not None:
                    tell(entry, (*inner_place, index), (*inner_path, before))

    tell(record, (), ())
