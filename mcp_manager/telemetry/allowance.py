"""A rate that may be used up in one go."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Allowance"]


class Allowance:
    """Allow ``per_s`` things a second, as many of them at once (but at least one); none if it is 0.

    ``clock`` returns seconds that do not go back.
    """

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        self._per_s = per_s
        self._most = max(per_s, 1.0) if per_s else 0.0
        self._left = self._most
        self._clock = clock
        self._at = clock()

    def take(self) -> bool:
        """Take one, and tell whether there was one left."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._per_s, self._most)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
