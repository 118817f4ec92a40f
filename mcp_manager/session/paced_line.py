"""Work that the unsolicited messages of a server cause: in order, limited in number, and within the read budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final

from mcp_manager.runtime.read_budget import read_budget

__all__ = ["PacedLine"]

Work = Callable[[], Coroutine[Any, Any, None]]

# The oldest work is dropped first, because newer messages make it obsolete.
MAX_WAITING: Final = 1024


class PacedLine:
    """Run one kind of work for one session, in order.

    Work starts only while the loop's :class:`~mcp_manager.runtime.read_budget.ReadBudget` has time left. If more than
    1,024 items wait, the oldest are dropped. Work with a key replaces waiting work with the same key, and does not
    start while work with that key runs.

    Parameters
    ----------
    spawn
        ``spawn(work)`` runs work in a task of the session; ``None`` if the session has ended.
    on_dropped
        Called for each item that is dropped.
    at_once
        How many items run at a time.
    cost_ns
        Roughly how many nanoseconds of the loop's time one item takes.
    """

    __slots__ = (
        "_at_once",
        "_cost_ns",
        "_is_closed",
        "_on_dropped",
        "_running",
        "_spawn",
        "_waiting",
        "_waits_for_slice",
    )

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        on_dropped: Callable[[], None],
        *,
        at_once: int,
        cost_ns: int,
    ) -> None:
        self._spawn = spawn
        self._on_dropped = on_dropped
        self._at_once = at_once
        self._cost_ns = cost_ns
        self._waiting: dict[Hashable, Work] = {}
        self._running: set[Hashable] = set()
        self._waits_for_slice = False
        self._is_closed = False

    def __len__(self) -> int:
        """Return how many items wait or run."""
        return len(self._waiting) + len(self._running)

    def add(self, work: Work, key: Hashable = None) -> None:
        """Run work when its turn comes.

        Parameters
        ----------
        work
            Returns the coroutine to run.
        key
            Makes waiting items with the same key one item, whose work is the newest; ``None`` keeps every item.
        """
        if self._is_closed:
            return
        key = object() if key is None else key
        if key not in self._waiting and len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._on_dropped()
        self._waiting[key] = work
        self._begin()

    def close(self) -> None:
        """Drop the work that waits, and start no more; idempotent."""
        self._is_closed = True
        self._waiting.clear()
        self._leave()

    def read_on(self) -> None:
        """Start more work, in a new time slice; see :class:`~mcp_manager.runtime.read_budget.Reader`."""
        self._leave()
        self._begin()

    def flooded(self) -> None:
        """Do nothing: ``on_dropped`` counts what a flood costs."""

    def _begin(self) -> None:
        """Start as much work as the limits and this time slice allow."""
        if self._waits_for_slice:
            return
        budget = read_budget()
        while len(self._running) < self._at_once:
            key = next((each for each in self._waiting if each not in self._running), None)
            if key is None:
                return
            if not budget.spend(0):
                self._waits_for_slice = True
                budget.wait(self)
                return
            budget.spend(self._cost_ns)
            self._run(key, self._waiting.pop(key))

    def _run(self, key: Hashable, work: Work) -> None:
        task = self._spawn(work())
        if task is None:
            self.close()
            return
        self._running.add(key)
        task.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: Hashable) -> None:
        self._running.discard(key)
        if not self._is_closed:
            self._begin()

    def _leave(self) -> None:
        if self._waits_for_slice:
            self._waits_for_slice = False
            read_budget().leave(self)
