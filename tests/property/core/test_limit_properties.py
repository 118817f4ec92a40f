"""Bounds that hold whatever the order of events: of limits, rates and budgets."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from support.examples import examples

from mcp_manager._core.allowance import RateLimiter, RetryBudget, Shedder
from mcp_manager._core.limiter import ConcurrencyLimiter, LimiterSettings

MS = 10**6
SECOND = 10**9
START = 10**12

ENDS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from((0, 0, 0, 1, 2)),
        st.integers(0, 200 * MS),
        st.integers(0, 50 * MS),
    ),
    max_size=200,
)


@given(events=ENDS, least=st.integers(1, 5), more=st.integers(0, 30), initial=st.integers(1, 30))
@settings(max_examples=examples(200), deadline=None)
def test_aimd_equals_its_definition(
    events: list[tuple[int, int, int, int]], least: int, more: int, initial: int
) -> None:
    most = least + more
    limiter = ConcurrencyLimiter(LimiterSettings(initial=initial, least=least, most=most))
    expected: float | None = None
    decreased_ns = 0
    now_ns = START
    for inflight, end, took_ns, pause_ns in events:
        now_ns += pause_ns
        before = limiter.limit
        limiter.ended(inflight, end, took_ns, now_ns)
        if end == 1:
            if expected is None:
                expected = max(float(min(max(initial, least), most)), 0.9 * inflight)
                decreased_ns = now_ns
            elif now_ns - took_ns >= decreased_ns:
                expected *= 0.9
                decreased_ns = now_ns
            expected = min(max(expected, least), most)
        elif end == 0 and expected is not None and 2 * inflight >= expected:
            expected += 1
            if expected >= most:
                expected = None
        assert limiter.limit == (None if expected is None else int(expected))
        assert limiter.limit is None or least <= limiter.limit <= most
        if before is not None and limiter.limit is not None:
            assert limiter.limit <= before + 1


@given(events=ENDS, least=st.integers(1, 5), more=st.integers(1, 100))
@settings(max_examples=examples(100), deadline=None)
def test_a_limit_by_gradient_stays_between_its_bounds(
    events: list[tuple[int, int, int, int]], least: int, more: int
) -> None:
    limiter = ConcurrencyLimiter(LimiterSettings(mode="gradient", least=least, most=least + more))
    now_ns = START
    for inflight, end, took_ns, pause_ns in events:
        now_ns += pause_ns * 10
        limiter.ended(inflight, end, took_ns, now_ns)
        assert limiter.limit is not None and least <= limiter.limit <= least + more


@given(
    rate=st.sampled_from((0.5, 1.0, 3.0, 100.0, 12_345.0)),
    burst=st.integers(1, 20),
    pauses=st.lists(st.integers(0, 2 * SECOND), max_size=150),
)
@settings(max_examples=examples(200), deadline=None)
def test_no_interval_has_more_than_its_rate_and_the_burst(rate: float, burst: int, pauses: list[int]) -> None:
    limiter = RateLimiter(rate=rate, burst=burst)
    interval_ns = int(1e9 / rate)
    now_ns = START
    taken: list[int] = []
    for pause_ns in pauses:
        now_ns += pause_ns
        wait_ns = limiter.take(now_ns)
        assert wait_ns >= 0
        if wait_ns == 0:
            taken.append(now_ns)
            continue
        # What it says is true to the nanosecond, and no call is refused that could be let through.
        recent = [each for each in taken if each > now_ns - burst * interval_ns]
        assert len(recent) >= burst or len(taken) >= burst
        assert limiter.take(now_ns + wait_ns - 1) == 1
        now_ns += wait_ns
        assert limiter.take(now_ns) == 0
        taken.append(now_ns)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - taken[first]) // interval_ns


@given(
    ratio=st.sampled_from((0.0, 0.2, 1.0)),
    min_per_s=st.sampled_from((0.0, 0.3, 2.0)),
    events=st.lists(st.tuples(st.integers(0, 3 * SECOND), st.booleans()), max_size=200),
)
@settings(max_examples=examples(200), deadline=None)
def test_retries_stay_within_their_share(ratio: float, min_per_s: float, events: list[tuple[int, bool]]) -> None:
    ttl_ns = 10 * SECOND
    budget = RetryBudget(ratio=ratio, min_per_s=min_per_s, ttl_ns=ttl_ns)
    now_ns = START
    calls: list[int] = []
    retries: list[int] = []
    for pause_ns, is_call in events:
        now_ns += pause_ns
        if is_call:
            budget.deposit(now_ns)
            calls.append(now_ns)
        elif budget.withdraw(now_ns):
            retries.append(now_ns)
            recent = sum(each > now_ns - ttl_ns * 9 // 10 for each in retries)
            assert recent <= ratio * sum(each > now_ns - ttl_ns for each in calls) + min_per_s * 10 + 1e-9
        else:
            # It is not refused while there is enough of it by the narrowest count.
            recent = sum(each > now_ns - ttl_ns for each in retries)
            assert recent + 1 > ratio * sum(each > now_ns - ttl_ns * 9 // 10 for each in calls) + min_per_s * 10


@given(events=st.lists(st.tuples(st.booleans(), st.integers(0, 2**64 - 1)), max_size=200))
@settings(max_examples=examples(100), deadline=None)
def test_nothing_is_shed_while_half_is_accepted(events: list[tuple[bool, int]]) -> None:
    shedder = Shedder(multiple=2.0)
    sent = accepted = 0
    for refused, random in events:
        chance = max(0.0, (sent - 2 * accepted) / (sent + 1))
        assert shedder.sheds(START, random) == (random * 2.0**-64 < chance)
        shedder.sent(START)
        sent += 1
        if not refused:
            shedder.accepted(START)
            accepted += 1
