"""Arithmetic of durations in exponential buckets."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_manager._core.readings import Distribution

__all__ = ["less", "since", "together"]

_NONE = Distribution(0, 0, 0, 0, 0, 0, 0, [])


def since(before: Distribution, now: Distribution) -> Distribution:
    """Return what was added between two readings of one histogram; all of it if the histogram began anew."""
    return now if now.count < before.count else less(now, before)


def less(whole: Distribution, part: Distribution) -> Distribution:
    """Return a distribution without a part of it, in the wider buckets of the two; the extremes are those of the whole."""
    if not part.count:
        return whole
    scale = min(whole.scale, part.scale)
    counts = _by_index(whole, scale)
    for index, count in _by_index(part, scale).items():
        counts[index] = counts.get(index, 0) - count
    return _made(
        whole._replace(
            scale=scale,
            count=whole.count - part.count,
            sum_ns=whole.sum_ns - part.sum_ns,
            zero_count=max(whole.zero_count - part.zero_count, 0),
        ),
        counts,
    )


def together(parts: Iterable[Distribution]) -> Distribution:
    """Return all durations of some distributions, in the widest of their buckets, without extremes."""
    total = _NONE
    for each in parts:
        if not each.count:
            continue
        if not total.count:
            total = each._replace(min_ns=0, max_ns=0)
            continue
        scale = min(total.scale, each.scale)
        counts = _by_index(total, scale)
        for index, count in _by_index(each, scale).items():
            counts[index] = counts.get(index, 0) + count
        total = _made(
            total._replace(
                scale=scale,
                count=total.count + each.count,
                sum_ns=total.sum_ns + each.sum_ns,
                zero_count=total.zero_count + each.zero_count,
            ),
            counts,
        )
    return total


def _by_index(shown: Distribution, scale: int) -> dict[int, int]:
    counts: dict[int, int] = {}
    for index, count in enumerate(shown.counts, shown.offset):
        index >>= shown.scale - scale
        counts[index] = counts.get(index, 0) + count
    return counts


def _made(shown: Distribution, counts: dict[int, int]) -> Distribution:
    held = [index for index, count in counts.items() if count > 0]
    if not held:
        return shown._replace(offset=0, counts=[])
    first = min(held)
    return shown._replace(offset=first, counts=[max(counts.get(index, 0), 0) for index in range(first, max(held) + 1)])
