"""When a child process that has ended is started again."""

from __future__ import annotations

import asyncio
import random

from mcp_manager.backoff import backoff_delay
from mcp_manager.config import RestartConfig

__all__ = ["RestartDelay"]


class RestartDelay:
    """Delay the starts of one child process, longer after each one that did not last."""

    __slots__ = ("_failed_starts", "_loop", "until")

    def __init__(self) -> None:
        self._failed_starts = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        # The loop time before which the process is not started; 0 if there is none.
        self.until: float = 0.0

    @property
    def left_s(self) -> float:
        """Seconds until the process may be started; readable on any thread."""
        return 0.0 if self._loop is None else max(0.0, self.until - self._loop.time())

    def begin(self, config: RestartConfig, connected_at: float | None) -> None:
        """Begin the delay before the next start.

        Parameters
        ----------
        config
            The delays, and how long a process must run for the next delay to be the first one again.
        connected_at
            The loop time at which the process had its session, ``None`` if it has none.
        """
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        if connected_at is not None and now - connected_at >= config.stable_after_s:
            self._failed_starts = 0
        delay_s = backoff_delay(self._failed_starts, config.initial_s, config.max_s, config.jitter, random.random())
        self._failed_starts += 1
        self.until = now + delay_s

    def shorten(self, config: RestartConfig) -> None:
        """End a delay under way no later than the longest one would that begins now."""
        if self._loop is not None:
            self.until = min(self.until, self._loop.time() + config.max_s)
