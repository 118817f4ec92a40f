"""Long work in slices, so that the event loop and its calls go on meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["Pauses", "in_slices"]

# On the loop, a call waits for one slice at most, and most calls for none.
_SLICE_S: Final = 0.000_5
_REST_S: Final = 0.001
# Beside the loop, every system call of its thread hands the interpreter's lock over, and it comes back after the slice:
# most of the time must be left to the loop.
_TURN_S: Final = 0.000_25
_PAUSE_S: Final = 0.000_75


class Pauses:
    """Let other threads run for most of the time; called after every step of the work."""

    def __init__(self) -> None:
        self._ends = time.perf_counter() + _TURN_S

    def __call__(self) -> None:
        """Pause if it is time to."""
        if time.perf_counter() > self._ends:
            time.sleep(_PAUSE_S)
            self._ends = time.perf_counter() + _TURN_S


async def in_slices(steps: Iterable[None], clock: Callable[[], float] = time.perf_counter) -> None:
    """Take all steps of the work on the running loop, for half a millisecond at a time, and a third of the time."""
    ends = clock() + _SLICE_S
    for _ in steps:
        if clock() > ends:
            await asyncio.sleep(_REST_S)
            ends = clock() + _SLICE_S
