"""An event loop with virtual time, which passes only while all tasks wait: tests of long delays take no time."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["VirtualClock", "VirtualTimeLoop", "run_in_virtual_time"]

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

# Later than the real clock, since deadlines of sessions that are being made are compared with that.
_START_S = 1_000_000.0 * (time.monotonic() // 1_000_000.0 + 1.0)


class _Sleepless(selectors.DefaultSelector):
    """A selector that waits for threads and sockets alone, and else adds up the time that the loop wanted to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0
        self.working = 0
        """How many functions run on threads of executors."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # One is the loop's own, by which threads wake it.
        if self.working or len(self.get_map()) > 1:
            began_s = time.monotonic()
            ready = super().select(timeout)
            self.passed_s += time.monotonic() - began_s
            return ready
        if timeout is None:
            raise RuntimeError("all tasks wait and no timer is due: the test would hang")
        if timeout > 0:
            self.passed_s += timeout
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop for tests without I/O; while there is some, time passes as it does outside."""

    def __init__(self) -> None:
        self._sleepless = _Sleepless()
        super().__init__(self._sleepless)

    def time(self) -> float:
        """Return the virtual time in seconds, which stands still while anything can run."""
        return _START_S + self._sleepless.passed_s

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], Result], *args: *Arguments
    ) -> asyncio.Future[Result]:
        """Run a function on a thread; time passes really until it has ended."""
        future = super().run_in_executor(executor, func, *args)
        self._sleepless.working += 1
        future.add_done_callback(self._has_worked)
        return future

    def _has_worked(self, _: asyncio.Future[Any]) -> None:
        self._sleepless.working -= 1

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """Wait for the threads that are left."""
        self._sleepless.working += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._sleepless.working -= 1

    def clock(self) -> int:
        """Return the virtual time in nanoseconds, for code that takes a clock."""
        return round(self.time() * 1e9)


def run_in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on a new loop with virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


class VirtualClock:
    """A clock that stands still while anything runs, and jumps to the next timer when all wait.

    The fixture ``virtual_clock`` is one. It is for code without I/O: while a function runs on a thread of an executor
    (``asyncio.to_thread``), or a socket or pipe is open, time passes as it does outside.
    """

    def __init__(self) -> None:
        self._passed_s = 0.0

    @property
    def passed_s(self) -> float:
        """The seconds that :meth:`run` has let pass."""
        return self._passed_s

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end, and return what it returns.

        Parameters
        ----------
        work
            The coroutine; ``asyncio.sleep``, timeouts and timers in it take no real time.

        Raises
        ------
        RuntimeError
            If everything in it waits and no timer is due, so that it would hang.
        """
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            loop = runner.get_loop()
            start_s = loop.time()
            try:
                return runner.run(work)
            finally:
                self._passed_s += loop.time() - start_s
