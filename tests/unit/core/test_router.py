"""What the router decides, case by case."""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from random import Random
from typing import Any

import pytest

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import EXCLUDED, PENDING, READY, Backend, Lease
from mcp_manager._core.router import Router
from mcp_manager._core.snapshots import OTHER_METHOD
from mcp_manager.types import CallStatus, CircuitState, Outcome

MS = 10**6
SECOND = 10**9
START = 10**12


def pool(size: int, **settings: Any) -> tuple[Router, list[Backend]]:
    router = Router()
    router.add_server("a")
    chosen = BreakerSettings(**{"jitter": 0.0, **settings})
    return router, [router.add_backend("a", index, chosen) for index in range(size)]


def call(router: Router, draws: Random, now_ns: int = START, *, duration_ns: int = 10 * MS, fails: bool = False) -> Any:
    lease = router.pick("a", "ping", now_ns, draws.getrandbits(64))
    assert not lease.rejection
    outcome, status = (Outcome.FAILURE, CallStatus.CONNECT_ERROR) if fails else (Outcome.SUCCESS, CallStatus.SUCCESS)
    router.done(lease, outcome, status, now_ns + duration_ns)
    return lease.payload


def test_a_slow_instance_is_avoided_and_a_quick_one_is_not_idle() -> None:
    router, _ = pool(3)
    draws = Random(1)
    durations = {0: 10 * MS, 1: 11 * MS, 2: 200 * MS}
    taken: Counter[int] = Counter()
    for _ in range(600):
        lease = router.pick("a", "ping", START, draws.getrandbits(64))
        router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, START + durations[lease.payload])
        taken[lease.payload] += 1
    # Never chosen against another once its one measurement is known.
    assert taken[2] == 1
    assert taken[0] > taken[1] > 100


def test_every_pair_is_drawn_equally_often_and_its_better_one_chosen() -> None:
    size = 5
    router, instances = pool(size)
    draws = Random(10)
    while any(router.backend_reading(instance, START).latency_s is None for instance in instances):
        lease = router.pick("a", "ping", START, draws.getrandbits(64))
        router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, START + (size - lease.payload) * MS)
    taken: Counter[int] = Counter()
    for first in range(size):
        for second in range(size - 1):
            # The upper and the lower half of the bits are one draw each.
            bits = (math.ceil(first * 2**32 / size) << 32) + math.ceil(second * 2**32 / (size - 1))
            lease = router.pick("a", "ping", START, bits)
            taken[lease.payload] += 1
            router.done(lease, Outcome.IGNORED, CallStatus.CANCELLED, START)
    assert taken == {4: 8, 3: 6, 2: 4, 1: 2}


def test_an_instance_that_fails_at_once_does_not_attract_traffic() -> None:
    router, instances = pool(2, consecutive_failures=1000, min_calls=1000)
    draws = Random(2)
    taken: Counter[int] = Counter()
    for step in range(200):
        lease = router.pick("a", "ping", START + step * MS, draws.getrandbits(64))
        bad = lease.payload == 1
        router.done(
            lease,
            Outcome.FAILURE if bad else Outcome.SUCCESS,
            CallStatus.CONNECT_ERROR if bad else CallStatus.SUCCESS,
            START + step * MS + (1 if bad else 50 * MS),
        )
        taken[lease.payload] += 1
    assert taken[1] == 1
    latency_s = router.backend_reading(instances[1], START).latency_s
    assert latency_s is not None and latency_s >= 1.0


def test_calls_under_way_count() -> None:
    router, _ = pool(2)
    draws = Random(3)
    for _ in range(20):
        call(router, draws)
    leases = [router.pick("a", "ping", START + SECOND, draws.getrandbits(64)) for _ in range(10)]
    assert Counter(lease.payload for lease in leases) == {0: 5, 1: 5}


def test_an_unmeasured_instance_gets_one_call_at_first() -> None:
    router, instances = pool(1)
    draws = Random(4)
    call(router, draws)
    new = router.add_backend("a", 1, instances[0].settings)
    leases = [router.pick("a", "ping", START + SECOND, draws.getrandbits(64)) for _ in range(20)]
    assert Counter(lease.payload for lease in leases) == {0: 19, 1: 1}
    assert new.inflight == 1


