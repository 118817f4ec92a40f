"""The default of ``max_connections``."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["default_limit"]

# Descriptors reserved for everything else.
_OTHER_DESCRIPTORS: Final = 128
_FEWEST: Final = 16
_MOST: Final = 10_000


def default_limit() -> int:
    """Return how many connections fit the process's descriptor limit: half of it, because open streams come on top."""
    if sys.platform == "win32":
        return _MOST
    import resource  # noqa: PLC0415  (Unix only)

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return min(max((soft - _OTHER_DESCRIPTORS) // 2, _FEWEST), _MOST)
