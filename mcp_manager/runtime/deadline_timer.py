"""The one timer of the running loop behind all deadlines of a manager's calls."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from mcp_manager._core.deadlines import DeadlineWheel
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.loop_lag import LoopLag

__all__ = ["DeadlineTimer", "remaining_s"]

# uvloop counts in milliseconds and may be early by one; a visit before its time would only be repeated.
_EARLY_S: Final = 0.001
# How late a visit is after a block, and how many turns the loop has then to read what has come.
_LATE_NS: Final = 50_000_000
_TURNS: Final = 8
# While anything has a deadline, it looks at least this often: so it is known how much of a short one the loop lost.
_GLANCE_NS: Final = 25_000_000


class DeadlineTimer:
    """Visit a wheel of deadlines when the first of them may be due.

    ``wheel`` takes the deadlines, in nanoseconds of :func:`time.monotonic_ns`; it belongs to the running loop. ``lag`` is
    told how late the visits are.
    """

    def __init__(self, lag: LoopLag | None = None) -> None:
        self.lag = lag if lag is not None else LoopLag()
        self.wheel = DeadlineWheel(time.monotonic_ns, self._ask)
        self._handle: asyncio.Handle | None = None
        self._asked_ns = 0

    def close(self) -> None:
        """Lift every deadline and end the timer; idempotent."""
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
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._look, _TURNS, context=bare_context())

    def _look(self, turns: int) -> None:
        """Visit the wheel; after a block not before the loop has read what has come meanwhile: a reply is no silence."""
        now_ns = time.monotonic_ns()
        if turns == _TURNS:
            self.lag.stalled_since(self._asked_ns / 1e9)
        if turns and now_ns - self._asked_ns > _LATE_NS:
            # uvloop calls its timers before it looks at its sockets, and a long reply takes more than one look.
            self._handle = asyncio.get_running_loop().call_soon(self._look, turns - 1)
            return
        self._handle = None
        self.wheel.visit(now_ns)


def remaining_s(deadline_ns: int) -> float | None:
    """Return how many seconds are left, 0 at the least; ``None`` where ``deadline_ns`` is 0, which means no deadline."""
    return max(0, deadline_ns - time.monotonic_ns()) / 1e9 if deadline_ns else None
