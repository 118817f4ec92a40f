"""A daemon thread that runs an event loop of its own, and ends when told to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from mcp_manager.bindings.call_queue import CallQueue

__all__ = ["LoopThread"]


class LoopThread:
    """Run an event loop on a thread: uvloop where it is installed, else asyncio's own.

    The thread is a daemon, so that an interpreter whose user forgot to stop it can still end. ``calls`` runs coroutines
    on the loop for everybody else.
    """

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        self.calls = CallQueue(self.loop)
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name=name, daemon=True)
        self._finishing: concurrent.futures.Future[None] | None = None
        # Not a plain lock: whatever a signal interrupts, its handler may want to stop a manager.
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
        """Leave the loop to the process that this one was forked from, also if it was its thread that forked."""
        self.calls._disown()
        if self._thread.ident == threading.get_ident():
            # The child is this one thread, and ends with it: when the callback that forked is over. What else is to be
            # done on the loop, its own end included, is for the parent.
            self.loop.call_soon(os._exit, 0)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(started.set)
        try:
            self.loop.run_forever()
        finally:
            # Before the leftovers are counted: what is started after that would never end.
            self.calls.close()
            self._cancel_leftovers()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def _cancel_leftovers(self) -> None:
        """End the calls of threads that still wait: each gets its cancellation, none is left hanging."""
        leftovers = asyncio.all_tasks(self.loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            self.loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))

    def _stop_loop(self, _: concurrent.futures.Future[None] | None = None) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)


def _new_loop() -> asyncio.AbstractEventLoop:
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415  (an optional dependency, loaded only where a loop is made)

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