def test_the_estimate_peaks_at_once_and_decays_over_ten_seconds() -> None:
    router, (instance,) = pool(1)
    draws = Random(5)

    def estimate(now_ns: int) -> float:
        latency_s = router.backend_reading(instance, now_ns).latency_s
        assert latency_s is not None
        return latency_s

    call(router, draws, START - 10 * MS, duration_ns=10 * MS)
    call(router, draws, START - 100 * MS, duration_ns=100 * MS)
    assert estimate(START) == pytest.approx(0.1)
    assert estimate(START + 10 * SECOND) == pytest.approx(0.1 / math.e)
    call(router, draws, START + 10 * SECOND - 20 * MS, duration_ns=20 * MS)
    assert estimate(START + 10 * SECOND) == pytest.approx(0.1 / math.e + 0.02 * (1 - 1 / math.e))


def test_ready_goes_before_pending_and_excluded_never() -> None:
    router, (ready, pending, excluded) = pool(3, active_first=False)
    router.set_availability(pending, PENDING)
    router.set_availability(excluded, EXCLUDED)
    draws = Random(6)
    assert {call(router, draws) for _ in range(30)} == {0}
    router.trip(ready, START + SECOND)
    assert {call(router, draws) for _ in range(30)} == {1}
    router.trip(pending, START + 2 * SECOND)
    lease = router.pick("a", "ping", START + 2 * SECOND, 0)
    assert (lease.rejection, lease.retry_after_ns) == (CallStatus.CIRCUIT_OPEN, 4 * SECOND)
    for instance in (ready, pending):
        router.set_availability(instance, EXCLUDED)
    lease = router.pick("a", "ping", START + SECOND, 0)
    assert (lease.rejection, lease.retry_after_ns) == (CallStatus.NO_INSTANCE, 0)
    with pytest.raises(ValueError, match="availability must be 0 to 2, not 3"):
        router.set_availability(ready, 3)
    router.set_availability(ready, READY)
    assert router.server_counts("a", START).backends[0].payload == 0


def test_a_call_may_be_for_one_instance_while_that_takes_any() -> None:
    router, instances = pool(3)
    for instance in instances * 2:
        lease = router.pick_on(instance, "tools/list", START)
        assert (lease.rejection, lease.payload, instance.inflight) == (0, instance.payload, 1)
        router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, START + MS)
        assert instance.inflight == 0
    open_one, excluded, removed = instances
    router.trip(open_one, START)
    router.set_availability(excluded, EXCLUDED)
    router.remove_backend(removed)
    rejections = [router.pick_on(instance, "tools/list", START).rejection for instance in instances]
    assert rejections == [CallStatus.CIRCUIT_OPEN, CallStatus.NO_INSTANCE, CallStatus.NO_INSTANCE]
    (method,) = router.server_counts("a", START).methods
    assert [method.counts[status] for status in (CallStatus.SUCCESS, *rejections[:2])] == [6, 1, 2]
    assert [instance.inflight for instance in instances] == [0, 0, 0]


def test_all_others_are_tried_before_a_pick_is_rejected() -> None:
    router, instances = pool(20)
    for instance in instances[:7] + instances[8:]:
        router.trip(instance, START)
    draws = Random(7)
    assert {call(router, draws) for _ in range(50)} == {7}


def test_a_permit_is_never_spent_on_the_one_not_chosen() -> None:
    router, instances = pool(2, active_first=False, half_open_successes=5)
    for instance in instances:
        router.trip(instance, START)
    now_ns = START + 5 * SECOND
    first = router.pick("a", "ping", now_ns, 0)
    second = router.pick("a", "ping", now_ns, 0)
    assert {first.payload, second.payload} == {0, 1}
    assert first.trial and second.trial
    third = router.pick("a", "ping", now_ns, 0)
    assert (third.rejection, third.retry_after_ns) == (CallStatus.CIRCUIT_OPEN, 30 * SECOND)


