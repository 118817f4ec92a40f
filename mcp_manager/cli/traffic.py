"""The demo's continuous traffic, and the counts of its outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from mcp_manager.cli.background import background
from mcp_manager.errors import Delivery, McpManagerError
from mcp_manager.manager import McpManager

__all__ = ["Tally", "Traffic"]

# Long enough to be in flight when its server is killed.
_LONG_CALL_S: Final = 5.0


class Tally:
    """The outcomes of the calls to one server in one phase."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed: Counter[Delivery] = Counter()
        self.latencies_ms: list[float] = []

    def percentile_ms(self, share: float) -> float | None:
        """Return a percentile of the latencies in milliseconds (nearest rank); ``share`` is from 0 to 1."""
        ranked = sorted(self.latencies_ms)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else None


class Traffic:
    """Call every server continuously.

    ``wrong_replies`` counts replies that belong to another call.

    Parameters
    ----------
    manager
        The manager to call through.
    server_ids
        The servers to call.
    callers
        Callers per server; each makes one call after the other.
    pause_s
        Seconds between two calls of a caller, spread at random by ±50 %.
    observe
        Called with the server id after every call, before the event loop runs anything else.
    """

    def __init__(
        self,
        manager: McpManager,
        server_ids: Iterable[str],
        *,
        callers: int,
        pause_s: float,
        observe: Callable[[str], None],
    ) -> None:
        self._manager = manager
        self._server_ids = tuple(server_ids)
        self._callers = callers
        self._pause_s = pause_s
        self._observe = observe
        self._numbers = itertools.count(1)
        self._tallies = self._fresh()
        self.wrong_replies: int = 0

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Return a context within which the callers run."""
        return background(
            *(self._call_for_ever(server_id) for server_id in self._server_ids for _ in range(self._callers))
        )

    def next_phase(self) -> dict[str, Tally]:
        """End the phase: return its counts by server, and begin the next one."""
        finished, self._tallies = self._tallies, self._fresh()
        return finished

    async def long_call(self, server_id: str) -> Delivery:
        """Make a call that takes several seconds; return its delivery."""
        try:
            await self._manager.call_tool(server_id, "sleep", {"seconds": _LONG_CALL_S}, timeout=2 * _LONG_CALL_S)
        except McpManagerError as error:
            self._tallies[server_id].failed[error.delivery] += 1
            return error.delivery
        self._tallies[server_id].succeeded += 1
        return "answered"

    async def _call_for_ever(self, server_id: str) -> None:
        while True:
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))
            await self._call(server_id)
            self._observe(server_id)

    async def _call(self, server_id: str) -> None:
        text = f"{server_id} {next(self._numbers)}"
        started = time.perf_counter()
        try:
            result = await self._manager.call_tool(server_id, "echo", {"text": text})
        except McpManagerError as error:
            self._tallies[server_id].failed[error.delivery] += 1
            return
        tally = self._tallies[server_id]
        tally.succeeded += 1
        tally.latencies_ms.append(1000 * (time.perf_counter() - started))
        self.wrong_replies += result.text != text

    def _fresh(self) -> dict[str, Tally]:
        return {server_id: Tally() for server_id in self._server_ids}
