"""Waiting for what a server on another thread has come to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Watched"]

_WAIT_S: Final = 20.0


class Watched:
    """Something that changes on threads of its own, and says so."""

    def __init__(self) -> None:
        self._watching = threading.Lock()
        self._watchers: list[tuple[Callable[[], bool], concurrent.futures.Future[None]]] = []

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait, up to a bound, until there is news that makes the condition true."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._watching:
            self._watchers.append((condition, future))
        self.news()
        await asyncio.wait_for(asyncio.wrap_future(future), _WAIT_S)

    def news(self) -> None:
        """Let whoever waits look again."""
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
