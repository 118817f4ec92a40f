"""The deadline of a call from another thread or loop, which holds even while the manager's loop is blocked."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

from mcp_manager._core.deadlines import Deadline, DeadlineWheel
from mcp_manager.errors import DeadlineExceededError, Delivery
from mcp_manager.runtime.deadline_timer import DeadlineTimer
from mcp_manager.runtime.loop_lag import BLOCKED_S, LATE_HINT

__all__ = ["CallerDeadline", "LoopWheels", "Patience"]

# The loop knows more about the call, so it should report the timeout itself; it is blocked if it is later than this.
_GRACE_NS: Final = round(BLOCKED_S * 1e9)


class CallerDeadline:
    """Bound how long a caller waits for a loop, counted from now.

    Parameters
    ----------
    timeout_s
        Seconds for the whole call, at least 0.
    server_id
        The server of the call, for errors; ``None`` if it is still to be chosen.
    """

    __slots__ = ("_ends_ns", "_server_id", "_timeout_ns", "patience_ends_ns")

    def __init__(self, timeout_s: float, server_id: str | None) -> None:
        self._timeout_ns = int(timeout_s * 1e9)
        self._ends_ns = time.monotonic_ns() + self._timeout_ns
        self.patience_ends_ns: int = self._ends_ns + _GRACE_NS
        self._server_id = server_id

    def left_s(self) -> float:
        """Return the seconds that are left for a call that begins now.

        Raises
        ------
        DeadlineExceededError
            The loop has used them up.
        """
        left_ns = self._ends_ns - time.monotonic_ns()
        if left_ns <= 0 < self._timeout_ns:
            raise self.passed("not_sent")
        return max(0, left_ns) / 1e9

    def patience_s(self) -> float:
        """Return for how many seconds the caller still waits; 0 if it gives up now."""
        return max(0, self.patience_ends_ns - time.monotonic_ns()) / 1e9

    def passed(self, delivery: Delivery) -> DeadlineExceededError:
        """Return the error of a caller that gives up; it is local, since this side was late and not the server."""
        did = "begin" if delivery == "not_sent" else "end"
        error = DeadlineExceededError(
            f"the manager did not {did} the call within its timeout of {self._timeout_ns / 1e9:g} s",
            server_id=self._server_id,
            delivery=delivery,
            hint=LATE_HINT,
        )
        error.is_local = True
        return error


class Patience(Deadline):
    """End the wait for a future when its time is up; ``waiter`` must belong to the loop of the wheel."""

    def __init__(self, waiter: asyncio.Future[None]) -> None:
        super().__init__()
        self._waiter = waiter

    def expired(self) -> None:
        """Wake the waiter, which then checks its call."""
        if not self._waiter.done():
            self._waiter.set_result(None)


class LoopWheels(threading.local):
    """Keep one timer for the loop of each calling thread: a timer per call would add half of a call's cost."""

    _loop: asyncio.AbstractEventLoop | None = None

    def wheel(self, running: asyncio.AbstractEventLoop) -> DeadlineWheel:
        """Return the deadline wheel of the loop that runs on this thread."""
        if self._loop is not running:
            self._loop, self._timer = running, DeadlineTimer()
        return self._timer.wheel
