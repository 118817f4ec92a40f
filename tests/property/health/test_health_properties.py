"""Turns come when they are due, counts are what counting would give, and few instances are outliers: whatever happens."""

from __future__ import annotations

from math import ceil, floor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mcp_manager.health.outliers import outliers
from mcp_manager.health.tally import SETTLING, Tally
from mcp_manager.health.timing_wheel import TimingWheel, Turn
from mcp_manager.types import ServerState

TICK_S = 0.25
SETTLE_S = 10.0
# Mostly those between which something settles.
STATES = [ServerState.HEALTHY] * 4 + [ServerState.DEGRADED] * 3 + list(ServerState)
REASONS = {state: (str(state),) for state in ServerState} | {ServerState.HEALTHY: ()}


class WheelModel(RuleBasedStateMachine):
    """A wheel of few slots against a list that is looked through."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.wheel: TimingWheel[int] = TimingWheel(self.now, tick_s=TICK_S, slots=8)
        self.kept: dict[int, tuple[float, Turn[int]]] = {}
        self.serial = 0

    @rule(delay=st.floats(-1.0, 10.0))
    def insert(self, delay: float) -> None:
        self.serial += 1
        due = max(ceil((self.now + delay) / TICK_S), floor(self.now / TICK_S) + 1) * TICK_S
        self.kept[self.serial] = (due, self.wheel.insert(self.serial, self.now + delay))

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(sorted(self.kept)))
        _, turn = self.kept.pop(item)
        self.wheel.cancel(turn)
        self.wheel.cancel(turn)

    @rule(passed=st.floats(0.0, 20.0))
    def advance(self, passed: float) -> None:
        self.now += passed
        self.take()

    @precondition(lambda self: self.kept)
    @rule()
    def advance_to_the_next(self) -> None:
        at = self.wheel.next_at()
        assert at is not None
        assert at <= min(due for due, _ in self.kept.values())
        self.now = max(self.now, at)
        self.take()

    def take(self) -> None:
        came = floor(self.now / TICK_S) * TICK_S
        due = sorted(item for item, (at, _) in self.kept.items() if at <= came)
        assert sorted(self.wheel.advance(self.now)) == due
        for item in due:
            del self.kept[item]

    @invariant()
    def what_is_left_is_what_is_kept(self) -> None:
        assert len(self.wheel) == len(self.kept)
        assert (self.wheel.next_at() is None) == (not self.kept)


class TallyModel(RuleBasedStateMachine):
    """Counts against a recount, and what is shown against the last ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.tally: Tally[int] = Tally()
        self.found: dict[int, list[tuple[float, ServerState]]] = {}
        self.serial = 0

    @rule()
    def add(self) -> None:
        self.serial += 1
        self.found[self.serial] = []
        self.tally.add()

    @precondition(lambda self: self.found)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        server = data.draw(st.sampled_from(sorted(self.found)))
        del self.found[server]
        self.tally.remove(server)

    @precondition(lambda self: self.found)
    @rule(data=st.data(), state=st.sampled_from(STATES), passed=st.sampled_from([0.0, 3.0, 6.0, 11.0]))
    def judge(self, data: st.DataObject, state: ServerState, passed: float) -> None:
        self.now += passed
        server = data.draw(st.sampled_from(sorted(self.found)))
        before = self.tally.standing(server)
        was = before.state if before is not None else ServerState.INITIALIZING
        self.found[server].append((self.now, state))
        standing = self.tally.judge(server, state, REASONS[state], self.now, SETTLE_S)
        if state is not ServerState.HEALTHY:
            assert standing.state is state, "what is worse is shown at once"
        elif was in (ServerState.DEGRADED, ServerState.UNHEALTHY):
            well_since = self.now
            for at, found in reversed(self.found[server]):
                if found is not ServerState.HEALTHY:
                    break
                well_since = at
            is_proven = self.now - well_since >= SETTLE_S
            assert standing.state is (ServerState.HEALTHY if is_proven else ServerState.DEGRADED)
            assert standing.reasons == (() if is_proven else (SETTLING,))
        else:
            assert standing.state is ServerState.HEALTHY

    @invariant()
    def counts_are_those_of_a_recount(self) -> None:
        standings = [self.tally.standing(server) for server in self.found]
        states = [each.state if each is not None else ServerState.INITIALIZING for each in standings]
        healthy, unhealthy = states.count(ServerState.HEALTHY), states.count(ServerState.UNHEALTHY)
        assert self.tally.counts == (len(states), healthy, unhealthy)


TestWheel: Any = WheelModel.TestCase
TestTally: Any = TallyModel.TestCase

_counts = st.integers(0, 1000).flatmap(lambda calls: st.tuples(st.just(calls), st.integers(0, calls)))


@settings(deadline=None)
@given(st.lists(_counts, max_size=30))
def test_outliers_are_few_and_fail_more_than_the_others(counts: list[tuple[int, int]]) -> None:
    found = outliers(counts)
    judged = [index for index, (calls, _) in enumerate(counts) if calls >= 100]
    assert set(found) <= set(judged)
    if len(judged) < 5:
        assert not found
    # No more than 1 / (1 + 1.9^2) of anything lies so far below its mean (Cantelli's inequality).
    assert len(found) <= len(judged) / (1 + 1.9**2)
    if found:
        rates = {index: 1 - counts[index][1] / counts[index][0] for index in judged}
        assert max(rates[index] for index in found) < sum(rates.values()) / len(rates)
        assert max(rates[index] for index in found) < min(rates[index] for index in judged if index not in found)


def test_one_bad_instance_of_five_or_more_is_an_outlier() -> None:
    # One of n lies sqrt(n - 1) standard deviations from the mean at most: of five, 2.
    assert outliers([(100, 0)] * 4 + [(100, 90)]) == [4]
    assert outliers([(100, 0)] * 5 + [(100, 90)]) == [5]
    assert outliers([(100, 0)] * 3 + [(100, 90)]) == []
    assert outliers([(100, 10)] * 10) == []


def test_a_relapse_has_it_settle_from_the_beginning() -> None:
    tally: Tally[str] = Tally()
    tally.add()
    shown = [
        tally.judge("a", state, REASONS[state], at, SETTLE_S).state
        for at, state in [
            (0.0, ServerState.DEGRADED),
            (1.0, ServerState.HEALTHY),
            (9.0, ServerState.DEGRADED),
            (12.0, ServerState.HEALTHY),
            (21.0, ServerState.HEALTHY),
            (22.0, ServerState.HEALTHY),
        ]
    ]
    assert shown == [ServerState.DEGRADED] * 5 + [ServerState.HEALTHY]


def test_what_only_drained_is_well_at_once() -> None:
    tally: Tally[str] = Tally()
    tally.add()
    assert tally.judge("a", ServerState.DEGRADED, ("draining", "unprobed"), 0.0, SETTLE_S).state is ServerState.DEGRADED
    assert tally.judge("a", ServerState.HEALTHY, (), 0.0, SETTLE_S).state is ServerState.HEALTHY
    assert tally.judge("a", ServerState.DEGRADED, ("draining", "slow"), 0.0, SETTLE_S).state is ServerState.DEGRADED
    assert tally.judge("a", ServerState.HEALTHY, (), 0.0, SETTLE_S).reasons == (SETTLING,)
