"""In every order of events, no slot is lost, urgent attempts go first, and none waits for ever."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from mcp_manager.session.slot_policy import SlotPolicy, Urgency

URGENCIES = st.sampled_from(list(Urgency))


class Model:
    """One attempt in the model."""

    def __init__(self, key: int, urgency: Urgency, has_failed: bool) -> None:
        self.key = key
        self.urgency = urgency
        self.has_failed = has_failed
        self.place = "waiting"
        self.stays = False


class Slots(RuleBasedStateMachine):
    attempts = Bundle("attempts")

    @initialize(capacity=st.integers(1, 4), failed=st.integers(1, 2), lent=st.integers(0, 3))
    def begin(self, capacity: int, failed: int, lent: int) -> None:
        self.capacity = {False: capacity, True: failed}
        self.most_lent = {False: lent, True: 1}
        self.policy: SlotPolicy[int] = SlotPolicy(capacity, failed, most_lent=lent, most_lent_failed=1)
        self.known: dict[int, Model] = {}
        self.next_key = 0

    @rule(target=attempts, urgency=URGENCIES, has_failed=st.booleans())
    def ask(self, urgency: Urgency, has_failed: bool) -> int:
        self.next_key += 1
        self.known[self.next_key] = Model(self.next_key, urgency, has_failed)
        self.policy.ask(self.next_key, urgency, has_failed=has_failed)
        self.grant()
        return self.next_key

    @rule(key=attempts)
    def hasten(self, key: int) -> None:
        self.policy.hasten(key)
        if key in self.known and self.known[key].place == "waiting":
            self.known[key].urgency = Urgency.CALLER

    @rule(key=attempts)
    def lend(self, key: int) -> None:
        model = self.known.get(key)
        lent = self.policy.lend(key)
        if model is None or model.place == "waiting":
            assert not lent
        elif model.place == "held":
            assert lent == (self.count("lent", model.has_failed) < self.most_lent[model.has_failed])
            model.place = "lent" if lent else "held"
        else:
            assert lent
        self.grant()

    @rule(key=attempts)
    def lend_for_long(self, key: int) -> None:
        model = self.known.get(key)
        has_failed = model is not None and model.has_failed
        has_room = sum(each.stays for each in self.lane(has_failed)) < (self.most_lent[has_failed] + 1) // 2
        may_lend = model is not None and (
            model.place == "lent"
            or (model.place == "held" and self.count("lent", has_failed) < self.most_lent[has_failed])
        )
        assert self.policy.lend_for_long(key) == (has_room and may_lend)
        if model is not None and has_room and may_lend:
            model.place, model.stays = "lent", True
        self.grant()

    @rule(key=consumes(attempts))
    def leave(self, key: int) -> None:
        self.policy.leave(key)
        self.policy.leave(key)
        self.known.pop(key, None)
        self.grant()

    def grant(self) -> None:
        for key in self.policy.grant():
            assert self.known[key].place == "waiting"
            self.known[key].place = "held"

    def count(self, place: str, has_failed: bool) -> int:
        return sum(each.place == place for each in self.lane(has_failed))

    def lane(self, has_failed: bool) -> Iterator[Model]:
        return (each for each in self.known.values() if each.has_failed is has_failed)

    @invariant()
    def no_slot_is_lost_or_given_twice(self) -> None:
        for has_failed in (False, True):
            held, waiting = self.count("held", has_failed), self.count("waiting", has_failed)
            assert held <= self.capacity[has_failed]
            # No attempt waits while a slot of its kind is free.
            assert not waiting or held == self.capacity[has_failed]
            assert self.count("lent", has_failed) <= self.most_lent[has_failed]

    @invariant()
    def who_waits_is_known(self) -> None:
        for each in self.known.values():
            assert self.policy.is_waiting(each.key) == (each.place == "waiting")
        wanted = set(self.policy.wanted())
        assert wanted == {
            each.key
            for each in self.known.values()
            if each.place == "held" and self.count("waiting", each.has_failed) > 0
        }


TestSlots = Slots.TestCase


def order_of(policy: SlotPolicy[str], current: str) -> Iterator[str]:
    """Yield the waiting attempts in the order in which they get the only slot, each of which leaves at once."""
    while True:
        policy.leave(current)
        granted = policy.grant()
        if not granted:
            return
        [current] = granted
        yield current


def test_callers_go_first_then_first_sessions_then_repeated_ones() -> None:
    policy: SlotPolicy[str] = SlotPolicy(1, 1, most_lent=0, most_lent_failed=0)
    policy.ask("now", Urgency.AGAIN, has_failed=False)
    assert policy.grant() == ["now"]
    for name in ("again 1", "first 1", "caller 1", "again 2", "first 2", "caller 2"):
        urgency = {"again": Urgency.AGAIN, "first": Urgency.FIRST, "caller": Urgency.CALLER}[name.split()[0]]
        policy.ask(name, urgency, has_failed=False)
    policy.hasten("again 2")
    assert list(order_of(policy, "now")) == ["caller 1", "caller 2", "again 2", "first 1", "first 2", "again 1"]


def test_no_stream_of_callers_keeps_a_repeated_session_for_ever() -> None:
    policy: SlotPolicy[str] = SlotPolicy(1, 1, most_lent=0, most_lent_failed=0)
    policy.ask("c", Urgency.CALLER, has_failed=False)
    [holder] = policy.grant()
    policy.ask("again", Urgency.AGAIN, has_failed=False)
    policy.ask("first", Urgency.FIRST, has_failed=False)
    granted: list[str] = []
    for number in range(40):
        policy.ask(f"c{number}", Urgency.CALLER, has_failed=False)
        policy.leave(holder)
        [holder] = policy.grant()
        granted.append(holder)
    # Each follows as many callers as may pass a waiting attempt; the longest wait ends first.
    assert [granted.index(each) for each in ("again", "first")] == [8, 17]


def test_places_that_failed_take_no_slot_of_the_others() -> None:
    policy: SlotPolicy[int] = SlotPolicy(2, 1, most_lent=0, most_lent_failed=0)
    for key in range(10):
        policy.ask(key, Urgency.CALLER, has_failed=True)
    assert policy.grant() == [0]
    policy.ask(10, Urgency.AGAIN, has_failed=False)
    assert policy.grant() == [10]
