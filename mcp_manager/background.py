"""The one place where the package makes tasks, which behave alike whatever task factory the loop has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["background_task"]

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
