"""A thread with a loop that exports at intervals, when it is woken, and once more at its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mcp_manager.runtime.background import background_task

__all__ = ["THREAD_NAME", "ExportThread", "let_others_run"]

_log = logging.getLogger(__name__)

THREAD_NAME: Final = "mcp_manager telemetry"
"""What the names of all such threads begin with."""
_MOMENT_S: Final = 0.0001


def let_others_run() -> None:
    """Give up the interpreter's lock for a moment, so that the loops of other threads are not late.

    A sleep of 0 s would not do: this thread would mostly get the lock again before one that waits for it.
    """
    time.sleep(_MOMENT_S)


class ExportThread:
    """Run an export on a thread of its own.

    Parameters
    ----------
    export
        Exports what there is. It gets the time, in monotonic seconds, at which the program ends, ``None`` as long as it
        goes on. At the end it is called once more; if it is under way then, it has half of the time for that to end, and
        is cancelled after it.
    interval_s
        Seconds between two exports.
    what
        What is exported, for the name of the thread and the log.
    """

    def __init__(
        self, export: Callable[[float | None], Coroutine[Any, Any, None]], interval_s: float, what: str
    ) -> None:
        self._export = export
        self._interval_s = interval_s
        self._what = what
        self._thread: threading.Thread | None = None
        self._loop: Any = None
        self._woken: Any = None
        self._is_ending = False
        self._ends_at: float | None = None
        self._on_end: Callable[[], object] = bool

    def start(self) -> None:
        """Start the thread."""
        self._loop, self._woken = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"{THREAD_NAME}: {self._what}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Export soon, from any thread."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    def end(self) -> None:
        """Ask the thread to end without another export, from any thread; idempotent."""
        if self._thread is not None and not self._is_ending:
            self._is_ending = True
            self._loop.call_soon_threadsafe(self._woken.set)

    async def aclose(self, grace_s: float) -> None:
        """Export once more, for ``grace_s`` seconds at most, and wait for the end of the thread."""
        thread = self._thread
        if thread is None:
            return
        here, ended = asyncio.get_running_loop(), asyncio.Event()
        self._on_end = lambda: here.call_soon_threadsafe(ended.set)
        self._ends_at = time.monotonic() + grace_s
        self.end()
        await ended.wait()
        # It has nothing left to do but to return.
        thread.join()
        self._thread, self._on_end = None, bool

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._export_until_the_end())
        finally:
            # It does not wait for the thread of a resolver that hangs.
            self._loop.close()
            with contextlib.suppress(RuntimeError):
                self._on_end()

    async def _export_until_the_end(self) -> None:
        while not self._is_ending:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._interval_s)
            self._woken.clear()
            if self._is_ending:
                break
            export = background_task(self._export(None), "export telemetry")
            while not export.done() and not self._is_ending:
                woken = background_task(self._woken.wait(), "wait for the end of telemetry")
                await asyncio.wait({export, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if not export.done():
                    self._woken.clear()
            if self._ends_at is not None:
                # What is under way may have arrived already: it would be sent twice if it were not awaited.
                await asyncio.wait({export}, timeout=max(self._ends_at - time.monotonic(), 0.0) / 2)
            export.cancel()
            await asyncio.wait({export})
        if self._ends_at is not None:
            try:
                async with asyncio.timeout_at(self._loop.time() + self._ends_at - time.monotonic()):
                    await self._export(self._ends_at)
            except TimeoutError:
                _log.warning("the last export of %s did not end in time", self._what)