def test_a_due_trial_does_not_wait_for_the_estimate_to_decay() -> None:
    router, (bad, _) = pool(2, active_first=False, consecutive_failures=1, half_open_successes=1)
    draws = Random(8)
    while router.breaker_state(bad, START) == CircuitState.CLOSED:
        lease = router.pick("a", "ping", START, draws.getrandbits(64))
        failed = lease.payload == 0
        router.done(lease, Outcome.FAILURE if failed else Outcome.SUCCESS, CallStatus.SUCCESS, START + MS, random=2**63)
    now_ns = START + MS + 5 * SECOND
    lease = router.pick("a", "ping", now_ns, draws.getrandbits(64))
    assert (lease.payload, lease.trial) == (0, True)
    router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, now_ns)
    assert router.breaker_state(bad, now_ns) == CircuitState.CLOSED


def test_a_probe_feeds_the_breaker_and_the_health_counters_only() -> None:
    router, (instance,) = pool(1)
    router.trip(instance, START)
    now_ns = START + 5 * SECOND
    assert router.pick("a", "ping", now_ns, 0).retry_after_ns == 2 * SECOND
    for _ in range(2):
        lease = router.pick_probe(instance, now_ns)
        assert lease.payload == 0 and lease.trial
        router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, now_ns + SECOND)
    assert router.breaker_state(instance, now_ns) == CircuitState.CLOSED
    router.trip(instance, now_ns)
    rejected = router.pick_probe(instance, now_ns)
    assert rejected.rejection == CallStatus.CIRCUIT_OPEN
    assert rejected.backend is instance
    router.done(rejected, Outcome.FAILURE, CallStatus.CONNECT_ERROR, now_ns)
    router.done(router.pick_probe(instance, now_ns), Outcome.IGNORED, CallStatus.CANCELLED, now_ns)
    snapshot = router.server_counts("a", now_ns)
    assert (snapshot.health_successes, snapshot.health_failures) == (2, 1)
    assert [sum(method.counts) for method in snapshot.methods] == [1]
    assert (snapshot.window_calls, snapshot.inflight, instance.last_success_ns) == (0, 0, 0)


def test_only_what_was_answered_or_failed_is_measured() -> None:
    router, (instance,) = pool(1)
    for outcome, status, duration in (
        (Outcome.SUCCESS, CallStatus.SUCCESS, 500 * MS),
        (Outcome.SUCCESS, CallStatus.RPC_ERROR, SECOND),
        (Outcome.FAILURE, CallStatus.TIMEOUT, 2 * SECOND),
        (Outcome.IGNORED, CallStatus.CANCELLED, 4 * SECOND),
    ):
        lease = router.pick("a", "ping", START, 0)
        for _ in range(2):
            router.done(lease, outcome, status, START + duration)
    snapshot = router.server_counts("a", START + 4 * SECOND)
    (method,) = snapshot.methods
    assert method.counts == (1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0)
    assert (method.count, method.sum_s) == (3, 3.5)
    assert dict(method.buckets)[0.5] == 1
    assert dict(method.buckets)[1.0] == 2
    assert dict(method.buckets)[2.0] == 3
    assert (snapshot.window_calls, snapshot.window_failures, snapshot.window_sum_s) == (3, 1, 3.5)
    assert snapshot.window.p50_s == pytest.approx(1.0, rel=0.045)
    assert instance.last_success_ns == START + SECOND
    assert router.server_counts("a", START + 120 * SECOND).window_calls == 0


def test_the_number_of_methods_is_bounded() -> None:
    router = Router(max_methods=2)
    router.add_server("a")
    router.add_backend("a", None, BreakerSettings())
    for method in ("m1", "m2", "m3", "m1", OTHER_METHOD, "m4", "m2"):
        router.done(router.pick("a", method, START, 0), Outcome.SUCCESS, CallStatus.SUCCESS, START)
    counts = {method.method: method.counts[0] for method in router.server_counts("a", START).methods}
    assert counts == {"m1": 2, "m2": 2, OTHER_METHOD: 3}
    with pytest.raises(ValueError, match="max_methods must be at least 0"):
        Router(max_methods=-1)


