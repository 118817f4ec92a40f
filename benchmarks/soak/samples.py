"""Samples what the process holds, every few seconds, and computes whether it grows."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import math
import os
import statistics
import sys
import threading
from array import array
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_C_LIBRARY: Final = ctypes.CDLL(None)
# ``blocks`` counts the allocated blocks of Python's allocator, ``heap_mb`` is the memory in use of the C library's. A
# leak shows in one of them; the resident set also includes the holes between.
FIGURES: Final = ("rss_mb", "heap_mb", "blocks", "objects", "tasks", "descriptors", "threads")


class _MallocUse(ctypes.Structure):
    """``struct mallinfo2`` of the GNU C library."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def _heap_bytes() -> float:
    """Return the bytes in use of the C library's allocator, 0 if it does not say."""
    told = getattr(_C_LIBRARY, "mallinfo2", None)
    if told is None:
        return 0.0
    told.restype = _MallocUse
    use = told()
    return float(use.uordblks + use.hblkhd)


class Samples:
    """Samples of this process, in memory that is allocated at the start, so that they do not grow themselves.

    Parameters
    ----------
    most
        The largest number of samples.
    """

    def __init__(self, most: int) -> None:
        self._width = 1 + len(FIGURES)
        self._values = array("d", bytes(8 * self._width * most))
        self._count = 0

    def take(self, at_s: float) -> dict[str, float]:
        """Take a sample at ``at_s`` seconds since the start, and return it.

        Before that, both allocators give back what they can, so that what remains is really held.
        """
        gc.collect()
        give_back = getattr(_C_LIBRARY, "malloc_trim", None)
        if give_back is not None:
            give_back(0)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        seen = (
            at_s,
            pages * _PAGE / 1e6,
            _heap_bytes() / 1e6,
            sys.getallocatedblocks(),
            len(gc.get_objects()),
            len(asyncio.all_tasks()),
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
        )
        at = self._count * self._width
        for place, value in enumerate(seen):
            self._values[at + place] = value
        self._count += 1
        return dict(zip(("at_s", *FIGURES), seen, strict=True))

    def rows(self) -> list[dict[str, float]]:
        """Return all samples, in order."""
        names = ("at_s", *FIGURES)
        starts = range(0, self._count * self._width, self._width)
        return [dict(zip(names, self._values[at : at + self._width], strict=True)) for at in starts]


def growth(rows: list[dict[str, float]], figure: str) -> tuple[float, float]:
    """Return the growth of a figure in percent of its mean per hour, and half the width of its 95 % interval.

    The slope is the median of the slopes between all pairs (Theil and Sen), which single peaks do not affect. The
    interval is that of the ordinary least squares residuals.
    """
    times = [row["at_s"] / 3600 for row in rows]
    values = [row[figure] for row in rows]
    mean = statistics.fmean(values)
    if len(rows) < 3 or mean == 0:
        return 0.0, math.inf
    slopes = [
        (values[j] - values[i]) / (times[j] - times[i]) for i in range(len(times)) for j in range(i + 1, len(times))
    ]
    slope = statistics.median(slopes)
    middle = statistics.fmean(times)
    fitted = [value - mean - slope * (time - middle) for time, value in zip(times, values, strict=True)]
    spread = sum((time - middle) ** 2 for time in times)
    error = math.sqrt(sum(each * each for each in fitted) / (len(times) - 2) / spread)
    return slope / mean * 100, 1.96 * error / mean * 100
