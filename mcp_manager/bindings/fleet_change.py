"""What the plain methods return that change the fleet, and their first step on the manager's own loop."""

from __future__ import annotations

import asyncio
import logging
import types
import weakref
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
from typing import Any

from mcp_manager.errors import NotRunningError
from mcp_manager.runtime.background import background_task

__all__ = ["FleetChange", "begin"]

_log = logging.getLogger(__name__)

# If a change is not awaited, nobody else keeps its task alive.
_changes: set[asyncio.Task[Any]] = set()


class FleetChange:
    """A change of the fleet that has taken effect: await it to wait for its end, or leave it alone.

    On the manager's own loop, a plain method such as ``deploy`` returns as soon as its change has taken effect; what
    may be awaited is the rest, such as the connection to the server. On other threads the method itself waits, and
    there is nothing left to await. Whoever stops waiting does not stop the change. If nobody awaits a change that
    fails, the failure is logged once.
    """

    __slots__ = ("__weakref__", "_is_told", "_server_id", "_task")

    def __init__(self, task: asyncio.Task[None] | None = None, server_id: object = None) -> None:
        self._task = task
        self._server_id = server_id
        self._is_told = False
        if task is not None:
            task.add_done_callback(partial(_ended, weakref.ref(self), server_id))

    def __repr__(self) -> str:
        """Show whether the change goes on."""
        return f"<FleetChange: {'done' if self._task is None or self._task.done() else 'under way'}>"

    def __await__(self) -> Generator[Any, None, None]:
        """Wait for the end of the change, and raise its error if it fails.

        Raises
        ------
        NotRunningError
            The change is made on another event loop than this one, and goes on.
        """
        task = self._task
        if task is None:
            return
        if task.get_loop() is not asyncio.get_running_loop() and not task.done():
            raise NotRunningError(
                "The change is made on another event loop", hint="await it there, or call the _async method instead"
            )
        try:
            yield from asyncio.shield(task).__await__()
        finally:
            self._is_told = task.done()

    def __del__(self) -> None:
        # __init__() may have failed before it was set.
        task = getattr(self, "_task", None)
        if task is not None and task.done() and not self._is_told:
            _tell_failure(task, self._server_id)


def begin(work: Coroutine[Any, Any, None], server_id: object) -> FleetChange:
    """Run the first step of a change now, on the running loop, and the rest in a task of its own.

    Parameters
    ----------
    work
        The change; see :func:`~mcp_manager.runtime.effects.takes_effect_at_once`.
    server_id
        The server, for the log.

    Raises
    ------
    Exception
        What the first step raises; then there is no rest.
    """
    loop, caller, context = asyncio.get_running_loop(), asyncio.current_task(), copy_context()
    rest = _Rest(work)
    carried = rest.carry_out()
    # Up to the first pause: a task that is cancelled before its first step would otherwise not run any of it.
    carried.send(None)
    task = background_task(carried, "change the fleet", among=_changes, context=context)
    # The step belongs to the new task: a time limit that it sets must not cancel the caller.
    if caller is not None:
        _leave_task(loop, caller)
    _enter_task(loop, task)
    try:
        context.run(rest.take_first_step)
    finally:
        _leave_task(loop, task)
        if caller is not None:
            _enter_task(loop, caller)
    return FleetChange(task, server_id)


class _Rest:
    """What is left of a coroutine after its first step."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self._waits_for: Any = None
        self._is_over = True

    def take_first_step(self) -> None:
        """Run the coroutine up to where it first waits."""
        try:
            self._waits_for = self._work.send(None)
            self._is_over = False
        except StopIteration:
            return

    async def carry_out(self) -> None:
        """Pause once, for the first step, and then run the coroutine to its end."""
        await self._steps()

    @types.coroutine
    def _steps(self) -> Generator[Any, Any, None]:
        resume: Callable[[], Any] = lambda: self._waits_for  # noqa: E731
        try:
            yield None
        except BaseException as error:
            resume = partial(self._work.throw, error)
        try:
            while not self._is_over:
                try:
                    waited = resume()
                except StopIteration:
                    return
                try:
                    resume = partial(self._work.send, (yield waited))
                except BaseException as error:
                    resume = partial(self._work.throw, error)
        finally:
            # It may hold an exception, whose traceback holds this frame.
            del resume


def _ended(change: weakref.ref[FleetChange], server_id: object, task: asyncio.Task[None]) -> None:
    # Retrieved here, because nobody may await the change.
    if not task.cancelled() and task.exception() is not None and change() is None:
        _tell_failure(task, server_id)


def _tell_failure(task: asyncio.Task[None], server_id: object) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        extra = {"event": "change_failed", "server_id": server_id, "error": str(error)}
        _log.error("server %r could not be changed: %s", server_id, error, extra=extra)