def test_leases_outlive_what_they_were_given_for() -> None:
    router, (instance, other) = pool(2)
    leases = [router.pick("a", "ping", START, draw << 32) for draw in (0, 2**31)]
    router.remove_backend(instance)
    router.remove_backend(instance)
    assert router.server_counts("a", START).inflight == 2
    router.remove_server("a")
    assert other.removed and "a" not in router
    router.add_server("a")
    for lease in leases:
        router.done(lease, Outcome.FAILURE, CallStatus.CONNECTION_LOST, START)
    snapshot = router.server_counts("a", START)
    assert (snapshot.inflight, snapshot.methods, snapshot.window_calls) == (0, (), 0)
    router.remove_backend(other)
    router.set_availability(other, READY)
    router.trip(other, START)
    assert router.take_events() == []
    assert router.pick("a", "ping", START, 0).rejection == CallStatus.NO_INSTANCE


def test_transitions_are_queued_with_their_reason_and_the_oldest_give_way() -> None:
    router, (instance,) = pool(1)
    router.trip(instance, START)
    router.reset_breaker(instance, START + 1)
    router.set_breaker_mode(instance, "forced_open", START + 2)
    assert router.take_events() == [
        (instance, CircuitState.CLOSED, CircuitState.OPEN, 2, START, "tripped"),
        (instance, CircuitState.OPEN, CircuitState.CLOSED, 3, START + 1, "reset"),
        (instance, CircuitState.CLOSED, CircuitState.OPEN, 4, START + 2, "mode_changed"),
    ]
    assert router.pick("a", "ping", START + 10**15, 0).retry_after_ns == 0
    for _ in range(3000):
        router.set_breaker_mode(instance, "auto")
        router.set_breaker_mode(instance, "forced_open")
    assert router.dropped_events == 6000 - 4096
    assert len(router.take_events()) == 4096


def test_unknown_servers_and_bad_arguments_change_nothing() -> None:
    router, (instance,) = pool(1)
    for attempt in (
        lambda: router.pick("b", "ping", START, 0),
        lambda: router.remove_server("b"),
        lambda: router.add_backend("b", None, BreakerSettings()),
        lambda: router.server_counts("b", START),
    ):
        with pytest.raises(KeyError):
            attempt()
    with pytest.raises(ValueError, match="'a' is already known"):
        router.add_server("a")
    lease = router.pick("a", "ping", START, 2**64 - 1)
    with pytest.raises(ValueError, match="outcome must be 0 to 2, not 3"):
        router.done(lease, 3, 0, START)
    with pytest.raises(ValueError, match="status must be 0 to 12, not 13"):
        router.done(lease, 0, 13, START)
    with pytest.raises(OverflowError):
        router.pick("a", "ping", START, 2**64)
    assert instance.inflight == 1
    router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, START)
    assert instance.inflight == 0
    assert router.server_ids() == ["a"]


def test_time_that_goes_backwards_takes_no_time() -> None:
    router, _ = pool(1)
    router.done(router.pick("a", "ping", START, 0), Outcome.SUCCESS, CallStatus.SUCCESS, START - SECOND)
    (method,) = router.server_counts("a", START).methods
    assert (method.count, method.sum_s) == (1, 0.0)


def test_a_removed_instance_is_freed() -> None:
    class Payload:
        pass

    router, _ = pool(0)
    payload = Payload()
    instance = router.add_backend("a", payload, BreakerSettings())
    # As in the pool: the payload knows its backend, and the backend its payload.
    payload.backend = instance  # type: ignore[attr-defined]
    router.done(router.pick("a", "ping", START, 0), Outcome.SUCCESS, CallStatus.SUCCESS, START)
    router.remove_backend(instance)
    watch = weakref.ref(payload)
    del payload, instance
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize("gone", ["instance", "server"])
def test_news_of_a_circuit_that_nobody_takes_holds_nothing_that_is_gone(gone: str) -> None:
    class Payload:
        pass

    router, (other,) = pool(1)
    router.add_server("b")
    payload = Payload()
    instance = router.add_backend("b", payload, BreakerSettings())
    router.trip(instance, START)
    router.trip(other, START)
    if gone == "instance":
        router.remove_backend(instance)
    else:
        router.remove_server("b")
    watch = weakref.ref(payload)
    del payload, instance
    gc.collect()
    assert watch() is None
    assert [event.backend for event in router.take_events()] == [other]


@pytest.mark.parametrize("kind", [Backend, Lease])
def test_what_only_a_router_gives_cannot_be_made(kind: type) -> None:
    with pytest.raises(TypeError):
        kind()
