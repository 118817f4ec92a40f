"""When a new configuration is worse than the old one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager._core.histogram import LatencyWindow
from mcp_manager.fleet.canary import Sample, sample_of, what_is_worse

COUNTS = st.integers(0, 1000)


def sample(calls: int, failures: int, p95_s: float | None, least_p95_s: float | None = None) -> Sample:
    """Make a sample; without a bound of its percentile, that is as sure as can be."""
    return Sample(calls, failures, p95_s, p95_s if least_p95_s is None else least_p95_s)


GOOD = sample(200, 0, 0.010)


@pytest.mark.parametrize(
    ("new", "old", "complaint"),
    [
        (sample(20, 0, 0.010), GOOD, ""),
        (sample(19, 19, 9.0), GOOD, ""),
        (sample(20, 1, 0.010), GOOD, ""),
        (sample(20, 2, 0.010), GOOD, "2 of its 20 calls failed (10%, against 0% of the old one's)"),
        (sample(20, 2, 0.010), sample(0, 0, None), "2 of its 20 calls failed"),
        # More than 5 % more, and yet what chance may bring with so few.
        (sample(20, 6, 0.010), sample(200, 40, 0.010), ""),
        (sample(200, 60, 0.010), sample(2000, 400, 0.010), "60 of its 200"),
        (sample(2000, 500, 0.010), sample(2000, 420, 0.010), ""),
        (sample(100, 0, 0.016), GOOD, ""),
        (sample(100, 0, 0.059), GOOD, ""),
        (sample(100, 0, 0.061), GOOD, "p95"),
        (sample(100, 0, 0.140), sample(100, 0, 0.100), ""),
        (sample(100, 0, 0.160), sample(100, 0, 0.100), "160.0 ms"),
        # More than half as much again, and yet what chance may bring with so few.
        (sample(29, 0, 0.085, 0.040), sample(292, 0, 0.030), ""),
        (sample(29, 0, 0.085, 0.081), sample(292, 0, 0.030), "85.0 ms, against 30.0 ms"),
        # Three calls say nothing of what is usual.
        (sample(100, 0, 0.160), sample(3, 0, 0.001), ""),
    ],
)
def test_verdicts(new: Sample, old: Sample, complaint: str) -> None:
    said = what_is_worse(new, old, 20)
    assert complaint in said
    assert bool(complaint) == bool(said)


@given(COUNTS, COUNTS, st.floats(0, 10), st.floats(0, 10))
def test_one_that_is_no_worse_is_never_called_worse(calls: int, failures: int, p95_s: float, less: float) -> None:
    failures = min(failures, calls)
    same = sample(calls, failures, p95_s)
    assert what_is_worse(same, same, 1) == ""
    assert what_is_worse(sample(calls, 0, max(0.0, p95_s - less)), same, 1) == ""


@given(st.integers(20, 1000), COUNTS)
def test_one_that_only_fails_beside_one_that_never_does_is_worse(calls: int, old_calls: int) -> None:
    assert what_is_worse(sample(calls, calls, 0.0), sample(old_calls, 0, 0.0), 20)


def window_of(*durations_ms: int) -> LatencyWindow:
    window = LatencyWindow(epoch_ns=10**12)
    for duration_ms in durations_ms:
        window.record(1, duration_ms * 10**6)
    return window


@pytest.mark.parametrize(
    ("slow", "calls", "is_worse"),
    [
        # The measured p95 is always 200 ms. If that of all calls is 10 ms, 3 of 20 may be above it by chance, not 4.
        (2, 20, False),
        (3, 20, False),
        (4, 20, True),
        (10, 100, False),
        (11, 100, True),
        (66, 1000, False),
        (67, 1000, True),
        (20, 20, True),
    ],
)
def test_a_few_slow_calls_are_chance(slow: int, calls: int, is_worse: bool) -> None:
    new = sample_of(window_of(*[10] * (calls - slow), *[200] * slow), 2)
    assert new.p95_s == pytest.approx(0.2, rel=0.05)
    assert bool(what_is_worse(new, sample_of(window_of(*[10] * 400), 2), 20)) is is_worse


def test_without_calls_nothing_is_known() -> None:
    assert sample_of(LatencyWindow(), 1) == Sample(0, 0, None, None)
