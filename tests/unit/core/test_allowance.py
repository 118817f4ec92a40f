"""Rates, retry budgets and client-side throttling, case by case."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from mcp_manager._core.allowance import RateLimiter, RetryBudget, Shedder
from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import Lease, Limits
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, Outcome, Rejection

MS = 10**6
SECOND = 10**9
START = 10**12


def test_a_burst_and_then_one_after_the_other() -> None:
    limiter = RateLimiter(rate=10, burst=3)
    assert [limiter.take(START) for _ in range(4)] == [0, 0, 0, 100 * MS]
    assert limiter.take(START + 99 * MS) == MS
    assert limiter.take(START + 100 * MS) == 0
    assert limiter.take(START + 100 * MS) == 100 * MS
    assert [limiter.take(START + 10 * SECOND) for _ in range(4)] == [0, 0, 0, 100 * MS]


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(rate=0)
    assert {limiter.take(START) for _ in range(100)} == {0}


def test_the_budget_is_a_share_of_the_calls_and_some_beside() -> None:
    budget = RetryBudget(ratio=0.2, min_per_s=1.0)
    assert budget.balance(START) == 10
    for _ in range(50):
        budget.deposit(START)
    assert [budget.withdraw(START) for _ in range(21)] == [True] * 20 + [False]
    assert budget.balance(START) == 0
    # Calls and retries leave the window together.
    assert budget.balance(START + 8 * SECOND) == 0
    assert budget.balance(START + 11 * SECOND) == 10


@pytest.mark.parametrize("silence_s", range(11, 32))
def test_after_a_silence_of_any_length_nothing_is_left_in_the_window(silence_s: int) -> None:
    budget = RetryBudget(ratio=0.2, min_per_s=1.0)
    for _ in range(50):
        budget.deposit(START)
    assert budget.withdraw(START)
    assert budget.balance(START) == 19
    assert budget.balance(START + silence_s * SECOND) == 10


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    budget = RetryBudget(ratio=0.0, min_per_s=0.1)
    assert budget.withdraw(START)
    assert not budget.withdraw(START - 60 * SECOND)
    limiter = RateLimiter(rate=1)
    assert limiter.take(START) == 0
    assert limiter.take(START - SECOND) > 0


def test_what_a_server_refuses_is_refused_here_in_the_same_measure() -> None:
    shedder = Shedder(multiple=2.0)
    draws = Random(3)
    for _ in range(1000):
        assert not shedder.sheds(START, draws.getrandbits(64))
        shedder.sent(START)
        shedder.accepted(START)
    for _ in range(3000):
        shedder.sent(START)
    # (4000 - 2 * 1000) / 4001
    shed = sum(shedder.sheds(START, draws.getrandbits(64)) for _ in range(10_000))
    assert abs(shed - 4999) < 200
    assert not shedder.sheds(START + 121 * SECOND, 0)


def test_settings_out_of_range_are_refused() -> None:
    for rate, burst in ((-1.0, 1), (float("nan"), 1), (2e9, 1), (1.0, 0), (1e-8, 1000)):
        with pytest.raises(ValueError, match="must be"):
            RateLimiter(rate=rate, burst=burst)
    for wrong in ({"ratio": -0.1}, {"min_per_s": -1.0}, {"ttl_ns": 9}):
        with pytest.raises(ValueError, match="must be"):
            RetryBudget(**wrong)
    for wrong in ({"multiple": 0.5}, {"window_ns": 0}):
        with pytest.raises(ValueError, match="must be"):
            Shedder(**wrong)
    for limits in (
        {"max_concurrent": -1},
        {"shed_multiple": 0.5},
        {"shed_window_ns": 1},
        {"budget_ratio": -1.0},
        {"budget_ttl_ns": 1},
    ):
        with pytest.raises(ValueError, match="must be"):
            Limits(**limits)


def server(together: Limits | None = None, **limits: Any) -> Router:
    router = Router(together=together)
    for server_id in ("a", "b"):
        router.add_server(server_id, limits=Limits(**limits))
        router.add_backend(server_id, 0, BreakerSettings(consecutive_failures=10**6, min_calls=10**6))
    return router


def pick(router: Router, server_id: str = "a", now_ns: int = START, *, method: str = "x", **how: bool) -> Lease:
    return router.pick(server_id, method, now_ns, 2**63, **how)


def test_picks_keep_to_the_rate_and_retries_are_let_through() -> None:
    router = server(rate=RateLimiter(rate=2, burst=2))
    assert not pick(router).rejection and not pick(router).rejection
    refused = pick(router)
    assert (refused.rejection, refused.retry_after_ns) == (Rejection.RATE, SECOND // 2)
    assert not pick(router, again=True).rejection
    assert not pick(router, now_ns=START + SECOND // 2).rejection
    assert not pick(router, "b").rejection


def test_retries_come_out_of_the_budgets_of_the_server_and_of_all() -> None:
    router = server(Limits(budget_ratio=0.0, budget_min_per_s=0.5), budget_ratio=0.5, budget_min_per_s=0.0)
    records = router.server("a"), router.server("b")
    assert not router.withdraw(records[0], START)
    for _ in range(8):
        router.done(pick(router), Outcome.SUCCESS, CallStatus.SUCCESS, START)
        router.done(pick(router, again=True), Outcome.SUCCESS, CallStatus.SUCCESS, START)
    assert router.budget(records[0], START) == 4
    assert [router.withdraw(records[0], START) for _ in range(5)] == [True] * 4 + [False]
    for _ in range(8):
        pick(router, "b")
    # The server has some left, all together have not.
    assert [router.withdraw(records[1], START) for _ in range(3)] == [True, False, False]
    assert router.budget(records[1], START) == 3


def test_shedding_spares_a_server_and_never_what_looks_after_it() -> None:
    router = server(shed_multiple=2.0, never_shed=frozenset({"ping"}))
    draws = Random(1)

    def call(method: str, status: CallStatus) -> bool:
        lease = router.pick("a", method, START, draws.getrandbits(64))
        if lease.rejection:
            assert lease.rejection == Rejection.SHED
            return False
        router.done(lease, Outcome.FAILURE, status, START)
        return True

    assert sum(call("x", CallStatus.OVERLOADED) for _ in range(1000)) < 60
    assert all(call("ping", CallStatus.OVERLOADED) for _ in range(100))
    for _ in range(3000):
        call("ping", CallStatus.SUCCESS)
    assert all(call("x", CallStatus.SUCCESS) for _ in range(100))


def test_what_is_shed_is_no_call_that_was_sent() -> None:
    router = server(shed_multiple=2.0)
    sent = 0
    draws = Random(5)
    for _ in range(5000):
        lease = router.pick("a", "x", START, draws.getrandbits(64))
        if not lease.rejection:
            sent += 1
            router.done(lease, Outcome.FAILURE, CallStatus.OVERLOADED, START)
    (method,) = router.server_counts("a", START).methods
    assert method.counts[CallStatus.OVERLOADED] == sent
    # The n-th is sent with one chance in n: about the square root of twice the number of all.
    assert 60 < sent < 140
