"""The ring of ordinary calls holds what a list cut to its length would, and every reference it takes it gives back."""

from __future__ import annotations

import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager._core.call_ring import CallRing, PastCall

CALLS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2**62), st.integers(0, 2**31 - 1), st.integers(0, 2)), max_size=40
)


@given(capacity=st.integers(1, 9), calls=CALLS)
def test_it_holds_the_latest_calls_in_order(capacity: int, calls: list[tuple[int, int, int, int]]) -> None:
    ring = CallRing(capacity)
    model: deque[PastCall] = deque(maxlen=capacity)
    for server, started_ns, inflight, circuit in calls:
        call = PastCall(f"s{server}", f"m{server}", (server, 1, None), started_ns, started_ns + 5, inflight, circuit)
        ring.add(*call)
        model.append(call)
        assert len(ring) == len(model)
        assert ring.past_calls() == list(model)
    assert ring.capacity == capacity


@given(capacity=st.integers(1, 5), count=st.integers(0, 17))
def test_it_keeps_a_label_as_long_as_its_call_and_no_longer(capacity: int, count: int) -> None:
    ring = CallRing(capacity)
    label = (1, 2, "a label of its own")
    before = sys.getrefcount(label)
    for number in range(count):
        ring.add("server", "method", label, number, number, 0, 0)
    assert sys.getrefcount(label) - before == min(capacity, count)
    del ring
    assert sys.getrefcount(label) == before


@pytest.mark.parametrize("capacity", [0, -1])
def test_it_is_never_empty_by_design(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity must be at least 1, not {capacity}"):
        CallRing(capacity)
