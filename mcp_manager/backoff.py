"""The computation of waits between attempts: exponential backoff with jitter."""

from __future__ import annotations

__all__ = ["backoff_delay", "jittered"]


def backoff_delay(attempt: int, initial_s: float, max_s: float, jitter: float, random: float) -> float:
    """Return the seconds before an attempt: ``initial_s * 2**attempt``, at most ``max_s``, then spread by ``jitter``.

    The spread keeps clients that failed together from retrying together.

    Parameters
    ----------
    attempt
        Counted from 0.
    jitter
        See :func:`jittered`.
    random
        Uniform in [0, 1).
    """
    exponent = min(attempt, 62)
    return jittered(min(max_s, initial_s * 2.0**exponent), jitter, random)


def jittered(interval_s: float, jitter: float, random: float) -> float:
    """Spread an interval uniformly over ``interval_s * (1 ± jitter)``; ``random`` is uniform in [0, 1)."""
    return interval_s * (1.0 + jitter * (2.0 * random - 1.0))
