"""Rate limits, retry budgets and client-side throttling.

Times are nanoseconds of a monotonic clock.
"""

from typing import Self, final

__pyx_capi__: dict[str, object]

@final
class RateLimiter:
    """Limit calls per second with the generic cell rate algorithm (ITU-T I.371, annex A, virtual scheduling).

    Parameters
    ----------
    rate
        Average calls per second, 1e-9 to 1e9; 0 sets no limit.
    burst
        Calls that may come at once after a pause, at least 1.

    Raises
    ------
    ValueError
        ``rate`` or ``burst`` is out of range.
    """

    def __new__(cls, *, rate: float, burst: int = 1) -> Self: ...
    def take(self, now_ns: int) -> int:
        """Admit a call and return 0, or return the nanoseconds after which to try again."""

@final
class RetryBudget:
    """Bound retries by the number of calls in the last ``ttl_ns`` (Finagle, RetryBudget).

    The window moves in tenths. At any moment, the retries of the last 0.9 ``ttl_ns`` are at most ``ratio`` times the
    calls of the last ``ttl_ns`` plus the reserve.

    Parameters
    ----------
    ratio
        Retries per call, 0 to 1e6.
    min_per_s
        Further retries per second, 0 to 1e9: the reserve, which needs no calls.
    ttl_ns
        Length of the window in nanoseconds, at least 10.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    def __new__(cls, *, ratio: float = 0.2, min_per_s: float = 10.0, ttl_ns: int = 10_000_000_000) -> Self: ...
    @property
    def ratio(self) -> float:
        """Retries per call."""

    @property
    def reserve(self) -> float:
        """Further retries in a window, which need no calls."""

    def deposit(self, now_ns: int) -> None:
        """Count a call."""

    def balance(self, now_ns: int) -> float:
        """Return how many retries are left."""

    def withdraw(self, now_ns: int) -> bool:
        """Take one retry, and return whether one was left."""

@final
class Shedder:
    """Refuse calls that an overloaded server would refuse (client-side throttling, SRE book, chapter 21).

    Of ``requests`` calls sent in the window, the server did not refuse ``accepts``. The next call is refused here with
    the probability ``max(0, (requests - multiple * accepts) / (requests + 1))``.

    Parameters
    ----------
    window_ns
        Length of the window in nanoseconds, at least 10.
    multiple
        How many calls may be sent for each one accepted before any is refused here, 1 to 1e6.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    def __new__(cls, *, window_ns: int = 120_000_000_000, multiple: float = 2.0) -> Self: ...
    @property
    def multiple(self) -> float:
        """How many calls may be sent for each one accepted before any is refused here."""

    def sheds(self, now_ns: int, random: int) -> bool:
        """Return whether to refuse a call; ``random`` is 64 uniform bits."""

    def sent(self, now_ns: int) -> None:
        """Count a call that was sent."""

    def accepted(self, now_ns: int) -> None:
        """Count a call that was sent and not refused."""
