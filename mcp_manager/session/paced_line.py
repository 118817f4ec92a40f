"""Work that a server causes unasked: in order, so much at once, and by turns of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final

from mcp_manager.runtime.read_budget import read_budget

__all__ = ["PacedLine"]

Work = Callable[[], Coroutine[Any, Any, None]]

# However many have to wait, as many callers' work would: the oldest of them is old news.
MAX_WAITING: Final = 1024


class PacedLine:
    """Run work of one kind for one session.

    A turn of the loop that has no time left begins nothing, and of more than 1,024 that wait the oldest are dropped. Work
    with the key of work that waits is the same work, and is not begun while its like is under way.

    Parameters
    ----------
    spawn
        ``spawn(work)`` runs work in a task of the session's; ``None`` if that has ended.
    on_dropped
        Called for each that is dropped.
    at_once
        How many run at a time.
    cost_ns
        Nanoseconds of the loop's time that one takes, roughly.
    """

    __slots__ = (
        "_at_once",
        "_cost_ns",
        "_is_closed",
        "_on_dropped",
        "_running",
        "_spawn",
        "_waiting",
        "_waits_for_turn",
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
        self._waits_for_turn = False
        self._is_closed = False

    def __len__(self) -> int:
        """Count what waits and what runs."""
        return len(self._waiting) + len(self._running)

    def add(self, work: Work, key: Hashable = None) -> None:
        """Run work when it is its turn; with a key, once for all that wait with the same one."""
        if self._is_closed:
            return
        key = object() if key is None else key
        if key not in self._waiting and len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._on_dropped()
        self._waiting[key] = work
        self._begin()

    def close(self) -> None:
        """Begin nothing any more; idempotent."""
        self._is_closed = True
        self._waiting.clear()
        self._leave()

    def read_on(self) -> None:
        """Go on, in a new time slice; see :class:`~mcp_manager.runtime.read_budget.Reader`."""
        self._leave()
        self._begin()

    def flooded(self) -> None:
        """Do nothing: what is dropped is counted."""

    def _begin(self) -> None:
        """Begin what may begin in this turn."""
        if self._waits_for_turn:
            return
        budget = read_budget()
        while len(self._running) < self._at_once:
            key = next((each for each in self._waiting if each not in self._running), None)
            if key is None:
                return
            if not budget.spend(0):
                self._waits_for_turn = True
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
        if self._waits_for_turn:
            self._waits_for_turn = False
            read_budget().leave(self)
