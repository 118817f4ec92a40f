"""How long the next attempt waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.backoff import backoff_delay, jittered


@given(
    attempt=st.integers(0, 10_000),
    initial_s=st.floats(0.001, 100.0),
    max_s=st.floats(0.001, 1000.0),
    jitter=st.floats(0.0, 0.99),
    random=st.floats(0.0, 1.0, exclude_max=True),
)
def test_backoff_stays_within_its_bounds(
    attempt: int, initial_s: float, max_s: float, jitter: float, random: float
) -> None:
    delay_s = backoff_delay(attempt, initial_s, max_s, jitter, random)
    centre_s = min(max_s, initial_s * 2.0 ** min(attempt, 62))
    assert centre_s * (1 - jitter) * 0.999999 <= delay_s <= centre_s * (1 + jitter) * 1.000001
    assert delay_s > 0


def test_jitter_spreads_to_both_sides() -> None:
    assert jittered(10.0, 0.1, 0.0) == pytest.approx(9.0)
    assert jittered(10.0, 0.1, 0.5) == pytest.approx(10.0)
    assert jittered(10.0, 0.1, 0.999999) == pytest.approx(11.0, rel=1e-4)
