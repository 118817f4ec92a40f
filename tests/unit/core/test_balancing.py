"""How calls are shared among instances: policies, weights, tiers, ejection, panic, slow start."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import EXCLUDED, PENDING, POLICIES, READY, Backend, Balancing, Lease, Limits
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, CircuitState, Outcome, Rejection

MS = 10**6
SECOND = 10**9
START = 10**12


class Fleet:
    """One server with some instances, whose payloads count from 0."""

    def __init__(
        self,
        size: int,
        *,
        weights: tuple[float, ...] = (),
        tiers: tuple[int, ...] = (),
        max_concurrent: int = 0,
        **balancing: Any,
    ) -> None:
        self.router = Router()
        self.router.add_server("a", Balancing(**balancing), Limits(max_concurrent=max_concurrent))
        self.draws = Random(7)
        self.now_ns = START
        self.instances: list[Backend] = []
        for index in range(size):
            self.add(weights[index] if weights else 1.0, tiers[index] if tiers else 0)

    def add(self, weight: float = 1.0, tier: int = 0) -> Backend:
        settings = BreakerSettings(jitter=0.0, active_first=False, open_ns=5 * SECOND, half_open_successes=1)
        payload = len(self.instances)
        instance = self.router.add_backend("a", payload, settings, weight=weight, tier=tier, identity=payload + 1)
        self.instances.append(instance)
        return instance

    def pick(self, key: int = 0, avoid: Backend | None = None, *, waited: bool = False) -> Lease:
        return self.router.pick("a", "ping", self.now_ns, self.draws.getrandbits(64), key, avoid, waited=waited)

    def done(self, lease: Lease, took_ns: int = MS, *, fails: bool = False) -> None:
        outcome, status = (
            (Outcome.FAILURE, CallStatus.CONNECT_ERROR) if fails else (Outcome.SUCCESS, CallStatus.SUCCESS)
        )
        self.router.done(lease, outcome, status, self.now_ns + took_ns, random=2**63)

    def call(self, key: int = 0, avoid: Backend | None = None) -> int:
        lease = self.pick(key, avoid)
        assert not lease.rejection
        self.done(lease)
        payload: int = lease.payload
        return payload

    def share(self, calls: int) -> Counter[int]:
        return Counter(self.call() for _ in range(calls))

    def pause(self, lease: Lease, seconds: int) -> None:
        """The server answers 429 with a Retry-After."""
        self.router.done(lease, Outcome.IGNORED, CallStatus.OVERLOADED, self.now_ns, retry_after_ns=seconds * SECOND)


def test_round_robin_takes_one_after_the_other() -> None:
    fleet = Fleet(4, policy="round_robin")
    taken = [fleet.call() for _ in range(12)]
    assert sorted(taken[:4]) == [0, 1, 2, 3]
    assert taken == taken[:4] * 3


def test_round_robin_passes_over_those_that_may_not_take_a_call() -> None:
    fleet = Fleet(4, policy="round_robin")
    fleet.router.trip(fleet.instances[2], START)
    assert fleet.share(30) == {0: 10, 1: 10, 3: 10}


def test_random_takes_all_alike_and_weighted_by_weight() -> None:
    evenly = Fleet(4, policy="random", weights=(8, 1, 1, 1)).share(8000)
    assert all(abs(count - 2000) < 150 for count in evenly.values())
    weighted = Fleet(4, policy="weighted", weights=(5, 3, 1, 1)).share(10_000)
    assert [round(weighted[index] / 1000) for index in range(4)] == [5, 3, 1, 1]


def test_a_weight_that_is_hardly_ever_drawn_does_not_stop_the_draw() -> None:
    fleet = Fleet(3, policy="weighted", weights=(1e-9, 1e-9, 1.0))
    fleet.router.set_availability(fleet.instances[2], EXCLUDED)
    share = fleet.share(400)
    assert share.keys() == {0, 1} and abs(share[0] - 200) < 60


def test_least_connections_goes_where_fewer_calls_are_by_weight() -> None:
    fleet = Fleet(2, policy="least_connections", weights=(3, 1))
    leases = [fleet.pick() for _ in range(40)]
    assert Counter(lease.payload for lease in leases) == {0: 30, 1: 10}


def test_p2c_gives_a_heavier_instance_more_calls_at_a_time() -> None:
    fleet = Fleet(2, weights=(3, 1))
    for instance in fleet.instances:
        fleet.done(fleet.router.pick_on(instance, "ping", START))
    leases = [fleet.pick() for _ in range(40)]
    assert Counter(lease.payload for lease in leases) == {0: 30, 1: 10}


def test_a_key_stays_where_it_is_and_moves_only_with_its_instance() -> None:
    fleet = Fleet(5, policy="consistent")
    keys = [fleet.draws.getrandbits(64) for _ in range(1000)]
    before = {key: fleet.call(key) for key in keys}
    assert before == {key: fleet.call(key) for key in keys}
    assert all(120 < count < 290 for count in Counter(before.values()).values())
    fleet.router.trip(fleet.instances[3], START)
    after = {key: fleet.call(key) for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != 3)
    assert 3 not in after.values()
    fleet.add()
    grown = {key: fleet.call(key) for key in keys}
    assert all(grown[key] in (after[key], 5) for key in keys)
    assert 120 < sum(grown[key] == 5 for key in keys) < 290


def test_keys_go_by_weight() -> None:
    fleet = Fleet(2, policy="consistent", weights=(3, 1))
    taken = Counter(fleet.call(fleet.draws.getrandbits(64)) for _ in range(4000))
    assert abs(taken[0] - 3000) < 150


def test_a_call_without_a_key_is_no_key() -> None:
    assert len(Fleet(3, policy="consistent").share(30)) == 3


@pytest.mark.parametrize("policy", POLICIES)
def test_the_one_to_avoid_is_taken_only_if_there_is_no_other(policy: str) -> None:
    fleet = Fleet(3, policy=policy)
    avoid = fleet.instances[1]
    assert {fleet.call(9, avoid) for _ in range(50)} <= {0, 2}
    assert {fleet.call(0, avoid) for _ in range(50)} == {0, 2}
    for other in (0, 2):
        fleet.router.set_availability(fleet.instances[other], EXCLUDED)
    assert fleet.call(9, avoid) == fleet.call(0, avoid) == 1


def test_the_one_to_avoid_is_taken_in_whatever_way_it_is_left() -> None:
    fleet = Fleet(2, tiers=(0, 1))
    fleet.router.eject(fleet.instances[1], START + 60 * SECOND)
    fleet.router.set_availability(fleet.instances[0], PENDING)
    assert fleet.call(0, fleet.instances[0]) == 0
    for tiers in ((0,), (0, 1)):
        trial = Fleet(len(tiers), tiers=tiers)
        for instance in trial.instances:
            trial.router.trip(instance, START)
        trial.now_ns += 6 * SECOND
        leases = [trial.pick(0, trial.instances[0]) for _ in tiers]
        assert all(lease.trial for lease in leases) and leases[-1].payload == 0
    panic = Fleet(4, max_ejection=1.0)
    for index in range(3):
        panic.router.eject(panic.instances[index], START + 60 * SECOND)
    assert {panic.call(0, panic.instances[3]) for _ in range(50)} == {0, 1, 2}


def test_the_first_tier_takes_everything_while_enough_of_it_is_healthy() -> None:
    fleet = Fleet(15, tiers=(0,) * 10 + (1,) * 5)
    for index in range(2):
        fleet.router.trip(fleet.instances[index], START)
    assert fleet.router.tier_loads("a") == {0: 100.0, 1: 0.0}
    assert set(fleet.share(300)) == set(range(2, 10))


def test_what_a_tier_cannot_take_goes_to_the_next() -> None:
    fleet = Fleet(15, tiers=(0,) * 10 + (1,) * 5)
    for index in range(5):
        fleet.router.trip(fleet.instances[index], START)
    loads = fleet.router.tier_loads("a")
    assert loads == {0: pytest.approx(70.0), 1: pytest.approx(30.0)}
    taken = fleet.share(4000)
    assert abs(sum(taken[index] for index in range(10)) - 2800) < 120


def test_scarce_tiers_share_in_proportion() -> None:
    fleet = Fleet(20, tiers=(0,) * 10 + (1,) * 10)
    for index in (*range(8), *range(10, 16)):
        fleet.router.trip(fleet.instances[index], START)
    # 28 and 56 of 84 together (Envoy, "Priority levels").
    assert fleet.router.tier_loads("a") == {0: pytest.approx(100 / 3), 1: pytest.approx(200 / 3)}


def test_a_tier_that_is_down_recovers_through_its_trial() -> None:
    fleet = Fleet(4, tiers=(0, 0, 2, 2))
    for index in range(2):
        fleet.router.trip(fleet.instances[index], START)
    assert fleet.router.tier_loads("a") == {0: 0.0, 2: 100.0}
    assert set(fleet.share(50)) == {2, 3}
    fleet.now_ns += 6 * SECOND
    assert {fleet.call(), fleet.call()} == {0, 1}
    assert fleet.router.tier_loads("a") == {0: 100.0, 2: 0.0}


def test_a_trial_that_was_given_back_undecided_is_given_to_the_next_call() -> None:
    fleet = Fleet(2)
    for instance in fleet.instances:
        fleet.router.trip(instance, START)
    fleet.now_ns += 6 * SECOND
    trials = [fleet.pick(), fleet.pick()]
    assert all(lease.trial for lease in trials)
    assert fleet.pick().rejection == Rejection.CIRCUIT_OPEN
    fleet.router.done(trials[1], Outcome.IGNORED, CallStatus.CANCELLED, fleet.now_ns)
    again = fleet.pick()
    assert again.trial and again.payload == trials[1].payload


def test_a_tier_is_made_whatever_the_order_of_its_instances() -> None:
    fleet = Fleet(3, tiers=(7, 0, 3))
    assert list(fleet.router.tier_loads("a")) == [0, 3, 7]
    assert fleet.call() == 1
    assert [each.tier for each in fleet.instances] == [7, 0, 3]


def test_without_any_session_the_first_tier_connects() -> None:
    fleet = Fleet(4, tiers=(1, 1, 0, 0))
    for instance in fleet.instances:
        fleet.router.set_availability(instance, PENDING)
    assert set(fleet.share(20)) == {2, 3}


def test_an_ejected_instance_returns_in_its_time_and_starts_slowly() -> None:
    fleet = Fleet(4, slow_start_ns=10 * SECOND)
    for _ in range(40):
        fleet.call()
    assert fleet.router.eject(fleet.instances[0], START + 30 * SECOND)
    assert fleet.instances[0].ejected_until_ns == START + 30 * SECOND
    assert 0 not in fleet.share(200)
    fleet.now_ns += 30 * SECOND
    first = [fleet.pick() for _ in range(310)]
    taken = Counter(lease.payload for lease in first)
    # A tenth of the weight, beside three others.
    assert 8 <= taken[0] <= 12
    for lease in first:
        fleet.done(lease)
    fleet.now_ns += 5 * SECOND
    taken = Counter(lease.payload for lease in [fleet.pick() for _ in range(350)])
    assert 45 <= taken[0] <= 55


def test_no_slow_start_where_too_few_others_could_take_the_share() -> None:
    fleet = Fleet(2, slow_start_ns=10 * SECOND)
    for _ in range(20):
        fleet.call()
    fleet.router.set_availability(fleet.instances[0], PENDING)
    fleet.router.set_availability(fleet.instances[0], READY, START)
    assert Counter(fleet.pick().payload for _ in range(20)) == {0: 10, 1: 10}


def test_no_more_than_a_part_is_ejected_but_always_one() -> None:
    fleet = Fleet(5)
    ejected = [fleet.router.eject(instance, START + SECOND) for instance in fleet.instances]
    assert ejected == [True, True, False, False, False]
    assert fleet.router.eject(fleet.instances[0], START + 2 * SECOND)
    lone = Fleet(1, max_ejection=0.0)
    assert lone.router.eject(lone.instances[0], START + SECOND)


def test_a_removed_instance_counts_as_ejected_no_more() -> None:
    fleet = Fleet(3)
    first, second, _ = fleet.instances
    assert fleet.router.eject(first, START + SECOND)
    assert not fleet.router.eject(second, START + SECOND)
    fleet.router.remove_backend(first)
    assert fleet.router.eject(second, START + SECOND)


def test_in_panic_ejected_ones_take_calls_but_no_open_circuit_does() -> None:
    fleet = Fleet(6, max_ejection=1.0)
    for index in range(3):
        fleet.router.eject(fleet.instances[index], START + 60 * SECOND)
    # Half of them are enough.
    assert set(fleet.share(100)) == {3, 4, 5}
    fleet.router.trip(fleet.instances[3], START)
    assert set(fleet.share(200)) == {0, 1, 2, 4, 5}


def test_a_small_pool_does_not_panic() -> None:
    fleet = Fleet(3, max_ejection=1.0)
    for index in range(2):
        fleet.router.eject(fleet.instances[index], START + 60 * SECOND)
    assert set(fleet.share(50)) == {2}


def test_a_pause_that_was_asked_for_is_kept_and_no_circuit_opens() -> None:
    fleet = Fleet(2)
    lease = fleet.pick()
    fleet.pause(lease, 7)
    other = 1 - lease.payload
    assert set(fleet.share(20)) == {other}
    fleet.pause(fleet.router.pick_on(fleet.instances[other], "ping", START), 9)
    refused = fleet.pick()
    assert (refused.rejection, refused.retry_after_ns) == (Rejection.PAUSED, 7 * SECOND)
    assert fleet.router.pick_on(fleet.instances[other], "ping", START).rejection == Rejection.PAUSED
    fleet.now_ns += 7 * SECOND
    assert fleet.call() == lease.payload
    assert fleet.router.breaker_state(fleet.instances[0], fleet.now_ns) == CircuitState.CLOSED


def test_a_pause_lasts_a_minute_at_most() -> None:
    fleet = Fleet(1)
    fleet.pause(fleet.pick(), 3600)
    assert fleet.pick().retry_after_ns == 60 * SECOND


def test_a_server_takes_no_more_calls_than_it_may() -> None:
    fleet = Fleet(2, max_concurrent=3)
    leases = [fleet.pick() for _ in range(3)]
    refused = fleet.pick()
    assert refused.rejection == Rejection.CONCURRENCY
    (before,) = fleet.router.server_counts("a", START).methods
    assert before.counts[CallStatus.OVERLOADED] == 0
    fleet.router.count_refused(refused)
    (after,) = fleet.router.server_counts("a", START).methods
    assert after.counts[CallStatus.OVERLOADED] == 1
    fleet.done(leases[0])
    assert not fleet.pick().rejection


def test_whoever_waits_goes_first_and_is_told() -> None:
    fleet = Fleet(1, max_concurrent=1)
    record = fleet.router.server("a")
    told: list[int] = []
    record.on_slot = lambda: told.append(record.inflight)
    lease = fleet.pick()
    record.waiting = 1
    assert fleet.pick().rejection == Rejection.CONCURRENCY
    fleet.done(lease)
    assert told == [0]
    assert fleet.pick().rejection == Rejection.CONCURRENCY
    mine = fleet.pick(waited=True)
    assert not mine.rejection
    record.waiting = 0
    fleet.done(mine)
    assert told == [0]


def test_settings_out_of_range_are_refused() -> None:
    for wrong in (
        {"policy": "best"},
        {"overprovision": 0.9},
        {"panic_threshold": 1.1},
        {"max_ejection": -0.1},
        {"slow_start_ns": -1},
        {"slow_start_aggression": 0.0},
    ):
        with pytest.raises(ValueError, match="must be"):
            Balancing(**wrong)
    fleet = Fleet(1)
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight"):
            fleet.add(weight)
        with pytest.raises(ValueError, match="weight"):
            fleet.router.set_weight(fleet.instances[0], weight)
    with pytest.raises(ValueError, match="tier"):
        fleet.add(tier=256)
