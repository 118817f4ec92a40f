"""The compiled breaker against a naive model: every operation in any order, and the invariants of its contract."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.examples import examples
from support.models import (
    CLOSED,
    FAILURE,
    HALF_OPEN,
    IGNORED,
    OPEN,
    SUCCESS,
    BreakerModel,
    BreakerParameters,
    PermitModel,
)

from mcp_manager._core.breaker import Breaker, BreakerSettings, Permit, Rejected

OUTCOMES = st.sampled_from((SUCCESS, SUCCESS, FAILURE, FAILURE, IGNORED))
DURATIONS = st.sampled_from((0, 5, 49, 50, 500))
RETRY_AFTER = st.sampled_from((0, 0, 0, 1, 77, 300, 10_000))
RANDOM = st.sampled_from((0.0, 0.25, 0.5, 1.0))

PARAMETERS = st.builds(
    BreakerParameters,
    window_ns=st.sampled_from((100, 1000)),
    min_calls=st.integers(1, 6),
    failure_rate=st.sampled_from((0.3, 0.5, 1.0)),
    consecutive_failures=st.integers(1, 6),
    slow_call_ns=st.sampled_from((0, 0, 50)),
    slow_rate=st.sampled_from((0.5, 0.8)),
    open_ns=st.sampled_from((1, 40, 100)),
    open_max_ns=st.sampled_from((100, 350)),
    jitter=st.sampled_from((0.0, 0.2, 0.9)),
    trip_decay_ns=st.sampled_from((0, 200)),
    half_open_permits=st.integers(1, 3),
    half_open_successes=st.integers(1, 4),
    probe_ttl_ns=st.sampled_from((30, 150)),
    active_first=st.booleans(),
    probe_grace_ns=st.sampled_from((0, 60)),
)


class BreakerMachine(RuleBasedStateMachine):
    """Runs both and compares them after every step."""

    @initialize(parameters=PARAMETERS, start_ns=st.sampled_from((0, 7, 10**15)))
    def start(self, parameters: BreakerParameters, start_ns: int) -> None:
        self.now_ns = start_ns
        self.parameters = parameters
        self.model = BreakerModel(parameters)
        self.breaker = Breaker(BreakerSettings(**vars(parameters)))
        self.out: list[tuple[Permit, PermitModel]] = []
        self.returned: list[tuple[Permit, PermitModel]] = []
        self.generation = 0

    def acquire(self, probe: bool) -> Permit | Rejected:
        before = self.model.state, self.model.until_ns
        answer = self.breaker.acquire(self.now_ns, probe=probe)
        expected = self.model.acquire(self.now_ns, probe)
        if isinstance(answer, Permit):
            assert isinstance(expected, PermitModel), f"admitted, but should wait {expected} ns"
            assert answer.generation == expected.generation
            assert answer.trial == (expected.trial is not None)
            if before[0] == OPEN and self.model.mode == "auto":
                assert self.model.newest_ns >= before[1], "I3: admitted before the open time was over"
            self.out.append((answer, expected))
        else:
            assert not answer
            assert answer.retry_after_ns == expected
            assert answer.retry_after_ns > 0 or self.model.mode == "forced_open"
        return answer

    def release(self, index: int, outcome: int, duration_ns: int, retry_after_ns: int, random: float) -> None:
        permit, expected = self.out.pop(index % len(self.out))
        stale = permit.generation != self.breaker.generation
        before = repr(self.breaker.snapshot(self.now_ns))
        self.breaker.release(permit, outcome, duration_ns, self.now_ns, retry_after_ns, random)
        self.model.release(expected, outcome, duration_ns, self.now_ns, retry_after_ns, random)
        if stale:
            assert repr(self.breaker.snapshot(self.now_ns)) == before, "I2: an old permit changed something"
        self.returned.append((permit, expected))

    @rule(step=st.sampled_from((0, 1, 9, 10, 31, 60, 100, 151, 1000, -1, -45, -10_000)))
    def pass_time(self, step: int) -> None:
        self.now_ns = max(0, self.now_ns + step)

    @rule(probe=st.booleans())
    def ask(self, probe: bool) -> None:
        self.acquire(probe)

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0, 50), outcome=OUTCOMES, duration=DURATIONS, retry_after=RETRY_AFTER, random=RANDOM)
    def give_back(self, index: int, outcome: int, duration: int, retry_after: int, random: float) -> None:
        self.release(index, outcome, duration, retry_after, random)

    @precondition(lambda self: self.returned)
    @rule(index=st.integers(0, 50), outcome=OUTCOMES)
    def give_back_twice(self, index: int, outcome: int) -> None:
        permit, _ = self.returned[index % len(self.returned)]
        before = repr(self.breaker.snapshot(self.now_ns))
        self.breaker.release(permit, outcome, 0, self.now_ns)
        assert repr(self.breaker.snapshot(self.now_ns)) == before, "I6: released twice"

    @rule(
        outcomes=st.lists(OUTCOMES, min_size=1, max_size=8),
        duration=DURATIONS,
        retry_after=RETRY_AFTER,
        random=RANDOM,
        step=st.sampled_from((0, 3, 12)),
    )
    def traffic(self, outcomes: list[int], duration: int, retry_after: int, random: float, step: int) -> None:
        for outcome in outcomes:
            if self.acquire(probe=False):
                self.release(-1, outcome, duration, retry_after, random)
            self.now_ns += step

    @precondition(lambda self: self.model.mode == "auto" and self.model.state != CLOSED)
    @rule(
        early=st.booleans(),
        asked=st.lists(st.booleans(), min_size=1, max_size=6),
        outcomes=st.lists(OUTCOMES, max_size=6),
        wait=st.sampled_from((0, 10, 29, 30, 200)),
        retry_after=RETRY_AFTER,
    )
    def drive_half_open(self, early: bool, asked: list[bool], outcomes: list[int], wait: int, retry_after: int) -> None:
        grace = 0 if early else self.parameters.probe_grace_ns
        self.now_ns = max(self.model.newest_ns, self.model.until_ns + grace)
        for probe in asked:
            self.acquire(probe)
        self.now_ns += wait
        for outcome in outcomes:
            if self.out:
                self.release(-1, outcome, 0, retry_after, 0.5)
            for probe in (False, True):
                self.acquire(probe)

    @precondition(lambda self: self.model.mode == "auto" and self.model.state != CLOSED)
    @rule(later=st.sampled_from((0, 0, 199, 450)))
    def recover(self, later: int) -> None:
        self.now_ns = max(self.model.newest_ns, self.model.until_ns)
        for _ in range(self.parameters.half_open_successes):
            if self.acquire(probe=True):
                self.release(-1, SUCCESS, 0, 0, 0.5)
        self.now_ns += later

    @rule(random=RANDOM)
    def trip(self, random: float) -> None:
        self.breaker.trip(self.now_ns, random)
        self.model.trip(self.now_ns, random)

    @rule()
    def reset(self) -> None:
        self.breaker.reset(self.now_ns)
        self.model.reset(self.now_ns)
        if self.model.mode == "auto":
            snapshot = self.breaker.snapshot(self.now_ns)
            assert (snapshot.state, snapshot.trips) == (CLOSED, 0), "I12"

    @rule(mode=st.sampled_from(("auto", "auto", "auto", "forced_open", "disabled", "metrics_only")))
    def set_mode(self, mode: Any) -> None:
        self.breaker.set_mode(mode, self.now_ns)
        self.model.set_mode(mode, self.now_ns)
        answers = [self.acquire(probe) for probe in (False, True) if mode != "auto"]
        assert all(isinstance(answer, Rejected) == (mode == "forced_open") for answer in answers), "I10"

    @rule(probe=st.booleans())
    def come_back_when_told(self, probe: bool) -> None:
        """I15 and I16: waiting as told, one gets in, and not a nanosecond earlier; a hung trial is replaced."""
        if self.model.mode == "forced_open":
            return
        for _ in range(3):
            answer = self.acquire(probe)
            if isinstance(answer, Permit):
                return
            then = self.model.newest_ns + answer.retry_after_ns
            # A trial that hangs keeps its slot, and in the end it opens the circuit again.
            hangs = bool(self.model.trials)
            self.now_ns = then - 1
            assert isinstance(self.acquire(probe), Rejected)
            self.now_ns = then
            if not hangs:
                assert isinstance(self.acquire(probe), Permit), "I15: told a wrong time"
                return
        raise AssertionError("I16: nobody gets in")

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        model = self.model
        now_ns = max(self.now_ns, model.newest_ns)
        assert (self.breaker.state, self.breaker.generation) == (model.visible_state, model.generation)
        transitions = self.breaker.take_transitions()
        assert [(each.from_state, each.to_state) for each in transitions] == model.changes[-2:], "I3, I7"
        model.changes.clear()
        assert self.generation <= model.generation, "I13"
        assert not transitions or model.generation > self.generation, "I13"
        self.generation = model.generation
        far = repr(self.breaker.snapshot(now_ns + 10**6))
        snapshot = self.breaker.snapshot(self.now_ns)
        assert repr(self.breaker.snapshot(now_ns + 10**6)) == far, "I14"
        assert (self.breaker.state, self.breaker.generation) == (model.visible_state, model.generation), "I14"
        self.compare(snapshot, now_ns)

    def compare(self, snapshot: Any, now_ns: int) -> None:
        model = self.model
        expiry = min((trial.issued_ns for trial in model.trials), default=now_ns) + self.parameters.probe_ttl_ns
        if model.state == HALF_OPEN and expiry <= now_ns:
            assert snapshot.state == OPEN, "I4: a trial outlived its time"
            return
        assert snapshot.state == model.visible_state
        assert (snapshot.window_calls, snapshot.window_failures, snapshot.window_slow) == model.window(now_ns), "I11"
        assert snapshot.consecutive_failures == model.failures_in_a_row()
        assert snapshot.trips == model.counting_trips(now_ns)
        assert snapshot.trials == (len(model.trials) if model.state == HALF_OPEN else 0)
        assert snapshot.trials <= self.parameters.half_open_permits, "I1"
        if model.state == OPEN:
            assert snapshot.retry_after_ns == max(0, model.until_ns - now_ns)
            assert snapshot.retry_after_ns <= self.parameters.open_max_ns, "I8"
        else:
            assert snapshot.retry_after_ns == 0


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=examples(250), stateful_step_count=40, deadline=None)
