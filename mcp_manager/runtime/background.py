"""Creates all tasks of the package, independently of the loop's task factory, and runs work to completion."""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, TypeVar

__all__ = ["background_task", "bare_context", "finish", "read_failure", "resolve", "to_its_end", "within"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


def background_task(
    work: Coroutine[Any, Any, T],
    name: str,
    *,
    among: set[asyncio.Task[Any]] | None = None,
    context: Context | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> asyncio.Task[T]:
    """Run work in a task that starts in a later event-loop iteration, when the caller has stored the task.

    The loop's task factory is not used: with :func:`asyncio.eager_task_factory` the work would start, and might end,
    before this function returns.

    Parameters
    ----------
    work
        The coroutine to run.
    name
        What it does, for debuggers and warnings.
    among
        A set that holds the task until it ends. Without one the caller must keep the task: loops hold tasks weakly.
    context
        The context that the work runs in, a copy of the current one by default.
    loop
        The loop that it runs on, the running loop by default.

    Returns
    -------
    asyncio.Task
        The task. An exception that nobody retrieves from it goes to the loop's exception handler.
    """
    running = asyncio.get_running_loop() if loop is None else loop
    task = asyncio.Task(work, loop=running, name=name, context=context)
    if among is not None:
        among.add(task)
        task.add_done_callback(among.discard)
    return task


def bare_context(*kept: ContextVar[Any]) -> Context:
    """Return a context that has only the current values of these variables, each of which must have a default.

    Use it for timers, connections and tasks that outlive the call that starts them. They keep the context they start
    in: the caller's context would keep the caller's request alive, and work for other callers would run in it.
    """
    context = Context()
    for variable in kept:
        context.run(variable.set, variable.get())
    return context


@types.coroutine
def within(context: Context, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await work in another context, within the current task."""
    resume = partial(work.send, None)
    try:
        while True:
            try:
                waited = context.run(resume)
            except StopIteration as ended:
                result: T = ended.value
                return result
            try:
                resume = partial(work.send, (yield waited))
            except BaseException as error:
                resume = partial(work.throw, error)
    finally:
        # It may hold an exception, whose traceback holds this frame.
        del resume
        work.close()


def read_failure(task: asyncio.Task[Any]) -> None:
    """Retrieve a task's exception if nobody else may: asyncio warns of exceptions that are never retrieved."""
    if not task.cancelled():
        task.exception()


def resolve(future: asyncio.Future[None]) -> None:
    """Wake whoever awaits a future, unless it is done or cancelled."""
    if not future.done():
        future.set_result(None)


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Run work to completion, however often the caller is cancelled; the work must be bounded in time.

    Raises
    ------
    asyncio.CancelledError
        The caller was cancelled; the work is complete nevertheless.
    """
    task = background_task(work, "end what must not be left half done")
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        read_failure(task)
        try:
            raise cancelled
        finally:
            # Its traceback holds this frame.
            del cancelled
    return task.result()


async def finish(work: Coroutine[Any, Any, object], name: str) -> bool:
    """Run one step of a shutdown to completion, and return whether the caller or the work was cancelled meanwhile.

    What the work raises is logged, so that the next step runs in any case.
    """
    task = background_task(work, name)
    was_cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            was_cancelled = True
    if task.cancelled():
        return True
    if (error := task.exception()) is not None:
        _log.error("%s: it failed", name, exc_info=error)
    return was_cancelled
