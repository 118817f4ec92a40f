"""The delivery of progress reports to the callbacks of calls (2025-11-25, basic/utilities/progress)."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.runtime.background import background_task
from mcp_manager.transports.base import CallListener, ProgressReport

__all__ = ["Deliveries", "ProgressCallback", "ProgressListeners", "ProgressReports"]

_log = logging.getLogger(__name__)

ProgressCallback = Callable[[float, float | None, str | None], Awaitable[None] | None]
"""``callback(progress, total, message)`` of one request; may be a coroutine function.

``progress`` grows with every report; ``total`` is its last value, ``None`` if unknown; ``message`` is text or ``None``.
"""

# The oldest reports are dropped first, because newer ones make them obsolete.
_MAX_WAITING: Final = 256
# How long a cancelled callback may take to clean up before its call ends without it.
_CANCELLED_S: Final = 2.0


class FailureLog(Protocol):
    """Logs what the callbacks of users raise; see :class:`~mcp_manager.transports.containment.Containment`."""

    def log(self, what: str, error: Exception) -> None:
        """Log an exception and what failed."""


class ProgressReports(CallListener):
    """Deliver the reports of one call in order, without delaying the reading of further messages.

    A plain callback is called as soon as a report arrives. The awaitables that an async one returns are awaited one
    after the other, in a task of their own with the caller's context; if more than 256 wait, the oldest are dropped.
    What a callback raises is logged and affects nothing else.

    Parameters
    ----------
    callback
        See :data:`ProgressCallback`.
    containment
        Logs what the callback raises.
    token
        The progress token in the params of the call; ``None`` if the reports come from elsewhere.
    """

    __slots__ = ("_callback", "_deliveries", "token")

    def __init__(self, callback: ProgressCallback, containment: FailureLog, token: str | None = None) -> None:
        self._callback = callback
        self._deliveries = Deliveries("the progress callback of a call", containment)
        self.token: str | None = token

    def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        """Deliver a report; never raises or blocks."""
        self._deliveries.deliver(self._callback, progress, total, message)

    def take_progress(self, params: bytes, report: ProgressReport) -> None:
        """Deliver a report; see :class:`CallListener`."""
        self(*report)

    async def finish(self, deadline_ns: int) -> None:
        """Wait until all reports are delivered, or until ``deadline_ns``, a time of :func:`time.monotonic_ns`."""
        await self._deliveries.finish(deadline_ns)

    async def aclose(self) -> None:
        """End the delivery, and drop the reports that wait."""
        await self._deliveries.aclose()


class Deliveries:
    """Call a function for each piece of news in order, and await what it returns, without delaying the reader.

    Parameters
    ----------
    what
        Names the function in the log.
    containment
        Logs what it raises.
    context
        The context of the calls and of the awaiting; that of the creator by default.
    dropped
        Called for each piece of news that is dropped, because too many wait.
    """

    __slots__ = ("_closed", "_containment", "_context", "_dropped", "_task", "_waiting", "_what")

    def __init__(
        self,
        what: str,
        containment: FailureLog,
        context: contextvars.Context | None = None,
        dropped: Callable[[], None] | None = None,
    ) -> None:
        self._what = what
        self._containment = containment
        self._context = contextvars.copy_context() if context is None else context
        self._dropped = dropped
        self._waiting: deque[Awaitable[object]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def deliver(self, function: Callable[..., object], *news: object) -> None:
        """Call the function; never raises or blocks."""
        if self._closed:
            return
        try:
            # A copy, because the function may be called while the context is in use.
            outcome = self._context.copy().run(function, *news)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            # Not even a CancelledError, as of a future that is cancelled, may end the reading.
            self._failed(error)
            return
        if not inspect.isawaitable(outcome):
            return
        if len(self._waiting) >= _MAX_WAITING:
            _drop(self._waiting.popleft())
            if self._dropped is not None:
                self._dropped()
        self._waiting.append(outcome)
        if self._task is None or self._task.done():
            self._task = background_task(self._deliver(), "report progress", context=self._context)

    async def finish(self, deadline_ns: int) -> None:
        """Wait until all news is delivered, or until ``deadline_ns``, a time of :func:`time.monotonic_ns`."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))

    async def aclose(self) -> None:
        """End the delivery, and drop the news that waits."""
        self._closed = True
        # The task that is cancelled has an exception, whose traceback holds this object.
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            _, stuck = await asyncio.wait({task}, timeout=_CANCELLED_S)
            if stuck:
                _log.warning("%s was cancelled, but has not ended", self._what)
        while self._waiting:
            _drop(self._waiting.popleft())

    async def _deliver(self) -> None:
        while self._waiting:
            try:
                await self._waiting.popleft()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                if _is_cancelled():
                    raise
                self._failed(error)

    def _failed(self, error: BaseException) -> None:
        told = error
        if not isinstance(told, Exception):
            told = RuntimeError(f"it raised {type(error).__name__}")
            told.__cause__ = error
        self._containment.log(f"{self._what} failed", told)


def _is_cancelled() -> bool:
    """Tell whether the current task is being cancelled, and not only something that it awaits."""
    running = asyncio.current_task()
    return running is not None and running.cancelling() > 0


def _drop(report: Awaitable[object]) -> None:
    if inspect.iscoroutine(report):
        # Otherwise Python warns that it was never awaited.
        report.close()


class _ProgressParams(msgspec.Struct, rename="camel"):
    progress_token: str | int
    progress: float
    total: float | None = None
    message: str | None = None


_progress_decoder = JsonDecoder(_ProgressParams)


class ProgressListeners:
    """Hand the progress reports of one session to the calls that they belong to, by progress token.

    Parameters
    ----------
    on_fault
        ``on_fault(kind)`` counts a malformed report.
    """

    __slots__ = ("_listeners", "_on_fault")

    def __init__(self, on_fault: Callable[[str], None]) -> None:
        self._on_fault = on_fault
        self._listeners: dict[str, CallListener] = {}

    async def during(self, sending: Awaitable[Message], token: str, listener: CallListener) -> Message:
        """Await a reply and return it; until then, hand the reports with the token to the listener."""
        self._listeners[token] = listener
        try:
            return await sending
        finally:
            self._listeners.pop(token, None)

    def take(self, params: bytes) -> CallListener | None:
        """Take the params of a progress notification; return the listener of its token, ``None`` if nobody has it."""
        try:
            report = _progress_decoder.decode(params)
        except (msgspec.DecodeError, RecursionError):
            self._on_fault("a malformed progress notification")
            try:
                # As the official SDK does, accept numbers that are strings.
                report = msgspec.json.decode(params, type=_ProgressParams, strict=False)
            except (msgspec.DecodeError, RecursionError):
                return None
        listener = self._listeners.get(str(report.progress_token))
        if listener is not None:
            listener.take_progress(params, ProgressReport(report.progress, report.total, report.message))
        return listener
