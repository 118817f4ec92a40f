"""A loop whose time passes only where everybody waits: policies of seconds and minutes are tested in no time."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualTimeLoop", "run_in_virtual_time"]

Result = TypeVar("Result")

# Not before the real clock, which the deadline of a session that is being made is compared with.
_START_S = 1_000_000.0 * (time.monotonic() // 1_000_000.0 + 1.0)


class _Sleepless(selectors.DefaultSelector):
    """Answer at once, and tell the loop that the time it would have waited has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is due: the test would hang")
        if timeout > 0:
            self.passed_s += timeout
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop for tests without I/O."""

    def __init__(self) -> None:
        self._sleepless = _Sleepless()
        super().__init__(self._sleepless)

    def time(self) -> float:
        """Seconds, of which none passes while anything can run."""
        return _START_S + self._sleepless.passed_s

    def clock(self) -> int:
        """The same in nanoseconds, for what takes a clock."""
        return round(self.time() * 1e9)


def run_in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
