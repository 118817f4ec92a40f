"""Progress reports for callers on other threads and loops than the manager's: each is told where it waits."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Final

from mcp_manager.session.progress import ProgressCallback, ProgressReports

__all__ = ["LoopReports", "ThreadReports"]

_log = logging.getLogger(__name__)

# As on the manager's own loop: newer reports make the oldest obsolete.
_MAX_WAITING: Final = 256
# A call without a deadline of its caller ends by itself; its reports must not keep it for longer than this.
_DELIVERY_S: Final = 30.0

Report = tuple[float, float | None, str | None]


class CallbackLog:
    """Log what progress callbacks raise."""

    def log(self, what: str, error: Exception) -> None:
        """Log an exception and what failed."""
        _log.error("%s", what, exc_info=error, extra={"event": "callback_failed", "error": str(error)})


class ThreadReports:
    """Call a callback on the thread that waits for its call, which the callback may therefore block.

    It takes the place of the lock that the thread waits for: :meth:`acquire` also delivers the reports.

    Parameters
    ----------
    callback
        See :data:`ProgressCallback`.
    wait_for
        Waits for the awaitable that a callback returns.
    ends_ns
        When the thread gives up, a time of :func:`time.monotonic_ns`: no callback is called after that. ``None`` if the
        call ends by itself.
    """

    def __init__(
        self, callback: ProgressCallback, wait_for: Callable[[Awaitable[None]], None], ends_ns: int | None = None
    ) -> None:
        self._callback = callback
        self._wait_for = wait_for
        self._ends_ns = ends_ns
        self._reports: deque[Report] = deque(maxlen=_MAX_WAITING)
        self._news = threading.Event()
        self._is_over = False

    def put(self, progress: float, total: float | None, message: str | None) -> None:
        """Take a report, on the manager's loop."""
        self._reports.append((progress, total, message))
        self._news.set()

    def release(self) -> None:
        """Tell that the call is over, on the manager's loop."""
        self._is_over = True
        self._news.set()

    def acquire(self, timeout: float) -> bool:
        """Deliver what has come within ``timeout`` seconds; return whether the call is over."""
        if not self._news.wait(timeout):
            return False
        self._news.clear()
        # Read first: no report follows it.
        is_over = self._is_over
        while self._reports:
            if self._ends_ns is not None and time.monotonic_ns() > self._ends_ns:
                break
            self._deliver(self._reports.popleft())
        return is_over

    def _deliver(self, report: Report) -> None:
        try:
            outcome = self._callback(*report)
            if inspect.isawaitable(outcome):
                self._wait_for(outcome)
        except Exception as error:
            CallbackLog().log("the progress callback of a call failed", error)


class LoopReports:
    """Call a callback on the loop that awaits its call, if that is not the manager's loop.

    Create it on the caller's loop.
    """

    def __init__(self, callback: ProgressCallback) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._reports = ProgressReports(callback, CallbackLog())

    def put(self, progress: float, total: float | None, message: str | None) -> None:
        """Take a report, on the manager's loop."""
        with contextlib.suppress(RuntimeError):
            # The caller's loop may be closed by now.
            self._loop.call_soon_threadsafe(self._reports, progress, total, message, context=self._context)

    async def finish(self, ends_ns: int | None) -> None:
        """Wait until all reports are delivered, or until ``ends_ns``, a time of :func:`time.monotonic_ns`."""
        await self._reports.finish(time.monotonic_ns() + round(_DELIVERY_S * 1e9) if ends_ns is None else ends_ns)

    async def aclose(self) -> None:
        """End the delivery, and drop the reports that wait."""
        await self._reports.aclose()
