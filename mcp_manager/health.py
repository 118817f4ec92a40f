"""Health: passive first, an active probe only where traffic is silent, and the state that follows from both."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

from mcp_manager._core.http_message import Request
from mcp_manager._core.router import Router
from mcp_manager._core.snapshots import InstanceSnapshot
from mcp_manager.errors import CallError, SessionLostError
from mcp_manager.policy import backoff_delay, classify_error, jittered
from mcp_manager.pool import Instance
from mcp_manager.supervisor import Supervisor
from mcp_manager.types import CallStatus, CircuitState, Outcome, ServerState

__all__ = ["HealthMonitor", "assess"]

_log = logging.getLogger(__name__)

_PING: Final = Request(b'"ping"', None)
_DEGRADED_FAILURE_RATE: Final = 0.05
_DEGRADED_MIN_CALLS: Final = 20
# After the first good sign of a server that was down, the next one is asked for soon.
_CONFIRM_S: Final = 0.25


class Watch:
    """What the monitor knows of one instance beside what the router counts."""

    __slots__ = (
        "due",
        "failures",
        "in_flight",
        "instance",
        "is_awaited",
        "proven",
        "recovering",
        "removed",
        "successes",
        "supervisor",
    )

    def __init__(self, supervisor: Supervisor, instance: Instance) -> None:
        self.supervisor = supervisor
        self.instance = instance
        self.due = 0.0
        self.failures = 0
        self.successes = 0
        self.proven = False
        self.recovering = False
        self.removed = False
        # Somebody waits for its session, and is the only reason to make it; good for one turn.
        self.is_awaited = False
        self.in_flight: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        """Count a good sign: one is enough at start-up, after a failure it takes ``rise`` of them."""
        self.failures = 0
        self.successes += 1
        health = self.supervisor.config.health
        # Where nothing probes, no second good sign would ever come.
        if not self.recovering or not health.enabled or self.successes >= health.rise:
            self.proven = True
            self.recovering = False

    @property
    def is_scheduled(self) -> bool:
        """Whether it has turns at all: a child process that is gone is started again whatever is probed."""
        config = self.supervisor.config
        is_restarted = config.transport == "stdio" or self.is_awaited
        return config.health.enabled or (is_restarted and self.instance.session is None)

    def failed(self, *, probe: bool) -> None:
        """Count a bad sign; only failed probes count towards ``fall``."""
        self.failures += probe
        self.successes = 0
        self.proven = False
        self.recovering = True


class HealthMonitor:
    """Probe every instance on its own jittered schedule and judge the servers.

    Parameters
    ----------
    router
        Admits and counts probes, and knows the passive outcomes.
    clock
        Monotonic nanoseconds.
    concurrency
        The most probes under way at once.
    """

    def __init__(self, router: Router, clock: Callable[[], int], *, concurrency: int) -> None:
        self._router = router
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._watches: dict[Instance, Watch] = {}
        self._queue: list[tuple[float, int, Watch]] = []
        self._sequence = itertools.count()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin probing on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Stop probing; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for watch in list(self._watches.values()):
            self.instance_removed(watch.instance)

    def instance_added(self, supervisor: Supervisor, instance: Instance) -> None:
        """Watch an instance; probing begins with the deployment's own probe or with the first session."""
        self._watches[instance] = Watch(supervisor, instance)

    def instance_changed(self, supervisor: Supervisor, instance: Instance, error: CallError | None) -> None:
        """Take note that a session was made or lost, and come back when it can be made again."""
        watch = self._watches.get(instance)
        if watch is None:
            return
        if error is None:
            watch.succeeded()
        elif not isinstance(error, SessionLostError):
            watch.failed(probe=False)
        if watch.is_scheduled and watch.in_flight is None:
            self._schedule(watch, self._next_delay(watch))

    def instance_removed(self, instance: Instance) -> None:
        """Forget an instance and cancel its probe."""
        watch = self._watches.pop(instance, None)
        if watch is not None:
            watch.removed = True
            if watch.in_flight is not None:
                watch.in_flight.cancel()

    def circuit_opened(self, instance: Instance, retry_after_s: float) -> None:
        """Probe an instance whose circuit opened as soon as the circuit lets a probe through."""
        watch = self._watches.get(instance)
        if watch is None:
            return
        watch.failed(probe=False)
        # Without a session the next attempt to make one is on its way already, and does not wait for the circuit.
        if watch.supervisor.config.health.enabled and instance.session is not None:
            self._schedule(watch, retry_after_s)

    async def probe(self, instance: Instance) -> bool:
        """Probe an instance now, once; tell whether it answered."""
        watch = self._watches.get(instance)
        if watch is None:
            return False
        answered = await self._probe(watch)
        if watch.is_scheduled and not watch.removed:
            self._schedule(watch, self._next_delay(watch))
        return answered

    def settle(self, supervisor: Supervisor) -> None:
        """Have a server's missing sessions made in their own time, also where only a call would make them."""
        now = asyncio.get_running_loop().time()
        for instance in supervisor.instances:
            watch = self._watches.get(instance)
            if watch is None or instance.session is not None or instance.is_connecting:
                continue
            if watch.in_flight is not None or watch.due > now:
                continue
            watch.is_awaited = True
            self._schedule(watch, self._next_delay(watch))

    def state(self, supervisor: Supervisor) -> tuple[ServerState, tuple[str, ...]]:
        """Judge a server: its state and the reasons for it."""
        now_ns = self._clock()
        watches: list[Watch] = []
        circuits: list[InstanceSnapshot] = []
        for instance in supervisor.instances:
            if instance.handle is not None:
                watches.append(self._watches[instance])
                circuits.append(self._router.instance_snapshot(instance.handle, now_ns))
        return assess(supervisor, watches, circuits)

    def _schedule(self, watch: Watch, delay_s: float) -> None:
        watch.due = asyncio.get_running_loop().time() + delay_s
        heapq.heappush(self._queue, (watch.due, next(self._sequence), watch))
        if self._queue[0][2] is watch:
            self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            while self._queue and self._queue[0][0] <= now:
                due, _, watch = heapq.heappop(self._queue)
                # An entry that was rescheduled since has another due time; it is not this one's turn.
                if not watch.removed and due == watch.due and watch.in_flight is None:
                    watch.in_flight = watch.supervisor.spawn(self._scheduled_probe(watch))
            timeout_s = self._queue[0][0] - now if self._queue else None
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _scheduled_probe(self, watch: Watch) -> None:
        try:
            if not watch.is_scheduled:
                # A caller was first to start the child process again.
                return
            if self._is_silent(watch):
                await self._probe(watch)
            else:
                watch.succeeded()
        finally:
            watch.in_flight = None
            watch.is_awaited = False
            if not watch.removed and watch.is_scheduled:
                self._schedule(watch, self._next_delay(watch))

    def _is_silent(self, watch: Watch) -> bool:
        """Tell whether traffic has not proven the instance within the last interval."""
        handle = watch.instance.handle
        if handle is None or not watch.proven or watch.instance.session is None:
            return True
        now_ns = self._clock()
        if self._router.breaker_state(handle, now_ns) != CircuitState.CLOSED:
            # What traffic proved before the circuit opened no longer holds.
            return True
        silence_ns = now_ns - handle.last_success_ns
        return handle.last_success_ns == 0 or silence_ns >= watch.supervisor.config.health.interval_s * 1e9

    def _next_delay(self, watch: Watch) -> float:
        health = watch.supervisor.config.health
        handle = watch.instance.handle
        restart_s = watch.instance.restart_at - asyncio.get_running_loop().time()
        if watch.instance.session is None and restart_s > 0:
            return restart_s
        if handle is not None and watch.instance.session is not None:
            circuit = self._router.instance_snapshot(handle, self._clock())
            if circuit.circuit_state == CircuitState.OPEN and circuit.retry_after_ns > 0:
                # The breaker knows when a probe may pass: asking earlier is of no use, asking later wastes recovery.
                return circuit.retry_after_ns / 1e9
            if circuit.circuit_state == CircuitState.HALF_OPEN and not watch.failures:
                return min(_CONFIRM_S, health.interval_s)
        if watch.failures:
            return backoff_delay(
                watch.failures - 1,
                health.unhealthy_interval_s,
                health.unhealthy_interval_max_s,
                health.jitter,
                random.random(),
            )
        if not watch.proven or watch.instance.session is None:
            return min(_CONFIRM_S, health.interval_s)
        return jittered(health.interval_s, health.jitter, random.random())

    async def _probe(self, watch: Watch) -> bool:
        instance = watch.instance
        config = watch.supervisor.config
        handle = instance.handle
        if handle is None or watch.supervisor.in_maintenance:
            return False
        async with self._slots:
            started_ns = self._clock()
            lease = self._router.pick_probe(handle, started_ns)
            # A child process that is gone, or a server never reached, is not the breaker's business: there is no
            # traffic to protect it from, and the session's own backoff governs.
            exempt = instance.session is None and (config.transport == "stdio" or instance.generation == 0)
            if lease.rejection and not exempt:
                return False
            outcome, status = Outcome.IGNORED, CallStatus.CANCELLED
            try:
                await self._ask(instance, config.health.timeout_s, config.connect_timeout_s)
                outcome, status = Outcome.SUCCESS, CallStatus.SUCCESS
            except CallError as error:
                instance.last_error = error
                _, status = classify_error(error, (self._clock() - started_ns) / 1e9, 0.0)
                outcome = Outcome.FAILURE
            finally:
                self._router.done(lease, outcome, status, self._clock(), random=random.getrandbits(64))
        if outcome is Outcome.SUCCESS:
            watch.succeeded()
        else:
            watch.failed(probe=True)
        return outcome is Outcome.SUCCESS

    async def _ask(self, instance: Instance, timeout_s: float, connect_timeout_s: float) -> None:
        now_ns = self._clock()
        if instance.session is None:
            # The handshake is the probe: a server that completes it is alive.
            await instance.ready_session(now_ns + int((connect_timeout_s + timeout_s) * 1e9))
        else:
            await instance.call(_PING, now_ns + int(timeout_s * 1e9))


