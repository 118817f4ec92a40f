"""What the process holds, every few seconds, and whether it grows."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import statistics
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
FIGURES: Final = ("rss_mb", "objects", "tasks", "descriptors", "threads")


@dataclass(frozen=True)
class Sample:
    """One look at this process; ``at_s`` since the start of the soak."""

    at_s: float
    rss_mb: float
    objects: int
    tasks: int
    descriptors: int
    threads: int


def take(at_s: float) -> Sample:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Sample(
        at_s=at_s,
        rss_mb=pages * _PAGE / 1e6,
        objects=len(gc.get_objects()),
        tasks=len(asyncio.all_tasks()),
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
    )


def growth(samples: list[Sample], figure: str) -> tuple[float, float]:
    """Return the growth of a figure in percent of its mean an hour, and half the width of its 95 % interval.

    The slope is Theil and Sen's median of the slopes between pairs, which single peaks do not move; the interval is that of
    the ordinary least squares residuals.
    """
    times = [sample.at_s / 3600 for sample in samples]
    values = [float(getattr(sample, figure)) for sample in samples]
    mean = statistics.fmean(values)
    if len(samples) < 3 or mean == 0:
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
