"""Who may make a session next: a decision about places and their order, without a clock, a task or I/O of its own."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

__all__ = ["SlotPolicy", "Urgency"]

K = TypeVar("K", bound=Hashable)

# So often a more urgent attempt may go first, then whoever has waited longest of the others goes: nobody waits for ever.
_PATIENCE: Final = 8


class Urgency(enum.IntEnum):
    """How soon a session is needed."""

    CALLER = 0
    """Somebody waits with a call."""
    FIRST = 1
    """There was none yet."""
    AGAIN = 2
    """There was one, and nobody asks for it."""


class _Lane(Generic[K]):
    """Some slots, who has them, and who waits for one."""

    __slots__ = ("capacity", "holders", "lenders", "most_lent", "passed_over", "staying", "waiting")

    def __init__(self, capacity: int, most_lent: int) -> None:
        self.capacity = capacity
        self.most_lent = most_lent
        self.holders: set[K] = set()
        self.lenders: set[K] = set()
        self.staying: set[K] = set()
        # By urgency, in the order of arrival; the values number the arrivals.
        self.waiting: tuple[dict[K, int], ...] = tuple({} for _ in Urgency)
        self.passed_over = 0

    def grant(self) -> list[K]:
        granted: list[K] = []
        while len(self.holders) < self.capacity and (key := self._next()) is not None:
            self.holders.add(key)
            granted.append(key)
        return granted

    def _next(self) -> K | None:
        queues = [queue for queue in self.waiting if queue]
        if not queues:
            return None
        chosen = queues[0]
        if len(queues) == 1:
            self.passed_over = 0
        elif self.passed_over >= _PATIENCE:
            self.passed_over = 0
            chosen = min(queues[1:], key=lambda queue: queue[next(iter(queue))])
        else:
            self.passed_over += 1
        key = next(iter(chosen))
        del chosen[key]
        return key


class SlotPolicy(Generic[K]):
    """Share slots among attempts to make a session; every method decides at once, and :meth:`grant` tells who may go.

    Callers go before everybody else, and first sessions before repeated ones. Places whose last attempt failed have slots
    of their own: however many are dead, the others do not wait for them. An attempt that only waits can lend its slot
    to the next one, without an end of its own.

    Parameters
    ----------
    capacity, failed_capacity
        How many slots there are, and how many beside them for places whose last attempt failed.
    most_lent, most_lent_failed
        How many of each kind may lend theirs at a time.
    """

    def __init__(self, capacity: int, failed_capacity: int, *, most_lent: int, most_lent_failed: int) -> None:
        self._usual: _Lane[K] = _Lane(capacity, most_lent)
        self._failed: _Lane[K] = _Lane(failed_capacity, most_lent_failed)
        self._lane_of: dict[K, _Lane[K]] = {}
        self._arrivals = 0

    def ask(self, key: K, urgency: Urgency, *, has_failed: bool) -> None:
        """Have an attempt wait for a slot."""
        assert key not in self._lane_of, "an attempt asks once"
        lane = self._lane_of[key] = self._failed if has_failed else self._usual
        self._arrivals += 1
        lane.waiting[urgency][key] = self._arrivals

    def hasten(self, key: K) -> None:
        """Learn that a caller waits for an attempt by now."""
        lane = self._lane_of.get(key)
        if lane is None:
            return
        for queue in lane.waiting[Urgency.FIRST :]:
            if key in queue:
                lane.waiting[Urgency.CALLER][key] = queue.pop(key)

    def lend(self, key: K) -> bool:
        """Let the next attempt have a slot while this one only waits; ``False`` if too many do so, or it has none."""
        lane = self._lane_of.get(key)
        if lane is None or key in lane.lenders:
            return lane is not None
        if key not in lane.holders or len(lane.lenders) >= lane.most_lent:
            return False
        lane.holders.discard(key)
        lane.lenders.add(key)
        return True

    def stay(self, key: K) -> bool:
        """Let an attempt lend its slot for long; ``False`` if half of those that may lend do so already."""
        lane = self._lane_of.get(key)
        if lane is None or len(lane.staying) >= (lane.most_lent + 1) // 2 or not self.lend(key):
            return False
        lane.staying.add(key)
        return True

    def leave(self, key: K) -> None:
        """Forget an attempt that has ended, whether it waited, held a slot or lent it; idempotent."""
        lane = self._lane_of.pop(key, None)
        if lane is None:
            return
        lane.holders.discard(key)
        lane.lenders.discard(key)
        lane.staying.discard(key)
        for queue in lane.waiting:
            queue.pop(key, None)

    def grant(self) -> list[K]:
        """Give the free slots away, and return who got one."""
        return [*self._usual.grant(), *self._failed.grant()]

    def is_waiting(self, key: K) -> bool:
        """Tell whether an attempt still waits for its slot."""
        lane = self._lane_of.get(key)
        return lane is not None and any(key in queue for queue in lane.waiting)

    def wanted(self) -> Iterable[K]:
        """Return who holds a slot that others wait for."""
        return [key for lane in (self._usual, self._failed) if any(lane.waiting) for key in lane.holders]
