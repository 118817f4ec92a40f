"""The settings of a backend change in place: what it has learned stays, as far as the new settings allow."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import Backend, Balancing, Lease, Limits
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, CircuitState, Outcome, Rejection

S = 10**9
NOW = 1_000 * S
STRICT: dict[str, Any] = {"consecutive_failures": 2, "jitter": 0.0, "open_ns": 10 * S, "active_first": False}


def settings(**changed: Any) -> BreakerSettings:
    return BreakerSettings(**{**STRICT, **changed})


class Fleet:
    def __init__(self, backends: int = 1, policy: str = "p2c", **changed: Any) -> None:
        self.router = Router()
        self.router.add_server("a", Balancing(policy=policy))
        self.backends = [
            self.router.add_backend("a", number, settings(**changed), identity=number + 1) for number in range(backends)
        ]

    def adjust(
        self, number: int = 0, *, weight: float = 1.0, tier: int = 0, identity: int = 0, at: int = NOW, **changed: Any
    ) -> None:
        self.router.adjust_backend(self.backends[number], settings(**changed), weight, tier, identity, at)

    def pick(self, at: int = NOW, key: int = 0) -> Lease:
        return self.router.pick("a", "m", at, at * 0x9E3779B97F4A7C15 % 2**64, key)

    def fail(self, at: int = NOW) -> None:
        self.end(self.pick(at), at, Outcome.FAILURE)

    def end(self, lease: Lease, at: int = NOW, outcome: Outcome = Outcome.SUCCESS) -> None:
        assert not lease.rejection
        status = CallStatus.SUCCESS if outcome is Outcome.SUCCESS else CallStatus.TIMEOUT
        self.router.done(lease, outcome, status, at)

    def state(self, at: int = NOW) -> CircuitState:
        return CircuitState(self.router.breaker_state(self.backends[0], at))

    def trips_in(self, at: int = NOW) -> float:
        return self.router.backend_reading(self.backends[0], at).retry_after_ns / S


def test_failures_in_a_row_count_on() -> None:
    fleet = Fleet(consecutive_failures=100)
    for _ in range(4):
        fleet.fail()
    fleet.adjust(consecutive_failures=5)
    assert fleet.state() is CircuitState.CLOSED
    fleet.fail()
    assert fleet.state() is CircuitState.OPEN


def test_a_window_of_the_same_length_counts_on_and_one_of_another_starts_empty() -> None:
    for window_s, expected in ((10, CircuitState.OPEN), (20, CircuitState.CLOSED)):
        fleet = Fleet(consecutive_failures=100, min_calls=4)
        for _ in range(3):
            fleet.fail()
        fleet.adjust(consecutive_failures=100, min_calls=4, window_ns=window_s * S)
        assert fleet.router.backend_reading(fleet.backends[0], NOW).window_calls == (3 if window_s == 10 else 0)
        fleet.fail()
        assert fleet.state() is expected


def test_an_open_circuit_stays_open_no_longer_than_the_new_settings_allow() -> None:
    fleet = Fleet()
    fleet.fail()
    fleet.fail()
    assert fleet.trips_in() == 10
    fleet.adjust(open_ns=S, open_max_ns=300 * S)
    assert (fleet.state(), fleet.trips_in()) == (CircuitState.OPEN, 10)
    fleet.adjust(open_ns=S, open_max_ns=2 * S)
    assert (fleet.state(), fleet.trips_in()) == (CircuitState.OPEN, 2)
    assert fleet.pick(NOW + S).rejection == Rejection.CIRCUIT_OPEN
    assert not fleet.pick(NOW + 2 * S).rejection


def test_a_circuit_held_open_for_a_restart_is_left_alone() -> None:
    fleet = Fleet()
    fleet.router.trip(fleet.backends[0], NOW, hold_ns=60 * S)
    fleet.adjust(open_ns=S, open_max_ns=2 * S)
    assert fleet.trips_in() == 60


@pytest.mark.parametrize(("before", "after"), [(1, 5), (5, 1), (3, 1000)])
def test_trials_under_way_no_longer_count_if_their_number_changes(before: int, after: int) -> None:
    fleet = Fleet(half_open_permits=before)
    fleet.fail()
    fleet.fail()
    later = NOW + 20 * S
    old = [fleet.pick(later) for _ in range(before)]
    assert [each.trial for each in old] == [True] * before
    assert fleet.pick(later).rejection == Rejection.CIRCUIT_OPEN
    fleet.adjust(half_open_permits=after, at=later)
    assert fleet.state(later) is CircuitState.HALF_OPEN
    new = [fleet.pick(later) for _ in range(after)]
    assert [each.trial for each in new] == [True] * after
    assert fleet.pick(later).rejection == Rejection.CIRCUIT_OPEN
    for lease in old:
        fleet.end(lease, later, Outcome.FAILURE)
    assert fleet.state(later) is CircuitState.HALF_OPEN
    fleet.end(new[0], later)
    if after == 1:
        new.append(fleet.pick(later))
    fleet.end(new[1], later)
    assert fleet.state(later) is CircuitState.CLOSED
    for lease in new[2:]:
        fleet.end(lease, later)
    assert fleet.backends[0].inflight == 0


def test_another_number_of_trials_holds_for_a_circuit_that_opened_again() -> None:
    fleet = Fleet(half_open_permits=1)
    fleet.fail()
    fleet.fail()
    fleet.end(fleet.pick(NOW + 20 * S), NOW + 20 * S, Outcome.FAILURE)
    fleet.adjust(half_open_permits=3, at=NOW + 20 * S)
    assert [fleet.pick(NOW + 60 * S).trial for _ in range(3)] == [True] * 3


def test_calls_under_way_count_wherever_the_backend_goes() -> None:
    fleet = Fleet(backends=3)
    lease = fleet.pick()
    moved = fleet.backends.index(lease.backend)
    for tier in (2, 0, 1):
        fleet.adjust(moved, tier=tier)
        assert (fleet.backends[moved].tier, fleet.backends[moved].inflight) == (tier, 1)
    fleet.end(lease)
    assert [each.inflight for each in fleet.backends] == [0, 0, 0]


def test_the_lowest_tier_takes_the_calls() -> None:
    fleet = Fleet(backends=3)
    for tiers in ((1, 0, 1), (2, 2, 0), (0, 1, 1)):
        for number, tier in enumerate(tiers):
            fleet.adjust(number, tier=tier)
        taken = {fleet.pick(NOW + each).payload for each in range(50)}
        assert taken == {tiers.index(0)}


def test_an_open_circuit_moves_along_and_back() -> None:
    fleet = Fleet(backends=2)
    first = fleet.backends[0]
    fleet.router.trip(first, NOW)
    fleet.adjust(0, tier=1)
    fleet.adjust(0, tier=0)
    assert {fleet.pick(NOW + each).payload for each in range(50)} == {1}
    assert {fleet.pick(NOW + 20 * S + each).payload for each in range(2)} == {0, 1}


def test_weights_decide_from_now_on() -> None:
    fleet = Fleet(backends=2, policy="weighted")
    fleet.adjust(0, weight=1e-6)
    assert {fleet.pick(NOW + each).payload for each in range(200)} == {1}


def test_an_identity_decides_where_a_key_goes() -> None:
    fleet, other = Fleet(backends=4), Fleet(backends=4, policy="consistent")
    for number in range(4):
        fleet.adjust(number, identity=number + 101)
        other.router.remove_backend(other.backends[number])
        other.backends[number] = other.router.add_backend("a", number, settings(), identity=number + 101)
    fleet.router.configure("a", Balancing(policy="consistent"), Limits())
    keys = range(1, 60)
    assert [fleet.pick(key=each).payload for each in keys] == [other.pick(key=each).payload for each in keys]


def test_a_removed_backend_is_left_alone() -> None:
    fleet = Fleet(backends=2)
    fleet.router.remove_backend(fleet.backends[0])
    fleet.adjust(0, tier=1)
    assert {fleet.pick(NOW + each).payload for each in range(20)} == {1}


@pytest.mark.parametrize(("weight", "tier"), [(0.0, 0), (float("nan"), 0), (1.0, 256), (1.0, -1)])
def test_a_place_that_is_none_changes_nothing(weight: float, tier: int) -> None:
    fleet = Fleet()
    with pytest.raises(ValueError, match=r"weight|tier"):
        fleet.adjust(weight=weight, tier=tier, consecutive_failures=1)
    backend: Backend = fleet.backends[0]
    assert (backend.weight, backend.tier, backend.settings.consecutive_failures) == (1.0, 0, 2)
