"""The life of one circuit, told in scenes, and the settings it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mcp_manager._core.breaker import Breaker, BreakerSettings, CircuitSnapshot, Permit, Rejected
from mcp_manager.types import CircuitState, Outcome

SECOND = 10**9


def granted(breaker: Breaker, now_ns: int, *, probe: bool = False) -> Permit:
    permit = breaker.acquire(now_ns, probe=probe)
    assert isinstance(permit, Permit)
    return permit


def wait_of(breaker: Breaker, now_ns: int, *, probe: bool = False) -> int:
    rejected = breaker.acquire(now_ns, probe=probe)
    assert isinstance(rejected, Rejected)
    assert not rejected
    return rejected.retry_after_ns


def call(breaker: Breaker, outcome: Outcome, now_ns: int, **how: Any) -> None:
    breaker.release(granted(breaker, now_ns), outcome, how.pop("duration_ns", 0), now_ns, **how)


def settings(**changes: Any) -> BreakerSettings:
    return BreakerSettings(**{"jitter": 0.0, **changes})


def test_the_defaults_are_the_documented_ones() -> None:
    assert repr(BreakerSettings()) == (
        "BreakerSettings(window_ns=10000000000, min_calls=20, failure_rate=0.5, consecutive_failures=5, "
        "slow_call_ns=0, slow_rate=0.8, open_ns=5000000000, open_max_ns=300000000000, jitter=0.2, "
        "trip_decay_ns=30000000000, half_open_permits=1, half_open_successes=2, probe_ttl_ns=30000000000, "
        "active_first=True, probe_grace_ns=2000000000)"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window_ns", 9),
        ("min_calls", 0),
        ("failure_rate", 0.0),
        ("failure_rate", 1.01),
        ("failure_rate", math.nan),
        ("consecutive_failures", 0),
        ("slow_call_ns", -1),
        ("slow_rate", -0.1),
        ("open_ns", 0),
        ("open_max_ns", 10),
        ("jitter", 1.0),
        ("jitter", math.nan),
        ("trip_decay_ns", -1),
        ("half_open_permits", 0),
        ("half_open_successes", 0),
        ("probe_ttl_ns", 0),
        ("probe_grace_ns", -1),
        ("open_ns", 2**62),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be"):
        BreakerSettings(**{field: value})  # type: ignore[arg-type]


def test_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker = Breaker(settings())
    for _ in range(4):
        call(breaker, Outcome.FAILURE, 0)
    call(breaker, Outcome.SUCCESS, 0)
    for _ in range(4):
        call(breaker, Outcome.FAILURE, 0)
    assert breaker.state == CircuitState.CLOSED
    call(breaker, Outcome.FAILURE, 0)
    assert breaker.state == CircuitState.OPEN
    assert breaker.take_transitions() == [(CircuitState.CLOSED, CircuitState.OPEN, 2, 0, "consecutive_failures")]
    assert breaker.take_transitions() == []


def test_a_share_of_failures_opens_it_once_enough_is_known() -> None:
    breaker = Breaker(settings(consecutive_failures=100, min_calls=4, failure_rate=0.5))
    for outcome in (Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS, Outcome.SUCCESS):
        call(breaker, outcome, 0)
    # Half of four failed, but a success is no reason to open.
    assert breaker.state == CircuitState.CLOSED
    call(breaker, Outcome.FAILURE, 0)
    assert [change.reason for change in breaker.take_transitions()] == ["failure_rate"]


def test_slow_calls_open_it_although_they_succeed() -> None:
    breaker = Breaker(settings(min_calls=2, slow_call_ns=SECOND, slow_rate=1.0))
    call(breaker, Outcome.SUCCESS, 0, duration_ns=SECOND)
    call(breaker, Outcome.SUCCESS, 0, duration_ns=2 * SECOND)
    assert [change.reason for change in breaker.take_transitions()] == ["slow_rate"]


def test_old_results_leave_the_window() -> None:
    breaker = Breaker(settings(consecutive_failures=100, min_calls=2, failure_rate=1.0))
    call(breaker, Outcome.FAILURE, 0)
    assert breaker.snapshot(10 * SECOND - 1).window_failures == 1
    assert breaker.snapshot(10 * SECOND).window_failures == 0
    call(breaker, Outcome.FAILURE, 10 * SECOND)
    assert breaker.state == CircuitState.CLOSED
    call(breaker, Outcome.FAILURE, 10 * SECOND)
    assert breaker.state == CircuitState.OPEN


def test_open_time_doubles_is_capped_and_is_forgiven() -> None:
    breaker = Breaker(settings(consecutive_failures=1, half_open_successes=1))
    now = 0
    for seconds in (5, 10, 20, 40, 80, 160, 300, 300):
        breaker.trip(now)
        assert breaker.snapshot(now).retry_after_ns == seconds * SECOND
        now += seconds * SECOND
        permit = granted(breaker, now, probe=True)
        if seconds < 300:
            breaker.release(permit, Outcome.SUCCESS, 0, now)
            assert breaker.state == CircuitState.CLOSED
        else:
            breaker.release(permit, Outcome.FAILURE, 0, now)
            now += 300 * SECOND
            breaker.release(granted(breaker, now, probe=True), Outcome.SUCCESS, 0, now)
    assert breaker.snapshot(now).trips == 10
    assert breaker.snapshot(now + 60 * SECOND).trips == 8
    breaker.trip(now + 299 * SECOND)
    assert breaker.snapshot(now + 299 * SECOND).retry_after_ns == 10 * SECOND


def test_jitter_spreads_the_open_time() -> None:
    for random, seconds in ((0.0, 4), (0.5, 5), (1.0, 6)):
        breaker = Breaker(BreakerSettings())
        breaker.trip(0, random)
        assert breaker.snapshot(0).retry_after_ns == pytest.approx(seconds * SECOND, rel=1e-9)
    breaker = Breaker(BreakerSettings(open_ns=300 * SECOND))
    breaker.trip(0, 1.0)
    assert breaker.snapshot(0).retry_after_ns == 300 * SECOND


@pytest.mark.parametrize(("asked_s", "open_s"), [(0, 5), (3, 5), (60, 60), (3600, 300)])
def test_it_stays_open_as_long_as_the_server_asks(asked_s: int, open_s: int) -> None:
    breaker = Breaker(settings(consecutive_failures=1))
    call(breaker, Outcome.FAILURE, 0, retry_after_ns=asked_s * SECOND)
    assert breaker.snapshot(0).retry_after_ns == open_s * SECOND


def test_a_probe_goes_first_and_lets_callers_follow() -> None:
    breaker = Breaker(settings())
    breaker.trip(0)
    assert wait_of(breaker, SECOND) == 6 * SECOND
    assert wait_of(breaker, SECOND, probe=True) == 4 * SECOND
    assert wait_of(breaker, 5 * SECOND) == 2 * SECOND
    assert breaker.state == CircuitState.OPEN
    probe = granted(breaker, 5 * SECOND, probe=True)
    assert probe.trial
    assert wait_of(breaker, 5 * SECOND) == 2 * SECOND
    assert wait_of(breaker, 5 * SECOND, probe=True) == 30 * SECOND
    breaker.release(probe, Outcome.SUCCESS, 0, 6 * SECOND)
    trial = granted(breaker, 6 * SECOND)
    assert trial.trial
    assert wait_of(breaker, 6 * SECOND) == 30 * SECOND
    breaker.release(trial, Outcome.SUCCESS, 0, 6 * SECOND)
    assert [change.reason for change in breaker.take_transitions()] == ["trial_due", "recovered"]
    assert not granted(breaker, 6 * SECOND).trial


def test_callers_need_not_wait_for_ever_for_a_probe() -> None:
    breaker = Breaker(settings())
    breaker.trip(0)
    assert wait_of(breaker, 7 * SECOND - 1) == 1
    assert granted(breaker, 7 * SECOND).trial


def test_a_hung_trial_fails_when_its_time_is_over() -> None:
    breaker = Breaker(settings(active_first=False))
    breaker.trip(0)
    hung = granted(breaker, 5 * SECOND)
    assert breaker.snapshot(35 * SECOND - 1).state == CircuitState.HALF_OPEN
    assert breaker.snapshot(35 * SECOND).state == CircuitState.OPEN
    # Open since the 35th second, for ten.
    assert wait_of(breaker, 40 * SECOND) == 5 * SECOND
    breaker.release(hung, Outcome.SUCCESS, 0, 40 * SECOND)
    assert breaker.state == CircuitState.OPEN
    assert granted(breaker, 45 * SECOND).trial


def test_a_late_answer_changes_nothing() -> None:
    breaker = Breaker(settings(half_open_successes=1, active_first=False))
    late, later = granted(breaker, 0), granted(breaker, 0)
    breaker.trip(0)
    breaker.release(late, Outcome.SUCCESS, 0, SECOND)
    assert breaker.state == CircuitState.OPEN
    trial = granted(breaker, 5 * SECOND)
    breaker.release(later, Outcome.SUCCESS, 0, 5 * SECOND)
    assert breaker.state == CircuitState.HALF_OPEN
    breaker.release(trial, Outcome.SUCCESS, 0, 5 * SECOND)
    assert breaker.state == CircuitState.CLOSED


def test_modes_admit_all_or_nothing() -> None:
    breaker = Breaker(settings(consecutive_failures=1))
    breaker.set_mode("forced_open")
    assert (breaker.state, wait_of(breaker, 10**18)) == (CircuitState.OPEN, 0)
    breaker.reset(0)
    assert breaker.state == CircuitState.OPEN
    breaker.set_mode("disabled")
    for _ in range(9):
        call(breaker, Outcome.FAILURE, 0)
    assert (breaker.state, breaker.snapshot(0).window_failures) == (CircuitState.CLOSED, 0)
    breaker.set_mode("metrics_only")
    for _ in range(9):
        call(breaker, Outcome.FAILURE, 0)
    assert (breaker.state, breaker.snapshot(0).window_failures) == (CircuitState.CLOSED, 9)
    breaker.trip(0)
    assert breaker.state == CircuitState.CLOSED
    breaker.set_mode("auto")
    assert breaker.snapshot(0).window_failures == 0
    call(breaker, Outcome.FAILURE, 0)
    assert breaker.state == CircuitState.OPEN
    with pytest.raises(ValueError, match="mode must be one of auto, forced_open, disabled, metrics_only, not 'off'"):
        breaker.set_mode("off")  # type: ignore[arg-type]


def test_bad_arguments_are_refused_and_the_permit_stays_good() -> None:
    breaker = Breaker(settings(consecutive_failures=1))
    permit = granted(breaker, 0)
    with pytest.raises(ValueError, match="outcome must be 0 to 2, not 3"):
        breaker.release(permit, 3, 0, 0)
    with pytest.raises(ValueError, match="random must lie in"):
        breaker.release(permit, Outcome.FAILURE, 0, 0, random=1.5)
    breaker.release(permit, Outcome.FAILURE, 0, 0)
    assert breaker.state == CircuitState.OPEN


@pytest.mark.parametrize("kind", [Permit, Rejected, CircuitSnapshot])
def test_what_only_a_breaker_gives_cannot_be_made(kind: type) -> None:
    with pytest.raises(TypeError):
        kind()
