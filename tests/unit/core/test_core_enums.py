"""The numbers that the compiled core and the Python types share are equal."""

from __future__ import annotations

from mcp_manager._core.breaker import Breaker, BreakerSettings, Permit
from mcp_manager._core.records import EXCLUDED, PENDING, READY, STATUS_COUNT
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, CircuitState, Outcome


def granted(breaker: Breaker, now_ns: int, *, probe: bool = False) -> Permit:
    permit = breaker.acquire(now_ns, probe=probe)
    assert isinstance(permit, Permit)
    return permit


def test_states_and_outcomes_mean_the_same_in_the_core() -> None:
    breaker = Breaker(BreakerSettings(consecutive_failures=1, open_ns=10, jitter=0.0, half_open_successes=1))
    assert breaker.state == CircuitState.CLOSED
    breaker.release(granted(breaker, 0), Outcome.IGNORED, 0, 0)
    assert breaker.snapshot(0).window_calls == 0
    breaker.release(granted(breaker, 0), Outcome.SUCCESS, 0, 0)
    assert (breaker.snapshot(0).window_calls, breaker.snapshot(0).window_failures) == (1, 0)
    breaker.release(granted(breaker, 0), Outcome.FAILURE, 0, 0)
    assert breaker.state == CircuitState.OPEN
    permit = granted(breaker, 10, probe=True)
    assert breaker.state == CircuitState.HALF_OPEN
    breaker.release(permit, Outcome.SUCCESS, 0, 10)
    assert breaker.state == CircuitState.CLOSED
    assert {int(state) for state in CircuitState} == {0, 1, 2}
    assert {int(outcome) for outcome in Outcome} == {0, 1, 2}


def test_every_status_has_its_counter() -> None:
    assert [int(status) for status in CallStatus] == list(range(STATUS_COUNT))
    router = Router()
    router.add_server("a")
    assert router.pick("a", "ping", 0, 0).rejection == CallStatus.NO_INSTANCE
    instance = router.add_backend("a", None, BreakerSettings())
    router.trip(instance, 0)
    assert router.pick("a", "ping", 0, 0).rejection == CallStatus.CIRCUIT_OPEN
    router.reset_breaker(instance, 0)
    for status in CallStatus:
        router.done(router.pick("a", "ping", 0, 0), Outcome.SUCCESS, status, 0)
    (method,) = router.server_counts("a", 0).methods
    assert method.counts == (1,) * 10 + (2, 2, 1)


def test_availabilities_are_ordered() -> None:
    assert (READY, PENDING, EXCLUDED) == (0, 1, 2)
