"""File descriptors: how many this process may open, and how many of them clients may have."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["AT_ONCE", "for_clients", "raise_limit"]

AT_ONCE: Final = 16
"""How many connections are accepted in one iteration of the event loop."""

_MOST: Final = 100_000
# For servers, programs, files, and connections that were accepted a moment ago.
_FEWEST_OTHERS: Final = 10 * AT_ONCE


def raise_limit() -> None:
    """Let this process open as many files as its user may have, up to 100,000; most systems begin with 1,024."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - exists only on Unix

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            # Some systems have a lower limit of their own: things stay as they are.
            return


def for_clients() -> int:
    """Return how many connections clients may have at a time, so that a quarter of all is left for servers."""
    if sys.platform == "win32":
        return _MOST
    import resource  # noqa: PLC0415 - exists only on Unix

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return min(soft - min(max(soft // 4, _FEWEST_OTHERS), soft // 2), _MOST)
