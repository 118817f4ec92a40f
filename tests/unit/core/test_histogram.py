"""What the histogram refuses, and what it costs."""

from __future__ import annotations

import math
import sys

import pytest

from mcp_manager._core.histogram import Histogram, LatencyWindow, WindowSummary, bucket_index, bucket_lower_bound

SECOND = 10**9


def test_an_empty_histogram_knows_nothing() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    assert (histogram.min_ns, histogram.max_ns, histogram.count, histogram.sum_ns) == (None, None, 0, 0)
    assert histogram.bucket_counts() == {}
    assert histogram.le_counts(-1, 1) == (0, 0, 0)


def test_the_bound_itself_is_at_most_the_bound() -> None:
    histogram = Histogram()
    for duration in (SECOND // 2, SECOND, SECOND + 1):
        histogram.record(duration)
    assert histogram.le_counts(-1, 1) == (1, 2, 3)


@pytest.mark.parametrize("seconds", [math.nan, -1.0, -0.1, 0.0, 2.0**-20, 256.1, math.inf])
def test_durations_without_a_bucket_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must"):
        bucket_index(seconds)


def test_bad_arguments_are_refused_and_change_nothing() -> None:
    histogram = Histogram(schema=2)
    histogram.record(SECOND)
    with pytest.raises(ValueError, match="duration_ns must be at least 0, not -1"):
        histogram.record(-1)
    with pytest.raises(ValueError, match="too coarse"):
        histogram.merge(Histogram(schema=1))
    with pytest.raises(ValueError, match="too coarse"):
        histogram.downscaled(3)
    with pytest.raises(ValueError, match="schema must be 0 to 5, not 6"):
        Histogram(schema=6)
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="q must lie in"):
            histogram.quantile(q)
        with pytest.raises(ValueError, match="q must lie"):
            LatencyWindow().quantile(0, q)
    for lowest, highest in ((-21, 0), (0, 9), (1, 0)):
        with pytest.raises(ValueError, match="exponents"):
            histogram.le_counts(lowest, highest)
    for index in (-81, 36):
        with pytest.raises(ValueError, match="no bucket"):
            bucket_lower_bound(index, schema=2)
    with pytest.raises(ValueError, match="epoch_ns must be positive"):
        LatencyWindow(epoch_ns=0)
    for now_ns, duration_ns in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="at least 0"):
            LatencyWindow().record(now_ns, duration_ns)
    with pytest.raises(TypeError):
        WindowSummary()
    assert histogram.bucket_counts() == {-1: 1}
    assert histogram.count == 1


def test_recording_a_duration_no_times_changes_nothing() -> None:
    histogram = Histogram()
    histogram.record(SECOND, 0)
    assert (histogram.count, histogram.min_ns, histogram.max_ns) == (0, None, None)


def test_merging_a_histogram_into_itself_doubles_it() -> None:
    histogram = Histogram()
    histogram.record(SECOND, 3)
    histogram.merge(histogram)
    assert (histogram.count, histogram.bucket_counts()) == (6, {-1: 6})


def test_only_touched_octaves_take_memory() -> None:
    histogram = Histogram()
    empty = sys.getsizeof(histogram)
    assert empty <= 320
    for duration in range(SECOND + 1, 2 * SECOND, SECOND // 100):
        histogram.record(duration)
    assert sys.getsizeof(histogram) == empty + 32 * 4
    histogram.record(SECOND + 1, 2**31)
    assert sys.getsizeof(histogram) == empty + 32 * 8


def test_a_window_gives_its_pages_back_as_epochs_pass() -> None:
    window = LatencyWindow(epoch_ns=100)
    empty = sys.getsizeof(window)
    for duration in (1000, 10**6, SECOND):
        window.record(0, duration)
    full = sys.getsizeof(window)
    assert full == empty + 3 * 8 * 4
    window.record(100, 0)
    assert sys.getsizeof(window) == full
    window.record(200, 0)
    assert sys.getsizeof(window) == empty
