"""What callers hand over beside requests and configurations, checked before anything is done."""

from __future__ import annotations

from typing import Final

from mcp_manager.errors import InvalidRequestError

__all__ = ["timeout_in_ns", "timeout_in_s"]

# A century: more does not fit nanoseconds beside the time since boot.
_LONGEST_TIMEOUT_S: Final = 100 * 365.25 * 86400


def timeout_in_ns(timeout: float) -> int:
    """Return a timeout in seconds as nanoseconds; raises as :func:`timeout_in_s`."""
    return int(timeout_in_s(timeout) * 1e9)


def timeout_in_s(timeout: float) -> float:
    """Return a timeout in seconds as it was given, or a century if that is less.

    Raises
    ------
    InvalidRequestError
        Not a number, or negative.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidRequestError(f"Invalid request: timeout must be a number of seconds from 0, not {timeout!r}")
    return min(timeout, _LONGEST_TIMEOUT_S)
