"""Schedules the probes of instances and the reviews of servers, and keeps the state of every server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from mcp_manager._core.router import Router
from mcp_manager._core.snapshots import BackendReading
from mcp_manager.errors import CallError, SessionLostError
from mcp_manager.health.assessment import PASSING, Baseline, Watch, assess
from mcp_manager.health.outliers import SWEEP_S, Ejections
from mcp_manager.health.probe_queue import ProbeQueue
from mcp_manager.health.probe_times import is_silent, next_delay
from mcp_manager.health.probing import Prober
from mcp_manager.health.tally import UNPROBED, Tally
from mcp_manager.health.timing_wheel import TimingWheel, Turn
from mcp_manager.health.transitions import Transitions, tell_circuit
from mcp_manager.runtime.background import bare_context
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import CircuitState, ServerState

__all__ = ["HealthMonitor"]

_log = logging.getLogger(__name__)

# How soon a failed call is reviewed, and how often a server whose state may change through calls or time alone.
_NOTICE_S: Final = 0.1
_REVIEW_S: Final = 1.0
# How soon a review is repeated that failed itself.
_BROKEN_REVIEW_S: Final = 30.0


Item = Watch | Supervisor | Ejections
"""What has turns on the wheel: an instance to probe, a server to review, a server to search for outliers."""


class HealthMonitor:
    """Probe every instance on its own jittered schedule, assess the servers, and count their states.

    Servers that were never used are left alone. Traffic makes probes unnecessary: an instance is probed when it has
    answered no call for ``interval_s``, and every ``idle_interval_s`` if it gets no calls. A probe is a handshake or
    else the liveness request of the protocol revision, never a tool call. Any answer is a sign of life, and so is a
    call that was answered since a probe failed.

    Parameters
    ----------
    router
        Admits and counts probes, and knows the outcomes of calls.
    clock
        Returns monotonic nanoseconds.
    concurrency
        The most probes at a time.
    """

    def __init__(self, router: Router, clock: Callable[[], int], *, concurrency: int) -> None:
        self._router = router
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._prober = Prober(router, clock)
        self.tally: Tally[Supervisor] = Tally()
        self._transitions = Transitions()
        self._watches: dict[Instance, Watch] = {}
        self._reviews: dict[Supervisor, Turn[Item]] = {}
        self._baselines: dict[Supervisor, Baseline] = {}
        self._sweeps: dict[Supervisor, Ejections] = {}
        self._wheel: TimingWheel[Item] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        # Scheduled probes under way, and those that wait for one of them to end. Live sessions have one queue; URLs
        # that failed before have another, since their probes mostly wait. First connections, and programs, queue where
        # sessions are made.
        self._pings = ProbeQueue(concurrency)
        self._retries = ProbeQueue(concurrency)

    def start(self) -> None:
        """Start probing on the running loop."""
        self._wheel = TimingWheel(asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        """Stop probing; idempotent."""
        self._wheel = None
        self.tally.clear()
        self._transitions.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for queue in (self._pings, self._retries):
            queue.overdue.clear()
        for watch in list(self._watches.values()):
            self._forget(watch)
        # A reference to the stopped manager must not keep its servers and their credentials alive.
        for kept in (self._reviews, self._baselines, self._sweeps):
            kept.clear()

    # Events of servers and instances

    def server_added(self, supervisor: Supervisor) -> None:
        """Count a new server."""
        self.tally.add()

    def server_removed(self, supervisor: Supervisor) -> None:
        """Stop counting a server; later events of it change nothing."""
        self.tally.remove(supervisor)
        self._baselines.pop(supervisor, None)
        self._cancel_review(supervisor)
        ejections = self._sweeps.pop(supervisor, None)
        if ejections is not None and ejections.turn is not None and self._wheel is not None:
            self._wheel.cancel(ejections.turn)

    def instance_added(self, supervisor: Supervisor, instance: Instance) -> None:
        """Watch an instance; its probes begin with the deployment's own probe or with the first session."""
        self._watches[instance] = Watch(supervisor, instance)
        self.tally.touch(supervisor, asyncio.get_running_loop().time())
        self._review_in(supervisor, 0.0)

    def instance_changed(self, supervisor: Supervisor, instance: Instance, error: CallError | None) -> None:
        """Note that a session was made or lost, and schedule the next probe or attempt to connect."""
        watch = self._watches.get(instance)
        if watch is None:
            return
        if error is None:
            watch.succeeded()
            instance.template.knowledge.faults.on_flood = partial(self._review_in, supervisor, _NOTICE_S)
        elif not isinstance(error, SessionLostError):
            watch.failed()
        if watch.is_scheduled and watch.in_flight is None:
            self._schedule(watch, next_delay(watch, self._router, self._clock()))
        self.reassess(supervisor)

    def instance_removed(self, instance: Instance) -> None:
        """Forget an instance and cancel its probe."""
        watch = self._watches.get(instance)
        if watch is not None:
            self._forget(watch)
            self.reassess(watch.supervisor)

    def instance_ended(self, supervisor: Supervisor) -> None:
        """Reassess a server after one of its instances has drained."""
        self.reassess(supervisor)

    def settings_changed(self, supervisor: Supervisor, *, of_probes: bool) -> None:
        """Follow settings that changed while the sessions go on; ``of_probes``: also those of probes and restarts."""
        for instance in supervisor.instances if of_probes else ():
            watch = self._watches.get(instance)
            if watch is None:
                continue
            watch.settings_changed()
            # Instances that are being connected have no turn yet, and get one when that is over.
            is_due = watch.turn is not None or (instance.session is not None and watch.in_flight is None)
            if watch.is_scheduled and is_due:
                self._schedule(watch, next_delay(watch, self._router, self._clock()))
        if self.tally.standing(supervisor) is not None:
            self.reassess(supervisor)

    def circuit_opened(self, instance: Instance, retry_after_s: float) -> None:
        """Probe an instance whose circuit opened as soon as the circuit admits a probe."""
        watch = self._watches.get(instance)
        if watch is None:
            return
        watch.failed()
        # Without a session, the next attempt to connect is scheduled already, and does not wait for the circuit.
        if watch.config.health.enabled and instance.session is not None:
            self._schedule(watch, retry_after_s)
        self.reassess(watch.supervisor)

    def call_failed(self, supervisor: Supervisor) -> None:
        """Review a server soon: too many of its calls may have failed by now."""
        self._review_in(supervisor, _NOTICE_S)

    # Requests of other parts

    async def probe(self, instance: Instance) -> bool:
        """Probe an instance once, now; return whether it answered."""
        watch = self._watches.get(instance)
        if watch is None:
            return False
        answered = await self._probe(watch)
        try:
            if watch.is_scheduled and not watch.removed:
                self._schedule(watch, next_delay(watch, self._router, self._clock()))
            self.reassess(watch.supervisor)
        except Exception as error:
            self._turn_broke(watch, error)
        return answered

    def settle(self, supervisor: Supervisor) -> None:
        """Schedule the missing sessions of a server, also those that otherwise only a call would make."""
        supervisor.activate()
        for instance in supervisor.instances:
            watch = self._watches.get(instance)
            if watch is None or instance.session is not None or instance.is_connecting:
                continue
            if watch.in_flight is not None or watch.turn is not None:
                continue
            watch.is_awaited = True
            self._schedule(watch, next_delay(watch, self._router, self._clock()))

    def state(self, supervisor: Supervisor) -> tuple[ServerState, tuple[str, ...]]:
        """Assess a server; return the state and reasons that it is shown with, and update the counts accordingly."""
        if supervisor.is_over or (supervisor.is_inactive and self.tally.standing(supervisor) is None):
            return self._assess(supervisor)[:2]
        return self.reassess(supervisor)

    def shown(self, supervisor: Supervisor) -> tuple[ServerState, tuple[str, ...]]:
        """Return the state and reasons that a server is shown with, without assessing it; works on any thread."""
        standing = self.tally.standing(supervisor)
        if standing is not None:
            return standing.shown
        if supervisor.instances and not supervisor.in_maintenance:
            return ServerState.INITIALIZING, (UNPROBED,)
        return assess(supervisor, (), (), now_ns=0)

    def reassess(self, supervisor: Supervisor) -> tuple[ServerState, tuple[str, ...]]:
        """Reassess a server after a change, and schedule a review for when time alone may change its state."""
        state, reasons, opens_in_s = self._assess(supervisor)
        if supervisor.is_over:
            return state, reasons
        self._begin_sweeps(supervisor)
        now = asyncio.get_running_loop().time()
        settle_s = supervisor.config.health.settle_s
        standing = self.tally.judge(supervisor, state, reasons, now, settle_s)
        self._transitions.note(supervisor, standing)
        if opens_in_s is not None:
            self._review_in(supervisor, opens_in_s)
        if standing.better_since is not None:
            self._review_in(supervisor, max(standing.better_since + settle_s - now, 0.0))
        elif not PASSING.isdisjoint(reasons):
            self._review_in(supervisor, _REVIEW_S)
        return standing.shown

    def _assess(self, supervisor: Supervisor) -> tuple[ServerState, tuple[str, ...], float | None]:
        """Assess a server; also return in how many seconds the first of its open circuits admits a trial."""
        now_ns = self._clock()
        watches: list[Watch] = []
        circuits: list[BackendReading] = []
        for instance in supervisor.instances:
            watch = self._watches.get(instance)
            if instance.backend is not None and watch is not None:
                circuit = self._router.backend_reading(instance.backend, now_ns)
                watch.heard(circuit.last_success_ns)
                if (circuit.circuit_state, circuit.circuit.generation) != watch.circuit:
                    tell_circuit(supervisor, watch, circuit)
                watches.append(watch)
                circuits.append(circuit)
        is_slow = bool(watches) and self._is_slow(supervisor, now_ns)
        state, reasons = assess(supervisor, watches, circuits, now_ns=now_ns, is_slow=is_slow)
        waits = [each.retry_after_ns for each in circuits if each.circuit_state == CircuitState.OPEN]
        return state, reasons, min(waits) / 1e9 if waits else None

    def _is_slow(self, supervisor: Supervisor, now_ns: int) -> bool:
        latest = self._router.window_of(supervisor.record, now_ns)
        if not latest.count:
            return False
        baseline = self._baselines.get(supervisor)
        if baseline is None:
            baseline = Baseline()
            if not supervisor.is_over:
                self._baselines[supervisor] = baseline
        health = supervisor.config.health
        return baseline.is_exceeded(latest, now_ns / 1e9, health.slow_factor, health.slow_floor_s)

    # Schedule

    def _review_in(self, supervisor: Supervisor, delay_s: float) -> None:
        """Review a server in at most ``delay_s`` seconds."""
        if self._wheel is None or supervisor.is_over:
            return
        turn = self._reviews.get(supervisor)
        due = asyncio.get_running_loop().time() + delay_s
        if turn is not None:
            if self._wheel.due(turn) <= due:
                return
            self._wheel.cancel(turn)
        self._reviews[supervisor] = self._wheel.insert(supervisor, due)
        self._arm()

    def _cancel_review(self, supervisor: Supervisor) -> None:
        turn = self._reviews.pop(supervisor, None)
        if turn is not None and self._wheel is not None:
            self._wheel.cancel(turn)

    def _schedule(self, watch: Watch, delay_s: float) -> None:
        if self._wheel is None:
            return
        if watch.turn is not None:
            self._wheel.cancel(watch.turn)
        watch.turn = self._wheel.insert(watch, asyncio.get_running_loop().time() + delay_s)
        self._arm()

    def _arm(self) -> None:
        """Set the loop's timer for the next turn; an empty wheel needs none."""
        at = self._wheel.next_at() if self._wheel is not None else None
        # Stored here, because uvloop's handle of a timer in the past does not know its time.
        if at is None or (self._timer is not None and self._due_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        timer = asyncio.get_running_loop().call_at(at, self._turn, context=bare_context())
        self._timer, self._due_at = timer, at

    def _turn(self) -> None:
        self._timer = None
        if self._wheel is None:
            return
        for item in self._wheel.advance(asyncio.get_running_loop().time()):
            try:
                self._take_turn_of(item)
            except Exception as error:
                # A failed turn must not end the turns of other servers, or the later ones of its own.
                self._turn_broke(item, error)
        self._arm()

    def _take_turn_of(self, item: Item) -> None:
        if isinstance(item, Watch):
            item.turn = None
            self._take_turn(item)
        elif isinstance(item, Ejections):
            self._sweep(item)
        else:
            self._reviews.pop(item, None)
            self.reassess(item)

    def _turn_broke(self, item: Item, error: Exception) -> None:
        """Record a turn that failed unexpectedly, and schedule another one for later."""
        if isinstance(item, Watch):
            self._probe_broke(item, error)
            if item.turn is None and not item.removed:
                self._schedule(item, item.supervisor.config.health.unhealthy_interval_max_s)
            return
        supervisor = item if isinstance(item, Supervisor) else item.supervisor
        supervisor.template.containment.failure(error, "not_sent")
        if isinstance(item, Supervisor):
            self._review_in(item, _BROKEN_REVIEW_S)
        elif self._wheel is not None and self._sweeps.get(supervisor) is item:
            item.turn = self._wheel.insert(item, asyncio.get_running_loop().time() + SWEEP_S)

    def _probe_broke(self, watch: Watch, error: Exception) -> None:
        """Count an unexpected failure against the instance that was probed: it becomes its last error."""
        failure = watch.supervisor.template.containment.failure(error, "not_sent")
        if isinstance(failure, CallError):
            watch.instance.last_error = failure
        watch.probe_failed(self._clock(), ran_out=False)

    def _begin_sweeps(self, supervisor: Supervisor) -> None:
        if supervisor in self._sweeps or self._wheel is None or not supervisor.config.health.outliers:
            return
        ejections = Ejections(supervisor)
        if ejections.is_wanted:
            self._sweeps[supervisor] = ejections
            ejections.turn = self._wheel.insert(ejections, asyncio.get_running_loop().time() + SWEEP_S)
            self._arm()

    def _sweep(self, ejections: Ejections) -> None:
        supervisor = ejections.supervisor
        if self._wheel is None or not ejections.is_wanted:
            self._sweeps.pop(supervisor, None)
            return
        for instance in ejections.sweep(self._router, self._clock()):
            _log.warning(
                "server %r: instance %d fails more often than the others and is ejected for a time",
                supervisor.server_id,
                instance.index,
                extra={"event": "ejected", "server_id": supervisor.server_id, "instance": instance.index},
            )
        ejections.turn = self._wheel.insert(ejections, asyncio.get_running_loop().time() + SWEEP_S)
        self.reassess(supervisor)

    def _take_turn(self, watch: Watch) -> None:
        if watch.removed or watch.in_flight is not None:
            return
        if not watch.is_scheduled:
            # A caller has already started the child process again.
            watch.is_awaited = False
        elif not is_silent(watch, self._router, self._clock()):
            watch.succeeded()
            self._turn_ended(watch)
        else:
            queue = self._queue_of(watch)
            if queue is None or queue.running < queue.most:
                self._begin_probe(watch, queue)
            else:
                queue.overdue.append(watch)

    def _queue_of(self, watch: Watch) -> ProbeQueue | None:
        if watch.instance.session is not None:
            return self._pings
        return self._retries if watch.failures and not watch.is_child else None

    def _begin_probe(self, watch: Watch, queue: ProbeQueue | None) -> None:
        if queue is not None:
            queue.running += 1
        watch.in_flight = watch.supervisor.spawn(self._scheduled_probe(watch))
        watch.in_flight.add_done_callback(partial(self._probe_ended, watch, queue))

    async def _scheduled_probe(self, watch: Watch) -> None:
        await self._probe(watch)

    def _probe_ended(self, watch: Watch, queue: ProbeQueue | None, task: asyncio.Task[None]) -> None:
        # The next probe must follow even if a bug ended this one; its task has logged the error.
        watch.in_flight = None
        try:
            self._turn_ended(watch)
        except Exception as error:
            self._turn_broke(watch, error)
        if queue is not None:
            queue.running -= 1
            while queue.overdue and queue.running < queue.most:
                self._take_turn(queue.overdue.popleft())

    def _turn_ended(self, watch: Watch) -> None:
        watch.is_awaited = False
        if watch.removed:
            return
        if watch.is_scheduled and watch.turn is None:
            self._schedule(watch, next_delay(watch, self._router, self._clock()))
        watch.looked_ns = self._clock()
        self.reassess(watch.supervisor)

    def _forget(self, watch: Watch) -> None:
        self._watches.pop(watch.instance, None)
        watch.removed = True
        if watch.turn is not None and self._wheel is not None:
            self._wheel.cancel(watch.turn)
        watch.turn = None
        if watch.in_flight is not None:
            watch.in_flight.cancel()

    async def _probe(self, watch: Watch) -> bool:
        """Probe an instance once; return whether it answered. An unexpected error counts against this instance only."""
        try:
            return await self._probe_in_turn(watch)
        except Exception as error:
            self._probe_broke(watch, error)
            return False

    async def _probe_in_turn(self, watch: Watch) -> bool:
        instance = watch.instance
        backend = instance.backend
        if backend is None or watch.supervisor.in_maintenance:
            return False
        if instance.session is None:
            # It queues where sessions are made. If it held a slot meanwhile, dead servers would delay the probes of
            # live ones.
            return await self._prober.probe(watch, backend)
        async with self._slots:
            return await self._prober.probe(watch, backend)
