"""The application's ``on_state_change``: called for every change, in order, and never in the way of the manager."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Final

from mcp_manager.events.records import ServerStateChanged
from mcp_manager.runtime.background import background_task

__all__ = ["OnStateChange", "StateCallback"]

_log = logging.getLogger(__name__)

OnStateChange = Callable[[ServerStateChanged], Awaitable[object] | object]
"""``on_state_change(event)``; may be a coroutine function."""

# The awaitables that may wait; the oldest are dropped first.
_MOST_WAITING: Final = 1_000
# How long the last ones may take when the manager stops, and a cancelled one to clean up.
_LAST_S: Final = 1.0


class StateCallback:
    """Call ``on_state_change`` on the manager's loop, with the context in which the manager was made.

    It is called in a later turn of the loop, so that nothing it does meets a half-changed state. The awaitables of an
    async callback are awaited one after the other. What it raises is logged and affects nothing else.

    Parameters
    ----------
    callback
        See :data:`OnStateChange`.
    """

    def __init__(self, callback: OnStateChange) -> None:
        self._callback = callback
        self._context: Context = copy_context()
        self._events: deque[ServerStateChanged] = deque()
        self._waiting: deque[tuple[str, Awaitable[object]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    def tell(self, event: ServerStateChanged) -> None:
        """Have the callback called soon."""
        if self._is_over:
            return
        self._events.append(event)
        if len(self._events) == 1:
            asyncio.get_running_loop().call_soon(self._call, context=self._context)

    async def aclose(self) -> None:
        """Deliver what is left within a second, and end; idempotent."""
        self._is_over = True
        self._context.copy().run(self._call)
        task = self._task
        if task is not None and not task.done():
            await asyncio.wait({task}, timeout=_LAST_S)
            task.cancel()
            _, stuck = await asyncio.wait({task}, timeout=_LAST_S)
            if stuck:
                _log.warning("on_state_change was cancelled, but has not ended", extra={"event": "callback"})
        while self._waiting:
            _drop(self._waiting.popleft()[1])

    def _call(self) -> None:
        for _ in range(len(self._events)):
            event = self._events.popleft()
            try:
                outcome = self._callback(event)
            except (Exception, asyncio.CancelledError):
                _failed(event.server_id)
                continue
            if inspect.isawaitable(outcome):
                self._await(event.server_id, outcome)
        if self._events:
            asyncio.get_running_loop().call_soon(self._call, context=self._context)

    def _await(self, server_id: str, outcome: Awaitable[object]) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            lost, dropped = self._waiting.popleft()
            _drop(dropped)
            _log.warning(
                "on_state_change is too slow: a change of server %r was not told",
                lost,
                extra={"event": "callback", "server_id": lost},
            )
        self._waiting.append((server_id, outcome))
        if self._task is None or self._task.done():
            self._task = background_task(self._deliver(), "tell of changed states", context=self._context.copy())

    async def _deliver(self) -> None:
        while self._waiting:
            server_id, outcome = self._waiting.popleft()
            try:
                await outcome
            except Exception:
                _failed(server_id)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                _failed(server_id)


def _failed(server_id: str) -> None:
    _log.exception(
        "on_state_change failed for server %r", server_id, extra={"event": "callback", "server_id": server_id}
    )


def _drop(outcome: Awaitable[object]) -> None:
    if inspect.iscoroutine(outcome):
        # Otherwise Python warns that it was never awaited.
        outcome.close()
