"""Reads the body of an aiohttp response in pieces, within the read budget of the loop."""

from __future__ import annotations

from typing import Final

import aiohttp

from mcp_manager._core.http_message import MALFORMED, WireError
from mcp_manager.runtime.read_budget import CoroutineReader, ReadBudget
from mcp_manager.transports.http.connections.paced_responses import BrokenFramingError

__all__ = ["PacedContent"]

# aiohttp keeps chunks as they arrived: a thousand bytes may be a thousand chunks to join.
_SMALLEST: Final = 256
_LARGEST: Final = 1 << 18
_LONG_NS: Final = 100_000


class PacedContent:
    """Read a body piece by piece; the time that the caller spends on a piece counts against the budget as well.

    Parameters
    ----------
    content
        The body.
    budget
        The loop's read budget.
    reading
        Waits for time slices.
    """

    __slots__ = ("_began_ns", "_budget", "_content", "_is_full", "_reading", "_size")

    def __init__(self, content: aiohttp.StreamReader, budget: ReadBudget, reading: CoroutineReader) -> None:
        self._content = content
        self._budget = budget
        self._reading = reading
        self._size = 1 << 12
        self._began_ns = 0
        self._is_full = False

    async def read(self) -> bytes:
        """Return the next piece, ``b""`` at the end.

        Raises
        ------
        WireError
            :data:`MALFORMED`: the body's chunks are malformed, or their extensions or trailers too long.
        aiohttp.ClientError, OSError
            The connection broke.
        """
        if self._content.at_eof():
            # The end needs no time slice: a complete reply must not wait while another server floods.
            return b""
        if self._began_ns:
            took_ns = self._budget.clock() - self._began_ns
            if took_ns > _LONG_NS:
                self._size = max(_SMALLEST, self._size // 2)
            elif self._is_full:
                # Only a full piece shows that a larger one may be fast enough.
                self._size = min(_LARGEST, self._size * 2)
            if not self._budget.spend(took_ns):
                await self._reading.next_slice()
        began_ns = self._budget.clock()
        try:
            piece = self._content.read_nowait(self._size)
            if not piece:
                piece = await self._content.read(self._size)
                began_ns = self._budget.clock()
        except BrokenFramingError as error:
            raise WireError(MALFORMED, str(error)) from None
        self._began_ns = began_ns
        self._is_full = len(piece) == self._size
        return piece
