"""Allowances: how many calls per time, how many retries beside them, and how many of those a server refuses anyway.

Times are nanoseconds of a monotonic clock; one that goes backwards is taken for one that stands still.
"""

from typing import Self, final

__pyx_capi__: dict[str, object]

@final
class RateLimiter:
    """The generic cell rate algorithm (ITU-T I.371, annex A, virtual scheduling): one number for its state.

    Parameters
    ----------
    rate
        Calls per second in the long run; 0 sets no limit.
    burst
        Calls that may come at once after a pause.

    Raises
    ------
    ValueError
        Out of range.
    """

    def __new__(cls, *, rate: float, burst: int = 1) -> Self: ...
    def take(self, now_ns: int) -> int:
        """Let a call through and return 0, or return in how many nanoseconds to come back."""

@final
class RetryBudget:
    """How many retries there may be beside the calls of the last ``ttl_ns`` (Finagle, RetryBudget).

    ``ratio`` of the calls, and ``min_per_s`` a second beside that. The window moves in tenths: whatever the moment, the
    retries of the last 0.9 ``ttl_ns`` are at most ``ratio`` times the calls of the last ``ttl_ns`` plus the reserve.

    Raises
    ------
    ValueError
        Out of range.
    """

    def __new__(cls, *, ratio: float = 0.2, min_per_s: float = 10.0, ttl_ns: int = 10_000_000_000) -> Self: ...
    @property
    def ratio(self) -> float:
        """Retries for each call."""

    @property
    def reserve(self) -> float:
        """Retries in a window beside that."""

    def deposit(self, now_ns: int) -> None:
        """Count a call."""

    def balance(self, now_ns: int) -> float:
        """Return how many retries there may be now."""

    def withdraw(self, now_ns: int) -> bool:
        """Take one retry; tell whether there was one."""

@final
class Shedder:
    """Client-side throttling (Site Reliability Engineering, chapter 21): refuse here what a server refuses anyway.

    Of ``requests`` sent in the window of which ``accepts`` were not refused, the next one is refused with the probability
    ``max(0, (requests - multiple * accepts) / (requests + 1))``.

    Raises
    ------
    ValueError
        Out of range.
    """

    def __new__(cls, *, window_ns: int = 120_000_000_000, multiple: float = 2.0) -> Self: ...
    @property
    def multiple(self) -> float:
        """The multiple of what is accepted that is still sent."""

    def sheds(self, now_ns: int, random: int) -> bool:
        """Tell whether a call is refused; ``random`` are 64 uniform bits."""

    def sent(self, now_ns: int) -> None:
        """Count a call that was sent."""

    def accepted(self, now_ns: int) -> None:
        """Count one that was not refused."""
