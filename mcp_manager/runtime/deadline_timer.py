"""The single event-loop timer behind the deadlines of all calls of a manager."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from mcp_manager._core.deadlines import DeadlineWheel
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.loop_lag import LoopLag

__all__ = ["DeadlineTimer", "remaining_s"]

# uvloop counts in milliseconds and may fire one early; an early visit would only have to be repeated.
_EARLY_S: Final = 0.001
# A visit this late follows a block of the loop. It is put off by this many iterations, so that the loop reads first
# what has arrived.
_LATE_NS: Final = 50_000_000
_PUT_OFF: Final = 8
# The longest time between two visits while there are deadlines: it measures how much of a short deadline the loop lost.
_GLANCE_NS: Final = 25_000_000


class DeadlineTimer:
    """Visit a timing wheel of deadlines when the first of them may be due.

    Parameters
    ----------
    lag
        Records how late the visits are; a new one by default.

    ``wheel`` takes the deadlines, in nanoseconds of :func:`time.monotonic_ns`; it belongs to the running loop.
    """

    def __init__(self, lag: LoopLag | None = None) -> None:
        self.lag: LoopLag = lag if lag is not None else LoopLag()
        self.wheel: DeadlineWheel = DeadlineWheel(time.monotonic_ns, self._ask)
        self._handle: asyncio.Handle | None = None
        self._asked_ns = 0

    def close(self) -> None:
        """Cancel every deadline and the timer; idempotent."""
        self.wheel.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ask(self, at_ns: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        now_ns = time.monotonic_ns()
        self._asked_ns = min(at_ns, now_ns + _GLANCE_NS)
        delay_s = max(0, self._asked_ns - now_ns) / 1e9 + _EARLY_S
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._look, _PUT_OFF, context=bare_context())

    def _look(self, left: int) -> None:
        """Visit the wheel; after a block, first let the loop read for ``left`` iterations: a reply may have arrived."""
        now_ns = time.monotonic_ns()
        if left == _PUT_OFF:
            self.lag.stalled_since(self._asked_ns / 1e9)
        if left and now_ns - self._asked_ns > _LATE_NS:
            # uvloop calls its timers before it polls its sockets, and a long reply takes more than one poll.
            self._handle = asyncio.get_running_loop().call_soon(self._look, left - 1)
            return
        self._handle = None
        self.wheel.visit(now_ns)


def remaining_s(deadline_ns: int) -> float | None:
    """Return the seconds until a deadline, at least 0; ``None`` if ``deadline_ns`` is 0, which means no deadline."""
    return max(0, deadline_ns - time.monotonic_ns()) / 1e9 if deadline_ns else None
