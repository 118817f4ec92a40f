"""A hashed timing wheel (Varghese and Lauck, Hashed and Hierarchical Timing Wheels, 1987, scheme 6)."""

from __future__ import annotations

from math import ceil, floor
from typing import Final, Generic, TypeVar

__all__ = ["TimingWheel", "Turn"]

T = TypeVar("T")

_SLOTS: Final = 4096
_TICK_S: Final = 0.01
# In ticks: a time so close to the beginning of a tick counts as that, since rounding may have moved it.
_SLACK: Final = 1e-6


class Turn(Generic[T]):
    """An item's place on the wheel, by which it can be cancelled."""

    __slots__ = ("item", "tick")

    def __init__(self, item: T, tick: int) -> None:
        self.item: T = item
        self.tick: int = tick


class TimingWheel(Generic[T]):
    """Hold items until they are due; adding and cancelling take constant time.

    No item is returned before it is due, and none more than one tick late if :meth:`advance` is called at
    :meth:`next_at`.

    Parameters
    ----------
    now
        The initial time in seconds. The time is passed to every call, and must not go back.
    tick_s
        Length of a tick in seconds; items due in the same tick are returned together, in any order.
    slots
        Number of ticks in a revolution. Items due later are passed over once per revolution.
    """

    def __init__(self, now: float, *, tick_s: float = _TICK_S, slots: int = _SLOTS) -> None:
        self._tick_s = tick_s
        self._slots = slots
        self._tick = floor(now / tick_s)
        self._turns: dict[int, dict[Turn[T], None]] = {}
        # A bit for each slot that is not empty: the next one is found without checking those between.
        self._filled = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def insert(self, item: T, due: float) -> Turn[T]:
        """Hold an item until ``due``, or until the next tick if that has passed."""
        turn = Turn(item, max(ceil(due / self._tick_s - _SLACK), self._tick + 1))
        slot = turn.tick % self._slots
        turns = self._turns.get(slot)
        if turns is None:
            turns = self._turns[slot] = {}
            self._filled |= 1 << slot
        turns[turn] = None
        self._count += 1
        return turn

    def cancel(self, turn: Turn[T]) -> None:
        """Cancel a turn; do nothing if it has come or was cancelled."""
        slot = turn.tick % self._slots
        turns = self._turns.get(slot)
        if turns is not None and turn in turns:
            self._drop(slot, turns, turn)

    def due(self, turn: Turn[T]) -> float:
        """Return when a turn is due, in seconds."""
        return turn.tick * self._tick_s

    def advance(self, now: float) -> list[T]:
        """Remove and return the items that are due."""
        tick = floor(now / self._tick_s + _SLACK)
        due: list[T] = []
        steps = min(tick - self._tick, self._slots)
        slot = (self._tick + 1) % self._slots
        self._tick = max(tick, self._tick)
        while steps > 0 and (skipped := self._distance(slot)) is not None and skipped < steps:
            slot = (slot + skipped) % self._slots
            turns = self._turns[slot]
            for turn in [each for each in turns if each.tick <= tick]:
                self._drop(slot, turns, turn)
                due.append(turn.item)
            steps -= skipped + 1
            slot = (slot + 1) % self._slots
        return due

    def next_at(self) -> float | None:
        """Return the latest time for the next :meth:`advance`, when an item may be due; ``None`` if there are none."""
        skipped = self._distance((self._tick + 1) % self._slots)
        return None if skipped is None else (self._tick + 1 + skipped) * self._tick_s

    def _distance(self, slot: int) -> int | None:
        """Count the empty slots from ``slot`` on to the next that is not."""
        ahead = self._filled >> slot
        if ahead:
            return (ahead & -ahead).bit_length() - 1
        if self._filled:
            return self._slots - slot + (self._filled & -self._filled).bit_length() - 1
        return None

    def _drop(self, slot: int, turns: dict[Turn[T], None], turn: Turn[T]) -> None:
        del turns[turn]
        self._count -= 1
        if not turns:
            del self._turns[slot]
            self._filled &= ~(1 << slot)
