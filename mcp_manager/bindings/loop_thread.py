"""A daemon thread that runs an event loop of its own until it is told to end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from mcp_manager.bindings.call_queue import CallQueue
from mcp_manager.errors import NotRunningError

__all__ = ["LoopThread"]


class LoopThread:
    """Run an event loop on a thread: uvloop's if it is installed, else asyncio's own.

    The thread is a daemon: an interpreter can exit even if nobody stops the thread. ``calls`` runs coroutines on the
    loop for other threads.

    Raises
    ------
    NotRunningError
        gevent or eventlet has replaced Python's threads.
    """

    def __init__(self, name: str) -> None:
        _check_threads()
        self.loop: asyncio.AbstractEventLoop = _new_loop()
        self.calls: CallQueue = CallQueue(self.loop)
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name=name, daemon=True)
        self._finishing: concurrent.futures.Future[None] | None = None
        # Reentrant: a signal may interrupt this thread while it holds the lock, and its handler may stop a manager.
        self._lock = threading.RLock()
        self._thread.start()
        try:
            started.wait()
        except BaseException:
            self._stop_loop()
            raise

    def finish(self, last: Callable[[], Coroutine[Any, Any, None]]) -> concurrent.futures.Future[None]:
        """Run ``last()`` on the loop, then end the loop and the thread; later calls return the same future."""
        with self._lock:
            if self._finishing is None:
                self._finishing = asyncio.run_coroutine_threadsafe(last(), self.loop)
                self._finishing.add_done_callback(self._stop_loop)
            return self._finishing

    def join(self) -> None:
        """Wait for the thread's end; must not be called on it."""
        self._thread.join()

    def _disown(self) -> None:
        """Leave the loop to the parent process after a fork, even if the loop's own thread forked."""
        self.calls._disown()
        if self._thread.ident == threading.get_ident():
            # The child has only this thread, and exits once the callback that forked is over. Whatever else is
            # scheduled on the loop, and its end, is left to the parent.
            self.loop.call_soon(os._exit, 0)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(started.set)
        try:
            self.loop.run_forever()
        finally:
            # Before the remaining tasks are collected: one that starts after that would never end.
            self.calls.close()
            self._cancel_leftovers()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def _cancel_leftovers(self) -> None:
        """Cancel the calls that other threads still wait for, so that none of them waits for ever."""
        leftovers = asyncio.all_tasks(self.loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            self.loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))

    def _stop_loop(self, _: concurrent.futures.Future[None] | None = None) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)


def _check_threads() -> None:
    """Refuse to start where a thread is a greenlet: the loop would block all others, this caller included, for ever."""
    # If one of them has been imported, it may have patched the process; this package imports neither.
    for module, function, name in (
        ("gevent.monkey", "is_module_patched", "threading"),
        ("eventlet.patcher", "is_monkey_patched", "thread"),
    ):
        is_patched = getattr(sys.modules.get(module), function, None)
        if is_patched is not None and is_patched(name):
            raise NotRunningError(
                f"Failed to start manager: {module.partition('.')[0]} has replaced the threads of Python",
                hint="use workers that are processes, threads or asyncio",
            )


def _new_loop() -> asyncio.AbstractEventLoop:
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415  (an optional dependency, loaded only where a loop is made)

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
