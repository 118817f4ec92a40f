"""The reading of paged lists (2025-11-25, server/utilities/pagination)."""

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
"""The most pages that a list may have."""
MAX_ENTRIES: Final = 1_000_000
"""The most entries that a list may have."""
# All pages together may have this many times the limits of one page.
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

    Cursors are opaque; only an absent one ends the list, an empty string does not. If the server no longer accepts one
    of its cursors because its list has changed, the list is read once more from the start.

    Parameters
    ----------
    server_id
        The server's id, for errors.
    member
        The member of the result that holds the entries, such as ``tools``.
    kind
        The type to decode an entry to.
    fetch
        ``await fetch(cursor)`` returns one page's result; the first cursor is ``None``.
    on_fault
        Called with the kind and detail of every tolerated fault, such as a malformed entry that was left out.
    limits
        The limits on one page.

    Raises
    ------
    ProtocolError
        A page is malformed, a cursor repeats, or the list has more than 10,000 pages, 1,000,000 entries, or four times
        what ``limits`` allow one page.
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
            raise _endless(server_id, f"the pages of {member} never end: a cursor repeats")
        # Counted only now, because most lists have a single page.
        size.add(result)
        # Free its memory while the next page is awaited.
        del result
        if excess := size.excess():
            raise _endless(
                server_id,
                f"the pages of {member} are too large together: {size}, and more",
                hint=f"raise {excess} for this server",
            )
        seen.add(cursor)
        if len(seen) >= MAX_PAGES or len(entries) > MAX_ENTRIES:
            raise _endless(
                server_id, f"the list of {member} is too long: {len(entries)} entries on {len(seen)} pages, and more"
            )


class _Size:
    """The total size of a list's pages."""

    def __init__(self, limits: DecodingLimits) -> None:
        self._most_values = _LARGEST_PAGES * limits.values
        # limits.memory is three times the longest reply, see limits_for().
        self._most_bytes = _LARGEST_PAGES * limits.memory // 3
        self._values = 0
        self._bytes = 0

    def __str__(self) -> str:
        return f"{self._values} values in {self._bytes} bytes"

    def add(self, result: bytes | memoryview) -> None:
        """Add a page."""
        self._values += weigh(result, self._most_values)[0]
        self._bytes += len(result)

    def excess(self) -> str:
        """Return the server setting whose limit is exceeded, or ""."""
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
            # The type is known only at run time.
            [(member, list[kind], msgspec.field(name=first + "".join(map(str.capitalize, rest))))],  # type: ignore[valid-type]
            bases=(_Page,),
            kw_only=True,
            frozen=True,
        )
        _page_types[member, kind] = known
    return known
