"""How many connections are allowed if nobody says."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["default_limit"]

# Descriptors for everything that is no connection.
_OTHER_DESCRIPTORS: Final = 128
_FEWEST: Final = 16
_MOST: Final = 10_000


def default_limit() -> int:
    """Return how many connections fit the process's limit of descriptors: half, since streams that stand open come on top."""
    if sys.platform == "win32":
        return _MOST
    import resource  # noqa: PLC0415  (not every system has it)

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return min(max((soft - _OTHER_DESCRIPTORS) // 2, _FEWEST), _MOST)
