"""When a new configuration is worse than the old one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.fleet.canary import Sample, what_is_worse

GOOD = Sample(200, 0, 0.010)
COUNTS = st.integers(0, 1000)


@pytest.mark.parametrize(
    ("new", "old", "complaint"),
    [
        (Sample(20, 0, 0.010), GOOD, ""),
        (Sample(19, 19, 9.0), GOOD, ""),
        (Sample(20, 1, 0.010), GOOD, ""),
        (Sample(20, 2, 0.010), GOOD, "2 of its 20 calls failed (10%, against 0% of the old one's)"),
        (Sample(20, 2, 0.010), Sample(0, 0, None), "2 of its 20 calls failed"),
        # More than 5 % more, and yet what chance may bring with so few.
        (Sample(20, 6, 0.010), Sample(200, 40, 0.010), ""),
        (Sample(200, 60, 0.010), Sample(2000, 400, 0.010), "60 of its 200"),
        (Sample(2000, 500, 0.010), Sample(2000, 420, 0.010), ""),
        (Sample(100, 0, 0.016), GOOD, ""),
        (Sample(100, 0, 0.059), GOOD, ""),
        (Sample(100, 0, 0.061), GOOD, "p95"),
        (Sample(100, 0, 0.140), Sample(100, 0, 0.100), ""),
        (Sample(100, 0, 0.160), Sample(100, 0, 0.100), "160.0 ms"),
        # Three calls say nothing of what is usual.
        (Sample(100, 0, 0.160), Sample(3, 0, 0.001), ""),
    ],
)
def test_verdicts(new: Sample, old: Sample, complaint: str) -> None:
    said = what_is_worse(new, old, 20)
    assert complaint in said
    assert bool(complaint) == bool(said)


@given(COUNTS, COUNTS, st.floats(0, 10), st.floats(0, 10))
def test_one_that_is_no_worse_is_never_called_worse(calls: int, failures: int, p95_s: float, less: float) -> None:
    failures = min(failures, calls)
    sample = Sample(calls, failures, p95_s)
    assert what_is_worse(sample, sample, 1) == ""
    assert what_is_worse(Sample(calls, 0, max(0.0, p95_s - less)), sample, 1) == ""


@given(st.integers(20, 1000), COUNTS)
def test_one_that_only_fails_beside_one_that_never_does_is_worse(calls: int, old_calls: int) -> None:
    assert what_is_worse(Sample(calls, calls, 0.0), Sample(old_calls, 0, 0.0), 20)
