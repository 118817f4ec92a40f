"""How long to wait before the next attempt."""

from __future__ import annotations

__all__ = ["backoff_delay", "jittered"]


def backoff_delay(attempt: int, initial_s: float, max_s: float, jitter: float, random: float) -> float:
    """Return the wait before attempt ``attempt`` (from 0): ``initial * 2**attempt`` up to ``max``, spread by ``jitter``.

    ``random`` is uniform in [0, 1). The spread keeps a fleet that failed together from coming back together.
    """
    exponent = min(attempt, 62)
    return jittered(min(max_s, initial_s * 2.0**exponent), jitter, random)


def jittered(interval_s: float, jitter: float, random: float) -> float:
    """Spread an interval evenly over ``interval * (1 ± jitter)``; ``random`` is uniform in [0, 1)."""
    return interval_s * (1.0 + jitter * (2.0 * random - 1.0))
