"""Watching a fleet in the demo: changes of states and circuits are printed, recorded and can be awaited."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from mcp_manager.cli.background import background
from mcp_manager.cli.screen import arrow, paint
from mcp_manager.manager import McpManager
from mcp_manager.observe.views import ServerView

__all__ = ["Timeline", "Watch"]

# How often to look for changes that no call causes, such as those after a probe.
_LOOK_EVERY_S: Final = 0.01


class Timeline:
    """Print events with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def say(self, server_id: str, text: str) -> None:
        """Print one event and flush it."""
        print(f"  {self.seconds:6.2f} s  {server_id:<8} {text}", flush=True)


class Watch:
    """Watch the servers of a manager.

    ``circuits`` lists the successive circuit states of each server, by its id.

    Parameters
    ----------
    manager
        The manager whose servers are watched.
    timeline
        Prints the changes.
    """

    def __init__(self, manager: McpManager, timeline: Timeline) -> None:
        self._manager = manager
        self._timeline = timeline
        self._last: dict[str, ServerView] = {}
        self._changed = asyncio.Event()
        self.circuits: dict[str, list[str]] = {}

    def look(self, server_id: str) -> None:
        """Record a server's current state and circuit, and print a change."""
        now = self._manager.server(server_id)
        before, self._last[server_id] = self._last.get(server_id), now
        path = self.circuits.setdefault(server_id, [])
        if not path or path[-1] != now.circuit:
            path.append(now.circuit)
        if before is not None and (before.state, before.circuit) != (now.state, now.circuit):
            self._timeline.say(server_id, _describe(before, now))
            self._changed.set()

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Return a context within which every server is watched."""
        return background(self._run())

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait for a condition, checked after every change; return whether it came true in time."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _run(self) -> None:
        while True:
            for view in self._manager.servers():
                self.look(view.id)
            await asyncio.sleep(_LOOK_EVERY_S)


def _describe(before: ServerView, now: ServerView) -> str:
    changes = []
    if before.circuit != now.circuit:
        changes.append(f"circuit {before.circuit} {arrow()} {paint(now.circuit)}")
    if before.state != now.state:
        why = f" ({now.reasons[0]})" if now.reasons else ""
        changes.append(f"{before.state.value} {arrow()} {paint(now.state.value)}{why}")
    return ", ".join(changes)
