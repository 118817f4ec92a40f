"""A hashed timing wheel: thousands of deadlines on one timer, set and lifted in constant time.

After Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 6.
"""

from collections.abc import Callable
from typing import Final, Self, final

from typing_extensions import disjoint_base

TICK_NS: Final[int]
"""How far apart visits are at the least, in nanoseconds: a deadline is never early, and late by at most this."""

@disjoint_base
class Deadline:
    """Something that must be over by a certain time; subclass it and say in :meth:`expired` what happens if not."""

    def __init__(self) -> None: ...
    @property
    def pending(self) -> bool:
        """Whether it hangs in a wheel."""

    def expired(self) -> object:
        """Called by :meth:`DeadlineWheel.visit`, once, after the time has passed; must not raise."""

@final
class DeadlineWheel:
    """Hold deadlines until they are lifted or pass.

    Parameters
    ----------
    clock
        Monotonic nanoseconds; asked only when the wheel was empty.
    ask
        ``ask(at_ns)`` wants :meth:`visit` to be called at that time or soon after; a later call replaces an earlier one.
        A visit that finds nothing due is cheap, and so nothing is said when a deadline is lifted.
    """

    def __new__(cls, clock: Callable[[], int], ask: Callable[[int], object]) -> Self: ...
    def __len__(self) -> int: ...
    def add(self, deadline: Deadline, due_ns: int) -> None:
        """Set a deadline; ``ValueError`` if it is set already. One that has passed expires at the next visit."""

    def remove(self, deadline: Deadline) -> None:
        """Lift a deadline; one that is not set is left alone."""

    def visit(self, now_ns: int) -> None:
        """Expire what is due at ``now_ns``, and ask for the next visit if anything is left."""

    def clear(self) -> None:
        """Lift every deadline."""
