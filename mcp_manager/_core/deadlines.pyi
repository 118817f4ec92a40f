"""A hashed timing wheel: thousands of deadlines on one timer, each added and removed in constant time.

After Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 6.
"""

from collections.abc import Callable
from typing import Final, Self, final

from typing_extensions import disjoint_base

TICK_NS: Final[int]
"""The resolution of the wheel in nanoseconds: a deadline never expires early, and at most this late."""

@disjoint_base
class Deadline:
    """A point in time; a subclass defines in :meth:`expired` what happens when it has passed."""

    def __init__(self) -> None: ...
    @property
    def pending(self) -> bool:
        """Whether it is in a wheel."""

    def expired(self) -> object:
        """Called once by :meth:`DeadlineWheel.visit` after the time has passed; must not raise."""

@final
class DeadlineWheel:
    """Hold deadlines until they expire or are removed.

    Parameters
    ----------
    clock
        Returns monotonic nanoseconds; called only when a deadline is added to an empty wheel, and at the start.
    ask
        ``ask(at_ns)`` must have :meth:`visit` called at that time or soon after; a later call replaces an earlier one.
        It is not called when a deadline is removed, since a visit that finds nothing due is cheap.
    """

    def __new__(cls, clock: Callable[[], int], ask: Callable[[int], object]) -> Self: ...
    def __len__(self) -> int: ...
    def add(self, deadline: Deadline, due_ns: int) -> None:
        """Add a deadline; one that has passed expires at the next visit.

        Raises
        ------
        ValueError
            It is in a wheel already.
        """

    def remove(self, deadline: Deadline) -> None:
        """Remove a deadline; do nothing if it is in no wheel.

        Raises
        ------
        ValueError
            It is in another wheel.
        """

    def visit(self, now_ns: int) -> None:
        """Expire the deadlines due at ``now_ns``, and request the next visit if any are left."""

    def clear(self) -> None:
        """Remove every deadline."""
