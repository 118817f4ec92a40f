"""The adaptive limit of an instance: when there is one, how it falls and grows, and what it does to picks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.limiter import ConcurrencyLimiter, LimiterSettings
from mcp_manager._core.records import Backend, Lease, Limits
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, Outcome, Rejection

MS = 10**6
SECOND = 10**9
START = 10**12
WELL, OVERLOAD, OTHERWISE = 0, 1, 2


def limiter(**settings: Any) -> ConcurrencyLimiter:
    return ConcurrencyLimiter(LimiterSettings(**settings))


def test_nothing_is_limited_before_the_first_sign_of_overload() -> None:
    limit = limiter()
    for step in range(1000):
        limit.ended(step, WELL, MS, START + step)
        limit.ended(step, OTHERWISE, MS, START + step)
    assert limit.limit is None


@pytest.mark.parametrize(("inflight", "limit"), [(1, 20), (22, 20), (50, 45), (5000, 1000)])
def test_the_first_sign_sets_it_near_what_was_under_way(inflight: int, limit: int) -> None:
    found = limiter()
    found.ended(inflight, OVERLOAD, MS, START)
    assert found.limit == limit


def test_it_falls_once_in_a_round_trip_and_never_below_the_least() -> None:
    limit = limiter(initial=20, least=2)
    limit.ended(1, OVERLOAD, MS, START)
    # These began before the limit was set.
    for step in range(5):
        limit.ended(1, OVERLOAD, 10 * MS, START + step)
    assert limit.limit == 20
    limit.ended(1, OVERLOAD, MS, START + MS)
    assert limit.limit == 18
    for step in range(2, 60):
        limit.ended(1, OVERLOAD, MS, START + step * MS)
    assert limit.limit == 2


def test_it_grows_by_one_for_each_success_while_half_of_it_is_used() -> None:
    limit = limiter()
    limit.ended(1, OVERLOAD, MS, START)
    limit.ended(9, WELL, MS, START)
    assert limit.limit == 20
    limit.ended(10, WELL, MS, START)
    assert limit.limit == 21
    limit.ended(10, WELL, MS, START)
    assert limit.limit == 21
    limit.ended(11, OTHERWISE, MS, START)
    assert limit.limit == 21


def test_at_the_most_there_is_no_limit_again() -> None:
    limit = limiter(initial=3, most=5)
    limit.ended(1, OVERLOAD, MS, START)
    limit.ended(5, WELL, MS, START)
    assert limit.limit == 4
    limit.ended(5, WELL, MS, START)
    assert limit.limit is None


def test_by_gradient_it_falls_when_latency_grows_and_returns_with_it() -> None:
    limit = limiter(mode="gradient")
    now_ns = START
    assert limit.limit == 20

    def run(seconds: int, took_ns: int) -> int:
        nonlocal now_ns
        for _ in range(seconds * 100):
            now_ns += 10 * MS
            limit.ended(limit.limit or 0, WELL, took_ns, now_ns)
        assert limit.limit is not None
        return limit.limit

    grown = run(20, 10 * MS)
    assert grown > 30
    fallen = run(10, 40 * MS)
    assert fallen < 0.6 * grown
    assert run(40, 10 * MS) > grown


def test_by_gradient_what_is_not_used_shows_nothing_and_drops_count() -> None:
    limit = limiter(mode="gradient")
    for step in range(500):
        limit.ended(3, WELL, 10 * MS, START + step * 10 * MS)
    assert limit.limit == 20
    limit.ended(3, OVERLOAD, MS, START + 10 * SECOND)
    assert limit.limit == 18


class Gradient:
    """What Gradient2 says of a limit, in plain words."""

    def __init__(self, limit: float, least: float, most: float) -> None:
        self.limit, self.least, self.most = limit, least, most
        self.durations: list[int] = []
        self.inflight = self.ends_ns = self.windows = 0
        self.long_ns = 0.0

    def succeeded(self, inflight: int, took_ns: int, now_ns: int) -> None:
        if not self.durations:
            self.ends_ns, self.inflight = now_ns + SECOND, 0
        self.durations.append(took_ns)
        self.inflight = max(self.inflight, inflight)
        if now_ns >= self.ends_ns and len(self.durations) >= 10:
            self.window_ended(max(sum(self.durations) / len(self.durations), 1.0))
            self.durations = []

    def window_ended(self, short_ns: float) -> None:
        self.windows += 1
        share = 1 / self.windows if self.windows <= 10 else 2 / 601
        self.long_ns += (short_ns - self.long_ns) * share
        if self.long_ns > 2 * short_ns:
            self.long_ns *= 0.95
        if self.inflight >= self.limit / 2:
            slope = min(max(1.5 * self.long_ns / short_ns, 0.5), 1.0)
            self.limit = min(max(0.8 * self.limit + 0.2 * (slope * self.limit + 4), self.least), self.most)


@pytest.mark.parametrize("pause_ns", [50 * MS, 100 * MS, 250 * MS])
def test_by_gradient_it_is_what_the_definition_says(pause_ns: int) -> None:
    limit, expected = limiter(mode="gradient", least=3, most=60), Gradient(20, 3, 60)
    randomness, now_ns, limits = Random(1), START, set()
    for step in range(3000):
        # Some windows end with a call to the nanosecond; latencies rise and fall over many of them.
        now_ns += pause_ns
        took_ns = int(MS * (5 + step // 300 % 3 * 40 + randomness.random()))
        inflight = randomness.randrange(2 * int(expected.limit))
        expected.succeeded(inflight, took_ns, now_ns)
        limit.ended(inflight, WELL, took_ns, now_ns)
        assert limit.limit is not None
        # Rounding may differ in the last digit.
        assert limit.limit in {int(expected.limit - 1e-9), int(expected.limit + 1e-9)}
        limits.add(limit.limit)
    assert len(limits) > 10


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read as Linux tells it")
def test_by_gradient_its_memory_ends_with_it() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    settings = LimiterSettings(mode="gradient")
    ConcurrencyLimiter(settings)
    before = resident()
    for _ in range(200_000):
        ConcurrencyLimiter(settings)
    # They would take 12 MB or more.
    assert resident() - before < 5 << 20


def test_off_is_off() -> None:
    limit = limiter(mode="off")
    limit.ended(1, OVERLOAD, MS, START)
    assert limit.limit is None


def test_settings_out_of_range_are_refused() -> None:
    for wrong in (
        {"mode": "vegas"},
        {"least": 0.5},
        {"least": 9.0, "most": 8.0},
        {"initial": 0.0},
        {"decrease": 1.0},
        {"decrease": float("nan")},
    ):
        with pytest.raises(ValueError, match="must be"):
            LimiterSettings(**wrong)
    with pytest.raises(ValueError, match="end"):
        limiter().ended(1, 3, 0, 0)


def pool(size: int, **settings: Any) -> tuple[Router, list[Backend]]:
    router = Router()
    router.add_server("a", limits=Limits(LimiterSettings(**{"initial": 1.0, **settings})))
    breaker = BreakerSettings(consecutive_failures=10_000, min_calls=10_000)
    return router, [router.add_backend("a", index, breaker) for index in range(size)]


def pick(router: Router) -> Lease:
    return router.pick("a", "ping", START, 2**63)


def test_an_instance_at_its_limit_takes_no_call_until_one_ends() -> None:
    router, (instance,) = pool(1)
    router.done(pick(router), Outcome.FAILURE, CallStatus.OVERLOADED, START)
    assert instance.limit == 1
    lease = pick(router)
    refused = pick(router)
    assert refused.rejection == router.pick_on(instance, "ping", START).rejection == Rejection.CONCURRENCY
    assert refused.retry_after_ns == 0
    router.done(lease, Outcome.IGNORED, CallStatus.CANCELLED, START)
    assert not pick(router).rejection


def test_the_others_take_what_one_at_its_limit_does_not() -> None:
    router, instances = pool(2)
    router.done(router.pick_on(instances[0], "ping", START), Outcome.FAILURE, CallStatus.TIMEOUT, START)
    assert [each.limit for each in instances] == [1, None]
    taken = [pick(router).payload for _ in range(50)]
    assert taken.count(0) <= 1
    assert router.backend_reading(instances[0], START).limit == 1


def test_a_limit_that_rises_lets_more_in() -> None:
    router, (instance,) = pool(1)
    router.done(pick(router), Outcome.FAILURE, CallStatus.OVERLOADED, START)
    for expected in (2, 3, 4):
        leases = [pick(router)]
        while not (lease := pick(router)).rejection:
            leases.append(lease)
        assert len(leases) == expected - 1
        for index, lease in enumerate(leases):
            last = index == len(leases) - 1
            outcome = Outcome.SUCCESS if index == 0 else Outcome.IGNORED
            assert not last or len(leases) <= 3
            router.done(lease, outcome, CallStatus.SUCCESS, START + MS)
        assert instance.limit == expected


def test_a_caller_that_was_too_impatient_is_no_sign_of_overload() -> None:
    router, (instance,) = pool(1)
    router.done(pick(router), Outcome.IGNORED, CallStatus.TIMEOUT, START)
    router.done(pick(router), Outcome.FAILURE, CallStatus.CONNECTION_LOST, START)
    assert instance.limit is None
