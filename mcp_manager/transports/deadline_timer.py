"""The one timer of the running loop behind all deadlines of a manager's calls."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from mcp_manager._core.deadlines import DeadlineWheel

__all__ = ["DeadlineTimer", "remaining_s"]

# uvloop counts in milliseconds and may be early by one; a visit before its time would only be repeated.
_EARLY_S: Final = 0.001


class DeadlineTimer:
    """Visit a wheel of deadlines when the first of them may be due.

    ``wheel`` takes the deadlines, in nanoseconds of :func:`time.monotonic_ns`; it belongs to the running loop.
    """

    def __init__(self) -> None:
        self.wheel = DeadlineWheel(time.monotonic_ns, self._ask)
        self._handle: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Lift every deadline and end the timer; idempotent."""
        self.wheel.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ask(self, at_ns: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        delay_s = max(0, at_ns - time.monotonic_ns()) / 1e9 + _EARLY_S
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._visit)

    def _visit(self) -> None:
        self._handle = None
        self.wheel.visit(time.monotonic_ns())


def remaining_s(deadline_ns: int) -> float | None:
    """Return how many seconds are left, 0 at the least; ``None`` where ``deadline_ns`` is 0, which means no deadline."""
    return max(0, deadline_ns - time.monotonic_ns()) / 1e9 if deadline_ns else None
