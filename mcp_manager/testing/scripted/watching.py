"""Waiting for a state of a server that runs on another thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Watched"]

_WAIT_S: Final = 20.0


class Watched:
    """An object that changes on other threads, and reports its changes with :meth:`news`."""

    def __init__(self) -> None:
        self._watching = threading.Lock()
        self._watchers: list[tuple[Callable[[], bool], concurrent.futures.Future[None]]] = []

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is checked at each :meth:`news`, for at most 20 s."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._watching:
            self._watchers.append((condition, future))
        self.news()
        await asyncio.wait_for(asyncio.wrap_future(future), _WAIT_S)

    def news(self) -> None:
        """Check the conditions of all waiters again."""
        with self._watching:
            watchers = list(self._watchers)
        for watcher in watchers:
            condition, future = watcher
            if future.cancelled() or condition():
                with self._watching:
                    if watcher not in self._watchers:
                        continue
                    self._watchers.remove(watcher)
                if future.set_running_or_notify_cancel():
                    future.set_result(None)