def assess(
    supervisor: Supervisor, watches: Sequence[Watch], circuits: Sequence[InstanceSnapshot]
) -> tuple[ServerState, tuple[str, ...]]:
    """Judge a server from its instances; the first state that fits, worst first.

    Parameters
    ----------
    supervisor
        The server.
    watches, circuits
        What is known of each of its instances, in the same order.

    Returns
    -------
    The state, and why it is not ``Healthy``.
    """
    if supervisor.in_maintenance:
        return ServerState.MAINTENANCE, ("operator",)
    if not watches:
        return ServerState.STOPPED, ("suspended",)
    if all(_is_untried(watch) for watch in watches):
        return ServerState.INITIALIZING, ("unprobed",)
    fall = supervisor.config.health.fall
    reasons: dict[str, None] = {}
    down = 0
    for watch, circuit in zip(watches, circuits, strict=True):
        reason, is_down = _judge(watch, circuit, fall)
        down += is_down
        if reason:
            reasons[reason] = None
    if down == len(watches):
        return ServerState.UNHEALTHY, tuple(reasons)
    calls = sum(circuit.window_calls for circuit in circuits)
    failures = sum(circuit.window_failures for circuit in circuits)
    if calls >= _DEGRADED_MIN_CALLS and failures >= _DEGRADED_FAILURE_RATE * calls:
        reasons["failing calls"] = None
    if supervisor.draining:
        reasons["draining"] = None
    return (ServerState.DEGRADED if reasons else ServerState.HEALTHY), tuple(reasons)


def _is_untried(watch: Watch) -> bool:
    return watch.instance.session is None and watch.instance.last_error is None and not watch.failures


def _judge(watch: Watch, circuit: InstanceSnapshot, fall: int) -> tuple[str, bool]:
    """Name what is wrong with an instance, if anything is, and tell whether it can serve at all."""
    if circuit.circuit_state == CircuitState.OPEN:
        return "circuit open", True
    if watch.failures >= fall:
        return "probes failing", True
    if watch.instance.session is None:
        if _is_untried(watch):
            return "unprobed", False
        return "not connected", True
    if circuit.circuit_state == CircuitState.HALF_OPEN:
        return "circuit half open", False
    if watch.failures:
        return "probe failed", False
    return ("", False) if watch.proven else ("recovering", False)
