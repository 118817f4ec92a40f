"""Runs blocking work beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from mcp_manager.runtime.background import resolve

__all__ = ["in_thread"]

T = TypeVar("T")

# How long a caller that is cancelled waits for the thread.
_END_S: Final = 1.0


async def in_thread(work: Callable[[], T], name: str) -> T:
    """Run work in a thread of its own, and return its result or raise its exception.

    The thread is a daemon: work that never ends, such as a look at a network file system that does not answer, keeps
    neither the loop nor the exit of the process waiting. If the caller is cancelled, it waits for the end of the work
    for one second.

    Parameters
    ----------
    work
        What to do.
    name
        The name of the thread.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)
        with contextlib.suppress(RuntimeError):
            # The loop may be closed by now.
            loop.call_soon_threadsafe(resolve, done)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        await asyncio.wait({done})
    except asyncio.CancelledError:
        await asyncio.wait({done}, timeout=_END_S)
        raise
    finally:
        if done.done():
            # It has nothing left to do.
            thread.join()
    if failures:
        raise failures.pop()
    return results[0]
