"""The time that one event loop spends on messages that no caller waits for, in slices that all readers share."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from mcp_manager.runtime.background import bare_context

__all__ = ["FLOOD", "FLOOD_DETAIL", "CallbackReader", "CoroutineReader", "ReadBudget", "Reader", "read_budget"]

_log = logging.getLogger(__name__)

FLOOD: Final = "a flood of messages"
"""The fault of a server that sends so much that reading from it has to pause for a second or more."""
FLOOD_DETAIL: Final = "reading from it pauses, so that other servers get their share"

# What all readers together may use in one slice. A reply that a caller waits for takes two or three event-loop
# iterations.
_SLICE_NS: Final = 100_000
# A slice that cost too much is paid off by later ones, up to this debt.
_MAX_DEBT_NS: Final = 8 * _SLICE_NS
# After a used-up slice, the loop has this many times as long for other work, if it has any.
_OTHERS: Final = 3
# It has other work if it comes back later than this; polling the sockets alone takes less.
_BUSY_NS: Final = 150_000
# A reader that has been behind for this long floods; it is counted once per period.
_FLOOD_NS: Final = 1_000_000_000


class Reader(Protocol):
    """Reads from a server and has stopped because the slice is used up."""

    def read_on(self) -> None:
        """Go on reading for as long as :meth:`ReadBudget.spend` allows."""

    def flooded(self) -> None:
        """Note that the server floods: reading has had to wait for a second."""


class ReadBudget:
    """Limit the time that one event loop spends on unsolicited messages and the work they cause.

    The budget comes in time slices of 100 µs, one per event-loop iteration at the most. All readers of the loop share
    each slice. A reader handles at least one message and reports its cost. When the slice is used up, the reader stops,
    which holds the server back by TCP or pipe backpressure, and waits in line for a later slice. If the loop has
    nothing else to do, the next slice begins in the next iteration; otherwise readers get a quarter of the loop's time.

    Parameters
    ----------
    loop
        The event loop.
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
        # Weak: this is the value in a dictionary whose weak key is the loop.
        self._loop = weakref.ref(loop)
        self.clock: Callable[[], int] = clock
        self._left_ns = _SLICE_NS
        self._spent_ns = 0
        self._waiting: dict[Reader, None] = {}
        # When each reader first had to wait, and when last.
        self._behind: dict[Reader, tuple[int, int]] = {}
        self._handle: asyncio.Handle | None = None
        self._ended_ns = 0

    def spend(self, cost_ns: int) -> bool:
        """Take nanoseconds from this slice; return whether any are left."""
        self._left_ns -= cost_ns
        self._spent_ns += cost_ns
        if self._handle is None:
            self._arm(0.0)
        return self._left_ns > 0

    def wait(self, reader: Reader) -> None:
        """Put a reader at the end of the line for a later slice.

        It must call :meth:`leave` before it ends.
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
        if not self._waiting and self._handle is not None and self._left_ns == _SLICE_NS:
            self._handle.cancel()
            self._handle = None

    def _arm(self, delay_s: float) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            # The slice serves all readers, so it must not run in the context of the one that happens to ask.
            context = bare_context()
            if delay_s > 0:
                self._handle = loop.call_later(delay_s, self._begin_slice, context=context)
            else:
                self._handle = loop.call_soon(self._begin_slice, context=context)

    def _begin_slice(self) -> None:
        self._handle = None
        others_ns = self.clock() - self._ended_ns
        owed_ns = _OTHERS * min(self._spent_ns, _MAX_DEBT_NS) - others_ns
        self._spent_ns = 0
        if self._waiting and others_ns > _BUSY_NS and owed_ns > 0:
            self._arm(owed_ns / 1e9)
            return
        self._left_ns = min(_SLICE_NS, max(self._left_ns, -_MAX_DEBT_NS) + _SLICE_NS)
        for reader in list(self._waiting):
            if self._left_ns <= 0:
                break
            if reader in self._waiting:
                del self._waiting[reader]
                try:
                    reader.read_on()
                except Exception:
                    # One reader's failure must not cost the others their slice.
                    _log.exception("reading on from a server failed")
        self._ended_ns = self.clock()
        if self._waiting and self._handle is None:
            self._arm(0.0)


class CallbackReader:
    """Make a :class:`Reader` from two callbacks."""

    __slots__ = ("flooded", "read_on")

    def __init__(self, read_on: Callable[[], None], flooded: Callable[[], None]) -> None:
        self.read_on: Callable[[], None] = read_on
        self.flooded: Callable[[], None] = flooded


class CoroutineReader:
    """Let a coroutine wait for a time slice.

    Parameters
    ----------
    budget
        The budget of the coroutine's loop.
    on_flood
        Called when the server floods.
    """

    __slots__ = ("_budget", "_future", "flooded")

    def __init__(self, budget: ReadBudget, on_flood: Callable[[], None] = lambda: None) -> None:
        self._budget = budget
        self._future: asyncio.Future[None] | None = None
        self.flooded: Callable[[], None] = on_flood

    def read_on(self) -> None:
        """See :class:`Reader`."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def next_slice(self) -> None:
        """Wait for a later slice."""
        self._future = asyncio.get_running_loop().create_future()
        self._budget.wait(self)
        await self._future

    def close(self) -> None:
        """Stop waiting; idempotent."""
        self._budget.leave(self)


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ReadBudget] = weakref.WeakKeyDictionary()


def read_budget() -> ReadBudget:
    """Return the budget of the running loop, which all managers on the loop share."""
    loop = asyncio.get_running_loop()
    budget = _of_loops.get(loop)
    if budget is None:
        budget = _of_loops[loop] = ReadBudget(loop)
    return budget
