"""Affinity holds whatever comes: keys are bounded and forgotten in time, pins are followed to what is live alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.examples import examples

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import EXCLUDED, READY
from mcp_manager._core.router import Router
from mcp_manager.calls.affinity import Affinity, PinTable, key_hash
from mcp_manager.calls.call import FIRST, Call, Where
from mcp_manager.config import BalancingConfig
from mcp_manager.errors import SessionLostError
from mcp_manager.transports.base import Request

KEYS = st.sampled_from(["a", "b", "c", "d", "e"])


@given(
    capacity=st.integers(1, 4),
    ttl_ns=st.integers(1, 10),
    steps=st.lists(st.tuples(st.sampled_from(["get", "put", "drop"]), KEYS, st.integers(0, 4)), max_size=60),
)
def test_a_table_is_bounded_and_forgets_what_is_not_used(
    capacity: int, ttl_ns: int, steps: list[tuple[str, str, int]]
) -> None:
    table: PinTable[int] = PinTable(capacity, ttl_ns)
    model: list[tuple[str, int, int]] = []
    now_ns = 0
    for number, (action, key, passed_ns) in enumerate(steps):
        now_ns += passed_ns
        model = [each for each in model if now_ns - each[2] < ttl_ns]
        known = {each[0]: each[1] for each in model}
        if action == "get":
            assert table.get(key, now_ns) == known.get(key)
        elif action == "put":
            table.put(key, number, now_ns)
        else:
            table.drop(key)
        model = [each for each in model if each[0] != key or (action == "get" and key not in known)]
        if action == "put" or (action == "get" and key in known):
            model.append((key, number if action == "put" else known[key], now_ns))
        model = model[-capacity:]
        assert len(model) <= len(table) <= capacity


@given(key=st.text())
def test_a_hash_is_64_bits_and_never_none(key: str) -> None:
    assert 0 < key_hash(key) < 2**64
    assert key_hash(key) == key_hash(str(key))


def test_a_hash_is_the_same_everywhere() -> None:
    assert key_hash("caller-1") == 0x46D27ECAE90FE823


class Place:
    """What affinity sees of an instance."""

    def __init__(self, router: Router, number: int) -> None:
        self.generation = 0
        self.session: Any = None
        self.is_connecting = False
        self.backend: Any = router.add_backend("s", self, BreakerSettings())
        self.number = number

    def connect(self) -> None:
        self.session = SimpleNamespace(is_stateless=False)
        self.generation += 1

    def lose(self) -> None:
        self.session = None
        self.generation += 1


class AffinityMachine(RuleBasedStateMachine):
    """Calls with keys, among instances that come, go, and lose their sessions."""

    @initialize(affinity=st.sampled_from(["soft", "hard"]))
    def begin(self, affinity: Any) -> None:
        self.router = Router()
        self.router.add_server("s")
        self.affinity = Affinity(self.router)
        balancing = BalancingConfig(affinity=affinity, affinity_keys=5, affinity_ttl_s=1e-6)
        self.supervisor: Any = SimpleNamespace(server_id="s", config=SimpleNamespace(balancing=balancing))
        self.is_hard = affinity == "hard"
        self.places: list[Place] = []
        self.met: dict[str, tuple[Place, int, int]] = {}
        self.now_ns = 1
        self.random = 1

    def call_with(self, key: str) -> Call:
        return Call(self.supervisor, "m", Request(b'"m"', None), self.now_ns, 0, where=Where(key=key))

    @precondition(lambda self: len(self.places) < 3)
    @rule()
    def add(self) -> None:
        self.places.append(Place(self.router, len(self.places)))

    @precondition(lambda self: self.places)
    @rule(data=st.data(), what=st.sampled_from(["remove", "exclude", "lose", "connect", "trip"]))
    def change(self, data: st.DataObject, what: str) -> None:
        place = data.draw(st.sampled_from(self.places))
        if what == "remove":
            self.places.remove(place)
            self.router.remove_backend(place.backend)
            place.backend = None
        elif what == "exclude":
            excluded = place.backend.availability == EXCLUDED
            self.router.set_availability(place.backend, READY if excluded else EXCLUDED)
        elif what == "trip":
            self.router.trip(place.backend, self.now_ns)
        elif what == "lose" and place.session is not None:
            place.lose()
        elif what == "connect" and place.session is None:
            place.connect()

    @rule(
        key=st.sampled_from(["a", "b"]),
        passed_ns=st.integers(0, 600),
        random=st.integers(0, 2**64 - 1),
        ends_well=st.booleans(),
    )
    def call(self, key: str, passed_ns: int, random: int, ends_well: bool) -> None:
        self.now_ns += passed_ns
        place, generation, at_ns = self.met.pop(key, (None, 0, 0))
        if self.now_ns - at_ns >= 1000:
            place = None
        is_there = place is not None and place.backend is not None and place.backend.availability != EXCLUDED
        is_there = is_there and place is not None and place.generation == generation
        try:
            leased = self.affinity.lease(self.call_with(key), self.now_ns, random, FIRST)
            lease, pin = leased.lease, leased.pin
        except SessionLostError as lost:
            assert self.is_hard
            assert place is not None
            assert not is_there
            assert lost.delivery == "not_sent"
            assert not lost.retryable
            return
        assert not (self.is_hard and place is not None and not is_there), (
            "the loss of a session was kept from its caller"
        )
        if lease.backend is None:
            if self.is_hard and place is not None:
                # It waits for its own.
                self.met[key] = (place, generation, self.now_ns)
            return
        chosen = lease.payload
        assert chosen in self.places
        assert chosen.backend.availability != EXCLUDED
        if is_there and (self.is_hard or self.router.breaker_state(place.backend, self.now_ns) == 0):
            assert chosen is place
        assert pin is not None
        if chosen.session is None and ends_well:
            chosen.connect()
        if chosen.session is not None:
            pin.settle(chosen, chosen.session)
            pin.is_used = True
            self.met[key] = (chosen, chosen.generation, self.now_ns)
        self.router.done(lease, 0, 0, self.now_ns)

    @invariant()
    def keys_are_bounded(self) -> None:
        if getattr(self, "affinity", None) is not None:
            assert all(len(table) <= 5 for table in self.affinity._tables.values())


TestAffinity = AffinityMachine.TestCase
TestAffinity.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)
