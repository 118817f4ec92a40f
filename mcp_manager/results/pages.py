"""The draining of paged lists (2025-11-25, server/utilities/pagination)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from mcp_manager._core.json_weight import weigh
from mcp_manager.errors import ProtocolError, RpcError
from mcp_manager.protocol.json_reading import DEFAULT_LIMITS, DecodingLimits
from mcp_manager.results.large_results import read_result
from mcp_manager.results.reading import FaultTaker
from mcp_manager.results.record import CacheableResult

__all__ = ["MAX_ENTRIES", "MAX_PAGES", "drain_pages"]

MAX_PAGES: Final = 10_000
"""How many pages a list may have."""
MAX_ENTRIES: Final = 1_000_000
"""How many entries a list may have."""
# A list may be so many times what one of its pages may be.
_LARGEST_PAGES: Final = 4
_INVALID_PARAMS: Final = -32602

T = TypeVar("T")


class _Page(CacheableResult, frozen=True, kw_only=True):
    next_cursor: str | None = None


async def drain_pages(
    server_id: str,
    member: str,
    kind: type[T],
    fetch: Callable[[str | None], Awaitable[bytes | memoryview]],
    on_fault: FaultTaker | None = None,
    limits: DecodingLimits = DEFAULT_LIMITS,
) -> list[T]:
    """Fetch all pages of a list.

    Parameters
    ----------
    member
        The member of the result that holds the entries, such as ``tools``.
    kind
        What an entry is decoded as.
    fetch
        ``await fetch(cursor)`` returns one page's result; the first cursor is ``None``.
    on_fault
        ``on_fault(kind, detail)`` is told of entries that are left out, since they are malformed.
    limits
        How much a page may be.

    A cursor is opaque and ends only when it is absent: an empty string is a valid one. When a server does not know a
    cursor of its own any more (its list has changed), the list is read once more from the start.

    Raises
    ------
    ProtocolError
        A page is malformed, the cursors go round in a circle, or the list has more than 10,000 pages, 1,000,000
        entries, or four times as much of anything as ``limits`` allow a page.
    """
    try:
        return await _drain(server_id, member, kind, fetch, on_fault, limits)
    except _CursorRefused:
        pass
    try:
        return await _drain(server_id, member, kind, fetch, on_fault, limits)
    except _CursorRefused as refused:
        raise refused.error from None


class _CursorRefused(Exception):
    def __init__(self, error: RpcError) -> None:
        super().__init__()
        self.error = error


async def _drain(
    server_id: str,
    member: str,
    kind: type[T],
    fetch: Callable[[str | None], Awaitable[bytes | memoryview]],
    on_fault: FaultTaker | None,
    limits: DecodingLimits,
) -> list[T]:
    page_type = _page_type(member, kind)
    entries: list[T] = []
    seen: set[str] = set()
    size = _Size(limits)
    cursor: str | None = None
    while True:
        try:
            result = await fetch(cursor)
        except RpcError as error:
            if cursor is not None and error.code == _INVALID_PARAMS:
                raise _CursorRefused(error) from None
            raise
        page = await read_result(server_id, result, page_type, on_fault, limits)
        entries.extend(getattr(page, member))
        cursor = page.next_cursor
        if cursor is None:
            return entries
        if cursor in seen:
            raise _endless(server_id, f"the pages of {member} never end: a cursor came back")
        # Of the one page that most lists have, nothing needs to be counted.
        size.add(result)
        # Not kept while the next page is waited for.
        del result
        if excess := size.excess():
            raise _endless(
                server_id,
                f"the pages of {member} are too much together: {size}, and more",
                hint=f"raise {excess} for this server",
            )
        seen.add(cursor)
        if len(seen) >= MAX_PAGES or len(entries) > MAX_ENTRIES:
            raise _endless(
                server_id, f"the list of {member} is too long: {len(entries)} entries on {len(seen)} pages, and more"
            )


class _Size:
    """How much the pages of one list are together."""

    def __init__(self, limits: DecodingLimits) -> None:
        self._most_values = _LARGEST_PAGES * limits.values
        # The longest reply is a third of what it may take in memory with its strings.
        self._most_bytes = _LARGEST_PAGES * limits.memory // 3
        self._values = 0
        self._bytes = 0

    def __str__(self) -> str:
        return f"{self._values} values in {self._bytes} bytes"

    def add(self, result: bytes | memoryview) -> None:
        """Count a page."""
        self._values += weigh(result, self._most_values)[0]
        self._bytes += len(result)

    def excess(self) -> str:
        """Return the setting of the server that there is too much for, or ""."""
        if self._values > self._most_values:
            return "max_response_values"
        return "max_response_bytes" if self._bytes > self._most_bytes else ""


def _endless(server_id: str, message: str, *, hint: str = "") -> ProtocolError:
    return ProtocolError(message, server_id=server_id, delivery="answered", hint=hint)


_page_types: dict[tuple[str, Any], type[Any]] = {}


def _page_type(member: str, kind: type[Any]) -> type[Any]:
    known = _page_types.get((member, kind))
    if known is None:
        first, *rest = member.split("_")
        known = msgspec.defstruct(
            f"{kind.__name__}Page",
            # A type that is known only now.
            [(member, list[kind], msgspec.field(name=first + "".join(map(str.capitalize, rest))))],  # type: ignore[valid-type]
            bases=(_Page,),
            kw_only=True,
            frozen=True,
        )
        _page_types[member, kind] = known
    return known
