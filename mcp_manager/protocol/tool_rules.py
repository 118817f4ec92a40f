"""The rules for the tools of a server: which of them may be listed and called."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from mcp_manager._core.mending import without_lone_surrogates
from mcp_manager.config.tools import ALL_TOOLS, ToolsConfig, is_pattern
from mcp_manager.errors import ToolNotAllowedError
from mcp_manager.protocol.json_reading import DecodingLimits, JsonDecoder
from mcp_manager.protocol.methods import CALL_TOOL

__all__ = [
    "ToolPage",
    "ToolRules",
    "UnclearToolError",
    "check_request",
    "not_allowed",
    "permitted_page",
    "rules_of",
    "tool_called",
    "unmatched",
]

# Longer names are forbidden: a tool's name has at most 128 characters (2025-11-25, server/tools, tool names).
_LONGEST_NAME: Final = 1024
# Of a longer list, patterns are not compared with the names.
_MOST_NAMES: Final = 5_000
# Decisions remembered per set of rules.
_REMEMBERED: Final = 1024
_MOST_MEMBERS: Final = 64
_SHOWN: Final = 80
_UNCLEAR_HINT: Final = "the server's tools setting is checked: send each member of params once, name as a string"
_KEY: Final = re.compile(rb'[ \t\n\r]*"(?:[^"\\]|\\.)*"[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_NEXT: Final = re.compile(rb"[ \t\n\r]*[,}]")
_HALF: Final = "\ufffd"
"""What half a surrogate pair is read as."""

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)
_members_reader = JsonDecoder(dict[str, msgspec.Raw])
_entries_reader = JsonDecoder(list[msgspec.Raw])
_NONE: Final = msgspec.Raw(b"[]")
_NULL: Final = msgspec.Raw(b"null")


class _Entry(msgspec.Struct):
    name: str


_entry_reader = JsonDecoder(_Entry)


class ToolPage(NamedTuple):
    """The result of a ``tools/list`` without the forbidden tools.

    Parameters
    ----------
    result
        The result; ``None`` if nothing had to be left out.
    names
        The names of all tools that were in it, forbidden ones included.
    has_more
        Whether there is another page.
    """

    result: bytes | None
    names: list[str]
    has_more: bool


class UnclearToolError(ValueError):
    """Servers may differ in which tool they would call for these params; the text says why."""


class ToolRules:
    """Decide which tools of a server may be listed and called.

    Parameters
    ----------
    config
        The names and patterns. Each is compiled once.
    """

    __slots__ = ("_allowed", "_denied", "_reasons", "config")

    def __init__(self, config: ToolsConfig) -> None:
        self.config: ToolsConfig = config
        self._allowed = None if config.allow is None else _Names(config.allow)
        self._denied = _Names(config.deny)
        # By name, so that a call costs a look-up.
        self._reasons: dict[str, str] = {}

    def permits(self, name: str) -> bool:
        """Tell whether a tool may be listed and called."""
        return not self.reason(name)

    def reason(self, name: str) -> str:
        """Return why a tool is forbidden, and by which setting; "" if it is permitted.

        A name that no tool should have is always forbidden, because some servers read another name in it.
        """
        reason = self._reasons.get(name)
        if reason is None:
            reason = self._find_reason(name)
            if len(self._reasons) >= _REMEMBERED:
                self._reasons.clear()
            if len(name) <= _LONGEST_NAME:
                self._reasons[name] = reason
        return reason

    def _find_reason(self, name: str) -> str:
        if not name or len(name) > _LONGEST_NAME:
            return f"tools permits names of 1 to {_LONGEST_NAME} characters"
        if not name.isprintable() or name != name.strip():
            return "tools permits no white space around a name, and no characters in it that cannot be printed"
        pattern = self._denied.first_match(name)
        if pattern is not None:
            return f"tools.deny has {pattern!r}"
        if self._allowed is not None and self._allowed.first_match(name) is None:
            return "tools.allow does not have it"
        return ""


class _Names:
    """Names, and glob patterns for names."""

    __slots__ = ("_any", "_globs", "_names")

    def __init__(self, patterns: Iterable[str]) -> None:
        given = tuple(dict.fromkeys(patterns))
        self._names = frozenset(each for each in given if not is_pattern(each))
        self._globs = [each for each in given if is_pattern(each)]
        # One group for each pattern: the last one that took part is the one that matched.
        self._any = re.compile("|".join(f"({fnmatch.translate(each)})" for each in self._globs))

    def first_match(self, name: str) -> str | None:
        """Return the name or the first pattern that matches; ``None`` without one."""
        if name in self._names:
            return name
        found = self._any.match(name) if self._globs else None
        return None if found is None or found.lastindex is None else self._globs[found.lastindex - 1]


@lru_cache(maxsize=256)
def rules_of(config: ToolsConfig) -> ToolRules | None:
    """Return the compiled rules of a configuration, ``None`` if it permits every tool."""
    return None if config == ALL_TOOLS else ToolRules(config)


def not_allowed(server_id: str, tool: str, rules: ToolRules) -> ToolNotAllowedError:
    """Make the error for a forbidden tool of a server; ``rules`` are those that forbid it."""
    text = f"tool {tool[:_SHOWN]!r} is forbidden by the configuration"
    return ToolNotAllowedError(text, server_id=server_id, hint=rules.reason(tool))


def check_request(server_id: str, rules: ToolRules, method: str, params: bytes | None) -> str | None:
    """Return the tool that a request calls, ``None`` if it calls none.

    Raises
    ------
    ToolNotAllowedError
        The rules forbid the tool, or the request does not say clearly which one it is.
    """
    if method != CALL_TOOL:
        if resembles_tool_call(method):
            text = f"method {method[:_SHOWN]!r} is not tools/call, but some servers may take it for that"
            raise ToolNotAllowedError(text, server_id=server_id, hint="the server has tool rules (tools)")
        return None
    try:
        tool = tool_called(params)
    except UnclearToolError as unclear:
        text = f"the request does not say clearly which tool it calls: {unclear}"
        raise ToolNotAllowedError(text, server_id=server_id, hint=_UNCLEAR_HINT) from None
    if not rules.permits(tool):
        raise not_allowed(server_id, tool, rules)
    return tool


def unmatched(patterns: Iterable[str], names: Collection[str]) -> set[str]:
    """Return the names and patterns that match none of the names; of a very long list, only the names are compared."""
    listed = frozenset(each for each in names if len(each) <= _LONGEST_NAME)
    found: set[str] = set()
    for pattern in patterns:
        if not is_pattern(pattern):
            is_there = pattern in listed
        else:
            matches = re.compile(fnmatch.translate(pattern)).match
            is_there = len(listed) > _MOST_NAMES or any(map(matches, listed))
        if not is_there:
            found.add(pattern)
    return found


@lru_cache(maxsize=256)
def resembles_tool_call(method: str) -> bool:
    """Tell whether some servers may take a method that is not ``tools/call`` for it, such as ``TOOLS/CALL``."""
    shown = "".join(char for char in method if char.isprintable() and not char.isspace())
    return method != CALL_TOOL and shown.casefold() == CALL_TOOL


def tool_called(params: bytes | None) -> str:
    """Return the tool that the params of a ``tools/call`` name, if every server reads the same name in them.

    Raises
    ------
    UnclearToolError
        They are no object, have a member twice or more than 64 members besides ``_meta``, have no ``name`` or one that
        is no text, or have a ``name`` in other letters, such as ``Name``, which some servers take for the same.
    """
    if params is None or not params.startswith(b"{"):
        raise UnclearToolError("params is not an object")
    members, params = _members_of(params)
    # Not counted: `_meta`, which is added to params that were checked before.
    if len(members) - ("_meta" in members) > _MOST_MEMBERS:
        raise UnclearToolError(f"params has more than {_MOST_MEMBERS} members")
    for member in members:
        if member != "name" and (member.casefold() == "name" or _HALF in member):
            raise UnclearToolError(f"params has a member {member!r}, which some servers may take for 'name'")
    try:
        name = _text_decoder.decode(members.get("name", b"null"))
    except msgspec.DecodeError:
        raise UnclearToolError("params has no name, or one that is not a string") from None
    if _HALF in name:
        raise UnclearToolError("the name has half a surrogate pair or U+FFFD in it")
    # If the members, written once each, give the same text, then none of them is in it twice.
    if msgspec.json.encode(members) != params and not _has_each_once(params, members):
        raise UnclearToolError("params has a member twice")
    return name


def _members_of(params: bytes) -> tuple[dict[str, msgspec.Raw], bytes]:
    """Return the members of an object, and the text they were read from, in which half surrogate pairs are replaced."""
    try:
        try:
            return _members_decoder.decode(params), params
        except msgspec.DecodeError:
            whole = bytes(without_lone_surrogates(params))
            return _members_decoder.decode(whole), whole
    except (msgspec.DecodeError, RecursionError):
        raise UnclearToolError("params cannot be decoded") from None


def _has_each_once(text: bytes, members: dict[str, msgspec.Raw]) -> bool:
    """Tell whether the text of an object consists of exactly these members, in their order."""
    at = 1
    for name, raw in members.items():
        key = _KEY.match(text, at)
        value = bytes(raw)
        if key is None or text[key.end() : key.end() + len(value)] != value:
            return False
        if _text_decoder.decode(key[0].strip(b" \t\n\r").rstrip(b": \t\n\r")) != name:
            return False
        end = _NEXT.match(text, key.end() + len(value))
        if end is None:
            return False
        at = end.end()
    return at == len(text)


def permitted_page(result: bytes | memoryview, rules: ToolRules, limits: DecodingLimits) -> ToolPage:
    """Leave the forbidden tools out of the result of a ``tools/list``.

    All other members, and the permitted entries, stay byte for byte. An entry without a name that can be read is left
    out too.

    Raises
    ------
    TooMuchToDecodeError
        The result exceeds ``limits``.
    msgspec.DecodeError
        It is no object, or its ``tools`` is no array.
    RecursionError
        It is nested too deeply.
    """
    members = _members_reader.decode(result, limits=limits)
    entries = _entries_reader.decode(members.get("tools", _NONE), limits=None)
    has_more = bytes(members.get("nextCursor", _NULL)) != b"null"
    kept: list[msgspec.Raw] = []
    names: list[str] = []
    for entry in entries:
        try:
            name = _entry_reader.decode(entry, limits=None).name
        except (msgspec.DecodeError, RecursionError):
            continue
        names.append(name)
        if rules.permits(name):
            kept.append(entry)
    if len(kept) == len(entries):
        return ToolPage(None, names, has_more)
    members["tools"] = msgspec.Raw(msgspec.json.encode(kept))
    return ToolPage(msgspec.json.encode(members), names, has_more)
