"""How much of what servers send unasked is worked off in one turn of the loop, and who goes on in the next one."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from mcp_manager.runtime.background import bare_context

__all__ = ["FLOOD", "FLOOD_DETAIL", "Reader", "ReadingTurns", "StreamReading", "Waiting", "reading_turns"]

_log = logging.getLogger(__name__)

FLOOD: Final = "a flood of messages"
"""The fault of a server that sends so much that reading from it has to pause for a second or more."""
FLOOD_DETAIL: Final = "reading from it pauses, so that others have their turn"

# What all servers together may take of one turn of the loop, unasked. A call waits for two or three turns.
_TURN_NS: Final = 100_000
# Cost that goes beyond a turn is paid by the next ones, but by no more than these.
_MAX_DEBT_NS: Final = 8 * _TURN_NS
# After a turn that was used up, the loop has this many times as long for other work, if it has any.
_OTHERS: Final = 3
# It has, if it comes back later than this: only to look for news takes less.
_BUSY_NS: Final = 150_000
# Who has been behind for as long floods, and is counted once for every such time.
_FLOOD_NS: Final = 1_000_000_000


class Reader(Protocol):
    """Who reads from a server and has stopped, since this turn is used up."""

    def read_on(self) -> None:
        """Go on reading for as long as :meth:`ReadingTurns.spend` allows."""

    def flooded(self) -> None:
        """Learn that the server floods: reading has had to wait for a second."""


class ReadingTurns:
    """Share out what a loop has time for besides what was asked for: messages that are no replies, and what they cause.

    A reader handles at least one message, and tells what it cost. When the turn is used up it stops reading, so that the
    server is held back by its connection or pipe, and waits for its turn. All readers of a loop share one budget, and take
    turns. A loop with nothing else to do goes on at once; elsewhere a quarter of the time is what floods get.

    Parameters
    ----------
    loop
        Whose turns they are.
    clock
        Monotonic nanoseconds.
    """

    __slots__ = (
        "__weakref__",
        "_behind",
        "_ended_ns",
        "_handle",
        "_left_ns",
        "_loop",
        "_spent_ns",
        "_waiting",
        "clock",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], int] = time.monotonic_ns) -> None:
        # Not to be kept by what is kept for as long as the loop.
        self._loop = weakref.ref(loop)
        self.clock = clock
        self._left_ns = _TURN_NS
        self._spent_ns = 0
        self._waiting: dict[Reader, None] = {}
        # Since when, and when last, a reader had to wait.
        self._behind: dict[Reader, tuple[int, int]] = {}
        self._handle: asyncio.Handle | None = None
        self._ended_ns = 0

    def spend(self, cost_ns: int) -> bool:
        """Take nanoseconds of this turn; tell whether any are left."""
        self._left_ns -= cost_ns
        self._spent_ns += cost_ns
        if self._handle is None:
            self._arm(0.0)
        return self._left_ns > 0

    def wait(self, reader: Reader) -> None:
        """Have a reader read on in its turn, which is the last of those that wait; it must be able to wait.

        Whoever waited must :meth:`leave` before it ends.
        """
        now_ns = self.clock()
        since_ns, last_ns = self._behind.get(reader, (now_ns, now_ns))
        if now_ns - last_ns >= _FLOOD_NS:
            since_ns = now_ns
        if now_ns - since_ns >= _FLOOD_NS:
            since_ns = now_ns
            reader.flooded()
        self._behind[reader] = since_ns, now_ns
        self._waiting[reader] = None
        if self._handle is None:
            self._arm(0.0)

    def leave(self, reader: Reader) -> None:
        """Forget a reader; idempotent."""
        self._behind.pop(reader, None)
        self._waiting.pop(reader, None)
        if not self._waiting and self._handle is not None and self._left_ns == _TURN_NS:
            self._handle.cancel()
            self._handle = None

    def _arm(self, delay_s: float) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            # Everybody's turn, whoever asks for it.
            context = bare_context()
            if delay_s > 0:
                self._handle = loop.call_later(delay_s, self._turn, context=context)
            else:
                self._handle = loop.call_soon(self._turn, context=context)

    def _turn(self) -> None:
        """Begin a turn, with those who waited."""
        self._handle = None
        others_ns = self.clock() - self._ended_ns
        owed_ns = _OTHERS * min(self._spent_ns, _MAX_DEBT_NS) - others_ns
        self._spent_ns = 0
        if self._waiting and others_ns > _BUSY_NS and owed_ns > 0:
            self._arm(owed_ns / 1e9)
            return
        self._left_ns = min(_TURN_NS, max(self._left_ns, -_MAX_DEBT_NS) + _TURN_NS)
        for reader in list(self._waiting):
            if self._left_ns <= 0:
                break
            if reader in self._waiting:
                del self._waiting[reader]
                try:
                    reader.read_on()
                except Exception:
                    # Whoever it is, the others must have their turn.
                    _log.exception("reading on from a server failed")
        self._ended_ns = self.clock()
        if self._waiting and self._handle is None:
            self._arm(0.0)


class Waiting:
    """Call back when its turn comes: ``read_on()``, and ``flooded()`` where it has had to wait for a second."""

    __slots__ = ("flooded", "read_on")

    def __init__(self, read_on: Callable[[], None], flooded: Callable[[], None]) -> None:
        self.read_on = read_on
        self.flooded = flooded


class StreamReading:
    """Let a coroutine that reads wait for its turn.

    Parameters
    ----------
    turns
        Those of its loop.
    on_flood
        Told that the server floods.
    """

    __slots__ = ("_future", "_turns", "flooded")

    def __init__(self, turns: ReadingTurns, on_flood: Callable[[], None] = lambda: None) -> None:
        self._turns = turns
        self._future: asyncio.Future[None] | None = None
        self.flooded = on_flood

    def read_on(self) -> None:
        """See :class:`Reader`."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def turn(self) -> None:
        """Wait for the next turn."""
        self._future = asyncio.get_running_loop().create_future()
        self._turns.wait(self)
        await self._future

    def close(self) -> None:
        """Wait no more; idempotent."""
        self._turns.leave(self)


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ReadingTurns] = weakref.WeakKeyDictionary()


def reading_turns() -> ReadingTurns:
    """Return the turns of the running loop: one budget, however many managers live on it."""
    loop = asyncio.get_running_loop()
    turns = _of_loops.get(loop)
    if turns is None:
        turns = _of_loops[loop] = ReadingTurns(loop)
    return turns
