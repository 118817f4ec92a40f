"""A way to block an event loop for exactly as long as a test needs."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["Blocked"]

# An upper bound, so that a test that fails does not leave its loop blocked.
_MOST_S = 10.0


class Blocked:
    """Block a loop that runs on another thread; whatever is submitted to it in the meantime waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entered = threading.Event()
        self._released = threading.Event()

    def __enter__(self) -> None:
        self._loop.call_soon_threadsafe(self._block)
        self._entered.wait()

    def __exit__(self, *_: object) -> None:
        self._released.set()

    def _block(self) -> None:
        self._entered.set()
        self._released.wait(_MOST_S)
