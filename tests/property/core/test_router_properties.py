"""The compiled router against naive bookkeeping: pools, leases, counters, and who may be picked."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
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

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import EXCLUDED, PENDING, READY, STATUS_COUNT, Backend, Lease
from mcp_manager._core.router import Router
from mcp_manager._core.snapshots import LE_BOUNDS_S, OTHER_METHOD

OVERLOADED, CIRCUIT_OPEN, NO_INSTANCE, LIMITED, PAUSED = 7, 10, 11, 12, 15
LONGEST_PAUSE_NS = 60 * 10**9
MAX_METHODS = 3
MS = 10**6
SERVERS = st.sampled_from(("a", "b"))
METHODS = st.sampled_from(("ping", "tools/call", "tools/list", "x/1", "x/2", OTHER_METHOD))
# Without jitter an expired trial reopens its circuit for the same time, whoever notices it.
PARAMETERS = BreakerParameters(
    window_ns=1000 * MS,
    min_calls=6,
    failure_rate=0.5,
    consecutive_failures=3,
    slow_call_ns=0,
    slow_rate=1.0,
    open_ns=100 * MS,
    open_max_ns=400 * MS,
    jitter=0.0,
    trip_decay_ns=0,
    half_open_permits=2,
    half_open_successes=2,
    probe_ttl_ns=200 * MS,
    active_first=True,
    probe_grace_ns=50 * MS,
)


@dataclass
class InstanceModel:
    backend: Backend
    breaker: BreakerModel
    availability: int = READY
    inflight: int = 0
    paused_until_ns: int = 0


@dataclass
class ServerModel:
    instances: list[InstanceModel] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    durations: dict[str, list[int]] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    inflight: int = 0
    health: list[int] = field(default_factory=lambda: [0, 0])

    def label(self, method: str) -> str:
        """The name under which a method is counted."""
        if method != OTHER_METHOD and (method in self.named or len(self.named) < MAX_METHODS):
            self.named.add(method)
            return method
        return OTHER_METHOD


@dataclass
class LeaseModel:
    lease: Lease
    server: ServerModel
    instance: InstanceModel
    permit: PermitModel | None
    label: str
    probe: bool
    done: bool = False


class RouterMachine(RuleBasedStateMachine):
    """Keeps the books beside the router and compares them after every step."""

    @initialize()
    def start(self) -> None:
        self.now_ns = 10**12
        self.router = Router(max_methods=MAX_METHODS)
        self.settings = BreakerSettings(**vars(PARAMETERS))
        self.servers: dict[str, ServerModel] = {}
        self.leases: list[LeaseModel] = []
        self.gone: list[InstanceModel] = []
        self.seen: dict[Backend, int] = {}
        for _ in range(2):
            self.add_backend("a")

    def waits(self, instance: InstanceModel, probe: bool = False) -> int | None:
        """How long an acquisition has to wait, or ``None`` if it is admitted."""
        answer = copy.deepcopy(instance.breaker).acquire(self.now_ns, probe)
        wait = None if isinstance(answer, PermitModel) else answer
        # A pause that was asked for keeps calls away, and no health check.
        paused_ns = 0 if probe else instance.paused_until_ns - self.now_ns
        return max(wait or 0, paused_ns) if paused_ns > 0 else wait

    @rule(step=st.sampled_from((1, 10 * MS, 50 * MS, 100 * MS, 200 * MS, 1000 * MS, 31_000 * MS)))
    def pass_time(self, step: int) -> None:
        self.now_ns += step

    @rule(server_id=SERVERS)
    def add_backend(self, server_id: str) -> None:
        if server_id not in self.servers:
            self.router.add_server(server_id)
            self.servers[server_id] = ServerModel()
        with pytest.raises(ValueError, match="already known"):
            self.router.add_server(server_id)
        backend = self.router.add_backend(server_id, object(), self.settings)
        self.servers[server_id].instances.append(InstanceModel(backend, BreakerModel(PARAMETERS)))

    @precondition(lambda self: self.servers)
    @rule(data=st.data())
    def remove_backend(self, data: st.DataObject) -> None:
        server = self.servers[data.draw(st.sampled_from(sorted(self.servers)))]
        if server.instances:
            instance = server.instances.pop(data.draw(st.integers(0, len(server.instances) - 1)))
            for _ in range(2):
                self.router.remove_backend(instance.backend)
            assert instance.backend.removed
            self.gone.append(instance)

    @rule(server_id=SERVERS, sure=st.integers(0, 3))
    def remove_server(self, server_id: str, sure: int) -> None:
        if server_id not in self.servers:
            with pytest.raises(KeyError):
                self.router.remove_server(server_id)
        elif sure == 0:
            self.router.remove_server(server_id)
            self.gone += self.servers.pop(server_id).instances
            with pytest.raises(KeyError):
                self.router.pick(server_id, "ping", self.now_ns, 0)

    @precondition(lambda self: self.servers)
    @rule(data=st.data(), availability=st.sampled_from((READY, READY, PENDING, EXCLUDED)))
    def set_availability(self, data: st.DataObject, availability: int) -> None:
        server = self.servers[data.draw(st.sampled_from(sorted(self.servers)))]
        for instance in server.instances:
            if data.draw(st.booleans()):
                self.router.set_availability(instance.backend, availability)
                instance.availability = availability
        if self.gone:
            self.router.set_availability(self.gone[-1].backend, availability)

    @precondition(lambda self: self.servers)
    @rule(data=st.data(), method=METHODS, random=st.integers(0, 2**64 - 1), times=st.integers(1, 4))
    def pick(self, data: st.DataObject, method: str, random: int, times: int) -> None:
        server_id = data.draw(st.sampled_from(sorted(self.servers)))
        for _ in range(times):
            self.pick_once(server_id, method, random)

    def pick_once(self, server_id: str, method: str, random: int) -> None:
        server = self.servers[server_id]
        order = [entry.payload for entry in self.router.server_counts(server_id, self.now_ns).backends]
        by_payload = {instance.backend.payload: instance for instance in server.instances}
        pool = [by_payload[payload] for payload in order]
        admitting = {
            level: [each for each in pool if each.availability == level and self.waits(each) is None]
            for level in (READY, PENDING)
        }
        expected = self.preferred([each for each in pool if each.availability == READY], random)
        lease = self.router.pick(server_id, method, self.now_ns, random)
        label = server.label(method)
        if lease.rejection:
            self.check_rejection(server, lease, admitting)
            counts = server.counts.setdefault(label, [0] * STATUS_COUNT)
            if lease.rejection < LIMITED:
                counts[lease.rejection] += 1
            return
        instance = by_payload[lease.payload]
        assert lease.backend is instance.backend and lease.server_id == server_id
        assert instance in (admitting[READY] or admitting[PENDING])
        assert expected is None or instance is expected
        permit = instance.breaker.acquire(self.now_ns, False)
        assert isinstance(permit, PermitModel)
        assert lease.trial == (permit.trial is not None)
        server.counts.setdefault(label, [0] * STATUS_COUNT)
        server.inflight += 1
        instance.inflight += 1
        self.leases.append(LeaseModel(lease, server, instance, permit, label, probe=False))

    def preferred(self, pool: list[InstanceModel], random: int) -> InstanceModel | None:
        """The one that two draws and their costs lead to, where the latencies of both are known."""
        if len(pool) < 2 or any(each.breaker.state != CLOSED or each.paused_until_ns for each in pool):
            return None
        first = (random >> 32) * len(pool) >> 32
        second = (random & 0xFFFFFFFF) * (len(pool) - 1) >> 32
        second += second >= first
        costs = []
        for each in (pool[first], pool[second]):
            latency_s = self.router.backend_reading(each.backend, self.now_ns).latency_s
            if latency_s is None:
                return None
            costs.append(latency_s * (each.inflight + 1))
        # Not where rounding decides.
        if abs(costs[0] - costs[1]) <= 1e-9 * max(costs):
            return None
        return pool[first] if costs[0] < costs[1] else pool[second]

    def check_rejection(self, server: ServerModel, lease: Lease, admitting: dict[int, list[InstanceModel]]) -> None:
        assert lease.payload is None and lease.backend is None
        assert not admitting[READY] and not admitting[PENDING]
        waits = [self.waits(each) for each in server.instances if each.availability != EXCLUDED]
        paused = [
            each
            for each in server.instances
            if each.availability != EXCLUDED and each.paused_until_ns > self.now_ns and each.breaker.state == CLOSED
        ]
        assert lease.rejection == (PAUSED if paused else CIRCUIT_OPEN if waits else NO_INSTANCE)
        assert lease.retry_after_ns == min((wait for wait in waits if wait is not None), default=0)
        # Nothing to give back: this must do nothing.
        self.router.done(lease, FAILURE, 0, self.now_ns)

    @precondition(lambda self: any(server.instances for server in self.servers.values()))
    @rule(data=st.data())
    def pick_probe(self, data: st.DataObject) -> None:
        server = data.draw(st.sampled_from([each for each in self.servers.values() if each.instances]))
        instance = data.draw(st.sampled_from(server.instances))
        wait = self.waits(instance, probe=True)
        answer = instance.breaker.acquire(self.now_ns, True)
        lease = self.router.pick_probe(instance.backend, self.now_ns)
        assert lease.rejection == (0 if wait is None else CIRCUIT_OPEN)
        assert lease.retry_after_ns == (wait or 0)
        permit = answer if isinstance(answer, PermitModel) else None
        self.leases.append(LeaseModel(lease, server, instance, permit, "", probe=True))

    @precondition(lambda self: self.leases)
    @rule(
        index=st.integers(0, 99),
        outcome=st.sampled_from((SUCCESS, FAILURE, FAILURE, IGNORED)),
        status=st.integers(0, 9),
        retry_after=st.sampled_from((0, 0, 150 * MS, 10**12)),
    )
    def done(self, index: int, outcome: int, status: int, retry_after: int) -> None:
        entry = self.leases[index % len(self.leases)]
        duration = self.now_ns - entry.lease.started_ns
        self.router.done(entry.lease, outcome, status, self.now_ns, retry_after_ns=retry_after, random=2**63)
        if entry.done:
            return
        entry.done = True
        if entry.permit is not None:
            entry.instance.breaker.release(entry.permit, outcome, duration, self.now_ns, retry_after, 0.5)
        if entry.probe:
            if outcome != IGNORED:
                entry.server.health[outcome] += 1
            return
        entry.server.inflight -= 1
        entry.instance.inflight -= 1
        entry.server.counts[entry.label][status] += 1
        if outcome == IGNORED and status == OVERLOADED and retry_after:
            entry.instance.paused_until_ns = self.now_ns + min(retry_after, LONGEST_PAUSE_NS)
        if outcome != IGNORED:
            entry.server.durations.setdefault(entry.label, []).append(duration)

    @precondition(lambda self: any(server.instances for server in self.servers.values()))
    @rule(data=st.data(), reset=st.booleans())
    def trip_or_reset(self, data: st.DataObject, reset: bool) -> None:
        instance = data.draw(st.sampled_from([each for server in self.servers.values() for each in server.instances]))
        # Of a trial that has expired, the router may or may not have taken note when it looked for an instance.
        noted = copy.deepcopy(instance.breaker)
        noted.see(self.now_ns)
        noted.expire(self.now_ns, 0.5)
        for breaker in (noted, instance.breaker):
            if reset:
                breaker.reset(self.now_ns)
            else:
                breaker.trip(self.now_ns, 0.5)
        if reset:
            self.router.reset_breaker(instance.backend, self.now_ns)
        else:
            self.router.trip(instance.backend, self.now_ns)
        if self.router.backend_reading(instance.backend, self.now_ns).circuit.generation == noted.generation:
            instance.breaker = noted

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "servers"):
            return
        assert self.router.server_ids() == list(self.servers)
        assert len(self.router) == len(self.servers)
        assert repr(self.router.snapshot(self.now_ns)) == repr(self.router.snapshot(self.now_ns))
        for snapshot in self.router.snapshot(self.now_ns):
            server = self.servers[snapshot.server_id]
            assert snapshot.inflight == server.inflight >= 0
            assert [snapshot.health_successes, snapshot.health_failures] == server.health
            by_payload = {each.backend.payload: each for each in server.instances}
            assert {each.payload for each in snapshot.backends} == set(by_payload)
            assert len(snapshot.backends) == len(server.instances)
            levels = [each.availability for each in snapshot.backends]
            assert levels == sorted(levels)
            for each in snapshot.backends:
                self.compare_instance(each.payload, by_payload[each.payload])
            assert {each.method: list(each.counts) for each in snapshot.methods} == server.counts
            for method in snapshot.methods:
                durations = server.durations.get(method.method, [])
                assert method.count == len(durations)
                assert method.sum_s == sum(durations) / 1e9
                assert [bound for bound, _ in method.buckets] == list(LE_BOUNDS_S)
                for bound, count in method.buckets:
                    assert count == sum(duration / 1e9 <= bound for duration in durations)

    def compare_instance(self, payload: object, instance: InstanceModel) -> None:
        snapshot = self.router.backend_reading(instance.backend, self.now_ns)
        model = copy.deepcopy(instance.breaker)
        model.see(self.now_ns)
        model.expire(self.now_ns, 0.5)
        assert instance.backend.payload is payload
        assert instance.backend.inflight == snapshot.inflight == instance.inflight >= 0
        assert instance.backend.availability == snapshot.availability == instance.availability
        assert self.router.breaker_state(instance.backend, self.now_ns) == snapshot.circuit_state == model.state
        is_on_trial = model.state == HALF_OPEN or (model.state == OPEN and model.newest_ns >= model.until_ns)
        assert self.router.is_on_trial(instance.backend, self.now_ns) == is_on_trial
        assert snapshot.circuit.generation == model.generation
        assert (snapshot.window_calls, snapshot.window_failures) == model.window(self.now_ns)[:2]

    @invariant()
    def events_form_chains(self) -> None:
        if not hasattr(self, "servers"):
            return
        for event in self.router.take_events():
            assert event.from_state == self.seen.get(event.backend, CLOSED)
            assert event.from_state != event.to_state
            assert event.now_ns <= self.now_ns
            self.seen[event.backend] = event.to_state

    def teardown(self) -> None:
        if not hasattr(self, "servers"):
            return
        for entry in self.leases:
            self.router.done(entry.lease, IGNORED, 9, self.now_ns)
        assert all(snapshot.inflight == 0 for snapshot in self.router.snapshot(self.now_ns))
        instances = self.gone + [each for server in self.servers.values() for each in server.instances]
        assert all(instance.backend.inflight == 0 for instance in instances)


TestRouter = RouterMachine.TestCase
TestRouter.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
