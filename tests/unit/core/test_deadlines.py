"""The wheel of deadlines on a virtual clock: never early, hardly late, once each, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.examples import examples

from mcp_manager._core.deadlines import TICK_NS, Deadline, DeadlineWheel

START_NS = 7_000_000_000_000
REVOLUTION_NS = 4096 * TICK_NS


class Timer:
    """A clock, and who visits the wheel when it asks for that."""

    def __init__(self) -> None:
        self.now = START_NS
        self.asked: int | None = None
        self.times_asked = 0
        self.wheel = DeadlineWheel(lambda: self.now, self.ask)

    def ask(self, at_ns: int) -> None:
        self.asked = at_ns
        self.times_asked += 1

    def advance(self, to_ns: int) -> None:
        """Let time pass, with a visit at each time that was asked for."""
        while self.asked is not None and self.asked <= to_ns:
            self.now = max(self.now, self.asked)
            self.asked = None
            self.wheel.visit(self.now)
        self.now = max(self.now, to_ns)


class Noted(Deadline):
    """Note when it expired, and do something then."""

    def __init__(self, timer: Timer, then: Callable[[Noted], object] | None = None) -> None:
        super().__init__()
        self.timer = timer
        self.then = then
        self.expirations: list[int] = []

    def expired(self) -> None:
        self.expirations.append(self.timer.now)
        if self.then is not None:
            self.then(self)


@pytest.fixture
def timer() -> Timer:
    return Timer()


def test_those_due_with_one_that_raised_come_with_the_next_tick(timer: Timer) -> None:
    def fail(noted: Noted) -> None:
        raise RuntimeError("no")

    due_ns = timer.now + 5 * TICK_NS
    deadlines = [Noted(timer, fail), Noted(timer, fail), Noted(timer)]
    for deadline in deadlines:
        timer.wheel.add(deadline, due_ns)
    timer.now = due_ns + TICK_NS
    for left in (2, 1):
        timer.asked = None
        with pytest.raises(RuntimeError, match="no"):
            timer.wheel.visit(timer.now)
        assert len(timer.wheel) == left
        assert timer.asked is not None
        assert timer.now < timer.asked <= timer.now + TICK_NS
        timer.now = timer.asked
    timer.wheel.visit(timer.now)
    assert [len(each.expirations) for each in deadlines] == [1, 1, 1]


@pytest.mark.parametrize(
    "after_ns",
    [0, 1, TICK_NS - 1, TICK_NS, TICK_NS + 1, REVOLUTION_NS - 1, REVOLUTION_NS, 3 * REVOLUTION_NS + 5, 10**15],
)
def test_a_deadline_is_never_early_and_late_by_a_tick_at_most(timer: Timer, after_ns: int) -> None:
    deadline = Noted(timer)
    due = timer.now + after_ns
    timer.wheel.add(deadline, due)
    assert deadline.pending
    assert len(timer.wheel) == 1
    timer.advance(due - 1)
    assert deadline.expirations == []
    timer.advance(due + TICK_NS)
    [at] = deadline.expirations
    assert due <= at <= due + TICK_NS
    assert not deadline.pending
    assert len(timer.wheel) == 0
    timer.advance(due + 2 * REVOLUTION_NS)
    assert len(deadline.expirations) == 1
    assert timer.asked is None


@pytest.mark.parametrize("ago_ns", [1, TICK_NS, 5 * REVOLUTION_NS])
def test_what_has_passed_expires_at_the_next_visit(timer: Timer, ago_ns: int) -> None:
    far, past = Noted(timer), Noted(timer)
    timer.wheel.add(far, timer.now + 2 * REVOLUTION_NS)
    timer.now += REVOLUTION_NS
    timer.wheel.add(past, timer.now - ago_ns)
    timer.advance(timer.now + TICK_NS)
    assert len(past.expirations) == 1
    assert far.expirations == []


def test_a_deadline_that_was_lifted_does_not_expire(timer: Timer) -> None:
    deadlines = [Noted(timer) for _ in range(3)]
    for lifted in deadlines:
        for deadline in deadlines:
            timer.wheel.add(deadline, timer.now + 10)
        timer.wheel.remove(lifted)
        timer.wheel.remove(lifted)
        assert not lifted.pending
        assert len(timer.wheel) == 2
        before = [len(deadline.expirations) for deadline in deadlines]
        timer.advance(timer.now + 2 * TICK_NS)
        after = [len(deadline.expirations) for deadline in deadlines]
        assert [b + (deadline is not lifted) for b, deadline in zip(before, deadlines, strict=True)] == after


def test_a_deadline_hangs_in_one_place(timer: Timer) -> None:
    deadline = Noted(timer)
    timer.wheel.add(deadline, timer.now + 10)
    with pytest.raises(ValueError, match="set already"):
        timer.wheel.add(deadline, timer.now + 10**9)
    assert len(timer.wheel) == 1
    timer.wheel.remove(Noted(timer))
    assert len(timer.wheel) == 1


def test_thousands_of_deadlines_that_are_lifted_ask_for_one_visit(timer: Timer) -> None:
    for _ in range(5000):
        deadline = Noted(timer)
        timer.wheel.add(deadline, timer.now + 10**9)
        timer.wheel.remove(deadline)
    assert timer.times_asked == 1
    timer.advance(timer.now + 2 * 10**9)
    assert timer.asked is None


def test_an_earlier_deadline_asks_for_an_earlier_visit(timer: Timer) -> None:
    late, early = Noted(timer), Noted(timer)
    timer.wheel.add(late, timer.now + 10**9)
    timer.wheel.add(early, timer.now + 10**7)
    timer.advance(timer.now + 10**7 + TICK_NS)
    assert (len(early.expirations), len(late.expirations)) == (1, 0)


def test_a_visit_that_comes_too_early_asks_again(timer: Timer) -> None:
    deadline = Noted(timer)
    due = timer.now + 10 * TICK_NS
    timer.wheel.add(deadline, due)
    timer.asked = None
    timer.wheel.visit(timer.now)
    timer.advance(due + TICK_NS)
    assert len(deadline.expirations) == 1


def test_a_visit_that_comes_late_finds_everything(timer: Timer) -> None:
    deadlines = [Noted(timer) for _ in range(50)]
    for number, deadline in enumerate(deadlines):
        timer.wheel.add(deadline, timer.now + number * REVOLUTION_NS // 10)
    timer.now += 6 * REVOLUTION_NS
    timer.wheel.visit(timer.now)
    assert [len(deadline.expirations) for deadline in deadlines] == [1] * 50


def test_what_is_lifted_by_another_one_does_not_expire(timer: Timer) -> None:
    deadlines: list[Noted] = []

    def lift_others(expired: Noted) -> None:
        for other in deadlines:
            if other is not expired:
                timer.wheel.remove(other)

    deadlines += [Noted(timer, lift_others) for _ in range(3)]
    for deadline in deadlines:
        timer.wheel.add(deadline, timer.now + 10)
    timer.advance(timer.now + 2 * TICK_NS)
    assert sum(len(deadline.expirations) for deadline in deadlines) == 1
    assert len(timer.wheel) == 0
    assert not any(deadline.pending for deadline in deadlines)


def test_what_is_set_anew_by_another_one_expires_at_its_new_time(timer: Timer) -> None:
    deadlines: list[Noted] = []

    def postpone_others(expired: Noted) -> None:
        for other in deadlines:
            if other is not expired:
                timer.wheel.remove(other)
                timer.wheel.add(other, timer.now + REVOLUTION_NS)

    deadlines += [Noted(timer, postpone_others) for _ in range(2)]
    for deadline in deadlines:
        timer.wheel.add(deadline, timer.now + 10)
    timer.advance(timer.now + 2 * TICK_NS)
    assert sorted(len(deadline.expirations) for deadline in deadlines) == [0, 1]
    [postponed] = [deadline for deadline in deadlines if deadline.pending]
    for deadline in deadlines:
        deadline.then = None
    timer.advance(timer.now + REVOLUTION_NS + TICK_NS)
    assert len(postponed.expirations) == 1
    assert postponed.expirations[0] >= START_NS + REVOLUTION_NS


def test_a_deadline_that_sets_itself_again_is_a_clock(timer: Timer) -> None:
    deadline = Noted(timer, lambda expired: timer.wheel.add(expired, timer.now + 3 * TICK_NS))
    timer.wheel.add(deadline, timer.now + 3 * TICK_NS)
    timer.advance(timer.now + 100 * TICK_NS)
    gaps = [b - a for a, b in zip(deadline.expirations, deadline.expirations[1:], strict=False)]
    assert len(gaps) > 20
    assert all(3 * TICK_NS <= gap <= 4 * TICK_NS for gap in gaps)


def test_clearing_lifts_everything_and_the_wheel_goes_on(timer: Timer) -> None:
    deadlines = [Noted(timer) for _ in range(100)]
    for number, deadline in enumerate(deadlines):
        timer.wheel.add(deadline, timer.now + number * REVOLUTION_NS // 7)
    timer.wheel.clear()
    timer.asked = None
    assert len(timer.wheel) == 0
    assert not any(deadline.pending for deadline in deadlines)
    timer.wheel.add(deadlines[0], timer.now + 50 * TICK_NS)
    assert timer.asked is not None
    timer.advance(timer.now + 20 * REVOLUTION_NS)
    assert [len(deadline.expirations) for deadline in deadlines] == [1] + [0] * 99


# Against a model

DELAYS = st.one_of(
    st.integers(-2 * TICK_NS, 20 * TICK_NS),
    st.integers(0, 3 * REVOLUTION_NS),
    st.integers(-3, 3).map(lambda ticks: REVOLUTION_NS + ticks * TICK_NS),
)
NUMBERS = st.integers(0, 11)


class WheelMachine(RuleBasedStateMachine):
    """A dictionary of when each deadline is due, and since when: nothing else decides what expires."""

    def __init__(self) -> None:
        super().__init__()
        self.timer = Timer()
        self.deadlines = [Noted(self.timer, self.on_expired) for _ in range(12)]
        self.due: dict[Noted, tuple[int, int]] = {}
        self.plans: dict[Noted, tuple[str, Noted, int]] = {}

    def on_expired(self, expired: Noted) -> None:
        due, _ = self.due.pop(expired)
        assert self.timer.now >= due
        assert not expired.pending
        if expired in self.plans:
            what, other, delay = self.plans.pop(expired)
            if what == "remove":
                self.take_off(other)
            elif other not in self.due:
                self.put_on(other, delay)

    def put_on(self, deadline: Noted, delay: int) -> None:
        self.due[deadline] = (self.timer.now + delay, self.timer.now)
        self.timer.wheel.add(deadline, self.timer.now + delay)

    def take_off(self, deadline: Noted) -> None:
        self.due.pop(deadline, None)
        self.timer.wheel.remove(deadline)

    @rule(number=NUMBERS, delay=DELAYS)
    def add(self, number: int, delay: int) -> None:
        deadline = self.deadlines[number]
        if deadline in self.due:
            with pytest.raises(ValueError, match="set already"):
                self.timer.wheel.add(deadline, self.timer.now + delay)
        else:
            self.put_on(deadline, delay)

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        self.take_off(self.deadlines[number])

    @rule(number=NUMBERS, what=st.sampled_from(["add", "remove"]), other=NUMBERS, delay=DELAYS)
    def plan(self, number: int, what: str, other: int, delay: int) -> None:
        self.plans[self.deadlines[number]] = (what, self.deadlines[other], delay)

    @rule(number=NUMBERS, delay=DELAYS)
    def add_four(self, number: int, delay: int) -> None:
        for deadline in (self.deadlines + self.deadlines)[number : number + 4]:
            self.take_off(deadline)
            self.put_on(deadline, delay)

    @rule(delay=DELAYS)
    def pass_time(self, delay: int) -> None:
        self.timer.advance(self.timer.now + max(0, delay))

    @rule(delay=st.integers(0, 2 * REVOLUTION_NS))
    def stall(self, delay: int) -> None:
        # A loop that is busy for so long visits late.
        self.timer.now += delay
        self.timer.advance(self.timer.now)

    @precondition(lambda self: self.due)
    @rule()
    def clear(self) -> None:
        self.timer.wheel.clear()
        self.timer.asked = None
        self.due.clear()

    @invariant()
    def nothing_is_late(self) -> None:
        self.timer.advance(self.timer.now)
        for due, since in self.due.values():
            assert max(due, since) + TICK_NS > self.timer.now

    @invariant()
    def the_wheel_holds_what_the_model_holds(self) -> None:
        assert len(self.timer.wheel) == len(self.due)
        assert {deadline for deadline in self.deadlines if deadline.pending} == set(self.due)


TestWheel = WheelMachine.TestCase
TestWheel.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
