"""Whatever happens to a server's instances, calls go to those that may take them, and the tiers' shares add up."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.examples import examples

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import EXCLUDED, PENDING, POLICIES, READY, Backend, Balancing, Lease, Limits
from mcp_manager._core.router import Router
from mcp_manager.types import CallStatus, CircuitState, Outcome, Rejection

SECOND = 10**9
OVERPROVISION = 1.4
PANIC_THRESHOLD = 0.5
MAX_EJECTION = 0.5


@dataclass
class Model:
    backend: Backend
    tier: int
    availability: int = READY
    ejected_until_ns: int = 0
    paused_until_ns: int = 0
    inflight: int = 0


class BalancingMachine(RuleBasedStateMachine):
    """Keeps the list of who may take a call beside the router's own."""

    @initialize(policy=st.sampled_from(POLICIES), cap=st.sampled_from((0, 0, 3)))
    def start(self, policy: str, cap: int) -> None:
        self.now_ns = 10**12
        self.cap = cap
        self.router = Router()
        balancing = Balancing(
            policy=policy,
            overprovision=OVERPROVISION,
            panic_threshold=PANIC_THRESHOLD,
            max_ejection=MAX_EJECTION,
            slow_start_ns=5 * SECOND,
        )
        self.router.add_server("a", balancing, Limits(max_concurrent=cap))
        self.breaker = BreakerSettings(
            jitter=0.0, active_first=False, open_ns=2 * SECOND, half_open_successes=1, half_open_permits=1
        )
        self.pool: list[Model] = []
        self.leases: list[tuple[Lease, Model]] = []

    @rule(seconds=st.integers(0, 6))
    def pass_time(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND

    @rule(tier=st.sampled_from((0, 0, 0, 1, 4)), weight=st.sampled_from((0.1, 1.0, 1.0, 7.0)))
    def add(self, tier: int, weight: float) -> None:
        if len(self.pool) < 9:
            backend = self.router.add_backend("a", object(), self.breaker, weight=weight, tier=tier)
            self.pool.append(Model(backend, tier))

    @precondition(lambda self: self.pool)
    @rule(index=st.integers(0, 99), kind=st.sampled_from(("remove", READY, PENDING, EXCLUDED, "trip", "reset")))
    def change(self, index: int, kind: object) -> None:
        model = self.pool[index % len(self.pool)]
        if kind == "remove":
            self.pool.remove(model)
            self.router.remove_backend(model.backend)
        elif kind == "trip":
            self.router.trip(model.backend, self.now_ns)
        elif kind == "reset":
            self.router.reset_breaker(model.backend, self.now_ns)
        else:
            assert isinstance(kind, int)
            model.availability = kind
            self.router.set_availability(model.backend, kind, self.now_ns)

    @precondition(lambda self: self.pool)
    @rule(index=st.integers(0, 99), seconds=st.integers(1, 20))
    def eject(self, index: int, seconds: int) -> None:
        model = self.pool[index % len(self.pool)]
        before = [each for each in self.pool if each.backend.ejected_until_ns]
        if self.router.eject(model.backend, self.now_ns + seconds * SECOND):
            model.ejected_until_ns = self.now_ns + seconds * SECOND
            present = sum(each.availability != EXCLUDED for each in self.pool)
            assert model in before or len(before) < max(1, int(MAX_EJECTION * present))

    @rule(
        random=st.integers(0, 2**64 - 1),
        key=st.sampled_from((0, 0, 12345)),
        avoid=st.integers(0, 20),
        times=st.integers(1, 4),
    )
    def pick(self, random: int, key: int, avoid: int, times: int) -> None:
        avoided = self.pool[avoid] if avoid < len(self.pool) else None
        for _ in range(times):
            usable, connecting, panicking = self.usable(), self.connecting(), self.panicking()
            under_way = sum(each.inflight for each in self.pool) + self.gone()
            lease = self.router.pick(
                "a", "ping", self.now_ns, random, key, avoided.backend if avoided is not None else None
            )
            if self.cap and under_way >= self.cap:
                assert lease.rejection == Rejection.CONCURRENCY
                return
            if lease.rejection:
                assert not usable and not connecting and not panicking
                return
            model = next(each for each in self.pool if each.backend is lease.backend)
            if model not in usable and model not in panicking:
                # One that is avoided, and on trial besides, comes after those that connect.
                first = [each for each in usable if each is not avoided or self.is_closed(each)]
                assert model in connecting and (not first or key)
            others = [each for each in usable if each is not avoided]
            if model is avoided and model in usable:
                assert not others
            model.inflight += 1
            self.leases.append((lease, model))
            self.now_ns += 1

    @precondition(lambda self: self.leases)
    @rule(index=st.integers(0, 99), end=st.sampled_from(("success", "success", "failure", "ignored", "pause")))
    def done(self, index: int, end: str) -> None:
        lease, model = self.leases.pop(index % len(self.leases))
        model.inflight -= 1
        if end == "pause":
            model.paused_until_ns = self.now_ns + 3 * SECOND
            self.router.done(lease, Outcome.IGNORED, CallStatus.OVERLOADED, self.now_ns, retry_after_ns=3 * SECOND)
        else:
            outcome = {"success": Outcome.SUCCESS, "failure": Outcome.FAILURE, "ignored": Outcome.IGNORED}[end]
            self.router.done(lease, outcome, CallStatus.SUCCESS, self.now_ns)

    def gone(self) -> int:
        """Calls under way on instances that were removed meanwhile."""
        return sum(model not in self.pool for _, model in self.leases)

    def is_closed(self, model: Model) -> bool:
        return self.router.backend_reading(model.backend, self.now_ns).circuit_state == CircuitState.CLOSED

    def circuit_admits(self, model: Model) -> bool:
        snapshot = self.router.backend_reading(model.backend, self.now_ns)
        if snapshot.circuit_state == CircuitState.CLOSED:
            return True
        return snapshot.retry_after_ns == 0 and snapshot.circuit.trials == 0

    def is_out(self, model: Model) -> bool:
        return model.ejected_until_ns > self.now_ns or model.paused_until_ns > self.now_ns

    def usable(self) -> list[Model]:
        return [
            each
            for each in self.pool
            if each.availability == READY and not self.is_out(each) and self.circuit_admits(each)
        ]

    def connecting(self) -> list[Model]:
        return [
            each
            for each in self.pool
            if each.availability == PENDING and not self.is_out(each) and self.circuit_admits(each)
        ]

    def panicking(self) -> list[Model]:
        """Those that are ejected and nothing else, in tiers where the rest is too few."""
        found: list[Model] = []
        for tier in {each.tier for each in self.pool}:
            present = [each for each in self.pool if each.tier == tier and each.availability != EXCLUDED]
            healthy = [each for each in self.usable() if each.tier == tier]
            if len(present) >= 4 and len(healthy) < PANIC_THRESHOLD * len(present):
                found += [
                    each
                    for each in present
                    if each.availability == READY
                    and each.ejected_until_ns > self.now_ns
                    and each.paused_until_ns <= self.now_ns
                    and self.circuit_admits(each)
                ]
        return found

    @invariant()
    def loads_add_up(self) -> None:
        if not hasattr(self, "pool"):
            return
        loads = self.router.tier_loads("a")
        assert list(loads) == sorted(loads)
        assert all(0.0 <= load <= 100.0 + 1e-9 for load in loads.values())
        assert abs(sum(loads.values()) - 100.0) < 1e-9 or sum(loads.values()) == 0.0

    @invariant()
    def everybody_is_somewhere(self) -> None:
        if not hasattr(self, "pool"):
            return
        snapshot = self.router.server_counts("a", self.now_ns)
        assert {id(each.payload) for each in snapshot.backends} == {id(each.backend.payload) for each in self.pool}
        assert len(snapshot.backends) == len(self.pool)
        assert [each.backend.inflight for each in self.pool] == [each.inflight for each in self.pool]


TestBalancing = BalancingMachine.TestCase
TestBalancing.settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)
