"""The rules for which attempt may make a session next, without a clock, tasks or I/O."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

__all__ = ["SlotPolicy", "Urgency"]

K = TypeVar("K", bound=Hashable)

# How often in a row a more urgent attempt goes first. Then the less urgent one that has waited longest goes, so that
# none waits for ever.
_PATIENCE: Final = 8


class Urgency(enum.IntEnum):
    """How soon a session is needed."""

    CALLER = 0
    """A call waits for it."""
    FIRST = 1
    """It is the first session of its instance, and no call waits for it."""
    AGAIN = 2
    """It replaces an earlier session, and no call waits for it."""


class _Lane(Generic[K]):
    """A number of slots, their holders, and the attempts that wait for one."""

    __slots__ = ("capacity", "holders", "lenders", "lent_for_long", "most_lent", "passed_over", "waiting")

    def __init__(self, capacity: int, most_lent: int) -> None:
        self.capacity = capacity
        self.most_lent = most_lent
        self.holders: set[K] = set()
        self.lenders: set[K] = set()
        self.lent_for_long: set[K] = set()
        # By urgency, in order of arrival; the values are the numbers of the arrivals.
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
    """Share slots among the attempts to make a session.

    Attempts that a call waits for go first, then first sessions, then replacements. Instances whose last attempt failed
    have slots of their own, so that however many are dead, the others do not wait for them. An attempt that only waits
    for its server can lend its slot to the next attempt and go on.

    Parameters
    ----------
    capacity, failed_capacity
        The number of slots, and the number of those in addition for instances whose last attempt failed.
    most_lent, most_lent_failed
        How many of each may be lent at a time.
    """

    def __init__(self, capacity: int, failed_capacity: int, *, most_lent: int, most_lent_failed: int) -> None:
        self._usual: _Lane[K] = _Lane(capacity, most_lent)
        self._failed: _Lane[K] = _Lane(failed_capacity, most_lent_failed)
        self._lane_of: dict[K, _Lane[K]] = {}
        self._arrivals = 0

    def ask(self, key: K, urgency: Urgency, *, has_failed: bool) -> None:
        """Put an attempt in line for a slot.

        Parameters
        ----------
        key
            Names the attempt; must not be in use.
        urgency
            How soon the session is needed.
        has_failed
            Whether the last attempt of the same instance failed.
        """
        assert key not in self._lane_of, "an attempt asks once"
        lane = self._lane_of[key] = self._failed if has_failed else self._usual
        self._arrivals += 1
        lane.waiting[urgency][key] = self._arrivals

    def hasten(self, key: K) -> None:
        """Give an attempt that waits for a slot the urgency of a call; otherwise do nothing."""
        lane = self._lane_of.get(key)
        if lane is None:
            return
        for queue in lane.waiting[Urgency.FIRST :]:
            if key in queue:
                lane.waiting[Urgency.CALLER][key] = queue.pop(key)

    def lend(self, key: K) -> bool:
        """Lend an attempt's slot to the next one; return ``False`` if it holds none, or too many are lent."""
        lane = self._lane_of.get(key)
        if lane is None or key in lane.lenders:
            return lane is not None
        if key not in lane.holders or len(lane.lenders) >= lane.most_lent:
            return False
        lane.holders.discard(key)
        lane.lenders.add(key)
        return True

    def lend_for_long(self, key: K) -> bool:
        """Lend an attempt's slot for long; return ``False`` if it cannot lend, or too many slots are lent for long.

        At most half of the slots that may be lent may be lent for long.
        """
        lane = self._lane_of.get(key)
        if lane is None or len(lane.lent_for_long) >= (lane.most_lent + 1) // 2 or not self.lend(key):
            return False
        lane.lent_for_long.add(key)
        return True

    def leave(self, key: K) -> None:
        """Remove an attempt that has ended, whether it waited for a slot, held one or lent it; idempotent."""
        lane = self._lane_of.pop(key, None)
        if lane is None:
            return
        lane.holders.discard(key)
        lane.lenders.discard(key)
        lane.lent_for_long.discard(key)
        for queue in lane.waiting:
            queue.pop(key, None)

    def grant(self) -> list[K]:
        """Assign the free slots, and return the attempts that got one."""
        return [*self._usual.grant(), *self._failed.grant()]

    def is_waiting(self, key: K) -> bool:
        """Tell whether an attempt waits for a slot."""
        lane = self._lane_of.get(key)
        return lane is not None and any(key in queue for queue in lane.waiting)

    def wanted(self) -> Iterable[K]:
        """Return the attempts that hold a slot for which others wait."""
        return [key for lane in (self._usual, self._failed) if any(lane.waiting) for key in lane.holders]
