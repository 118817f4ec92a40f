"""Reading what another thread may change meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["steadily"]

T = TypeVar("T")

# How often a reading is repeated because another thread changed the data meanwhile.
_READINGS: Final = 100


def steadily(read: Callable[[], T]) -> T:
    """Read data that another thread may change, and read it again if that happened meanwhile."""
    for _ in range(_READINGS):
        try:
            return read()
        except RuntimeError:
            # A dictionary, set or queue changed during its iteration.
            continue
    return read()
