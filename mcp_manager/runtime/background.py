"""The one place where the package makes tasks and sees them end; the loop's task factory makes no difference."""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, TypeVar

__all__ = ["background_task", "bare_context", "finish", "read_failure", "to_its_end", "within"]

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
    """Run work in a task that begins in a later turn of the loop, when whoever makes it has noted it down.

    A loop's task factory is passed by: with :func:`asyncio.eager_task_factory` the work would begin, and might end, before
    this function returns, on the stack of whoever calls it.

    Parameters
    ----------
    work
        What to run.
    name
        What it does, as debuggers and warnings show it.
    among
        Where the task is kept until it ends: loops hold tasks weakly. Without it the caller keeps the task.
    context
        What the work runs in, a copy of the current context by default.
    loop
        Where it runs, the running loop by default.

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
    """Return a context with the current values of these variables alone, which must have a default.

    For what outlives the call that begins it: a timer, a connection or a task keeps the context that it begins in. In its
    caller's it would keep the caller's request alive, and what is done later, for others, would be done in it.
    """
    context = Context()
    for variable in kept:
        context.run(variable.set, variable.get())
    return context


@types.coroutine
def within(context: Context, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Do work in another context, as a part of the current task."""
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
    """Read a task's exception, which is an answer to somebody who may be gone: else asyncio reports it as lost."""
    if not task.cancelled():
        task.exception()


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Do work that is bounded in time to its end, however often its caller is cancelled meanwhile.

    Raises
    ------
    asyncio.CancelledError
        The caller was cancelled; the work is done all the same.
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
    """Do work to its end as :func:`to_its_end` does, and tell whether the caller, or the work, was cancelled meanwhile.

    Whatever it raises is logged: for a way that must be gone to its end, whatever happens on it.
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
