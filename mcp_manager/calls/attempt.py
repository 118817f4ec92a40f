"""One attempt of a call: an instance, its session, and what the end says of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import getrandbits
from typing import Any, Final, NamedTuple, NoReturn

from mcp_manager._core.call_path import LATE_AFTER_NS, Flight
from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager._core.records import Instance as RouterInstance
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager.calls.admission import MAY_WAIT, WaitingRoom, refusal, stopping
from mcp_manager.calls.affinity import Affinity, Pin, state_lost
from mcp_manager.calls.flight_log import FlightLog
from mcp_manager.calls.latencies import Latencies
from mcp_manager.calls.recoveries import Recoveries
from mcp_manager.config import ManagerConfig
from mcp_manager.errors import (
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    OverloadedError,
    ProtocolError,
    SessionLostError,
)
from mcp_manager.health import HealthMonitor
from mcp_manager.outcomes import classify_error, classify_rpc_error
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import ProgressReports, Session
from mcp_manager.transports.base import Sendable
from mcp_manager.types import CallStatus, CircuitState, Outcome, Rejection

__all__ = ["ANYWHERE", "Attempts", "Place"]


class Place(NamedTuple):
    """Where a call may go: to one instance alone, to where its key belongs, or anywhere."""

    instance: RouterInstance | None = None
    key: str | None = None


ANYWHERE: Final = Place()
# What the clocks of a refusal and of its reason may differ by.
_SAME_S: Final = 0.01


class Attempts:
    """Make single attempts; see :class:`~mcp_manager.calls.dispatcher.Dispatcher` for the parameters."""

    def __init__(
        self,
        router: Router,
        monitor: HealthMonitor,
        clock: Callable[[], int],
        flights: FlightLog,
        affinity: Affinity,
        config: ManagerConfig,
    ) -> None:
        self._router = router
        self._monitor = monitor
        self._clock = clock
        self._flights = flights
        self._affinity = affinity
        self._config = config
        self.recoveries = Recoveries()
        self._latencies = Latencies(router, clock)
        self._room = WaitingRoom(router, config, clock, self._latencies.median_s)

    async def notify(
        self, supervisor: Supervisor, method: str, method_raw: bytes, params: bytes | None, deadline_ns: int
    ) -> None:
        """Send a notification to one of a server's instances; raises as :meth:`call`."""
        started_ns = self._clock()
        leased = self._lease(supervisor, method, started_ns, ANYWHERE)
        lease, _ = await self._admitted(supervisor, method, leased, deadline_ns, ANYWHERE)
        instance: Instance = lease.payload
        try:
            await instance.notify(method_raw, params, deadline_ns)
        except BaseException as error:
            error = supervisor.settings.containment.failure(error, "unknown")
            self._failed(supervisor, lease, error)
            raise error
        self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, self._clock())

    def _lease(
        self,
        supervisor: Supervisor,
        method: str,
        now_ns: int,
        place: Place,
        avoid: RouterInstance | None = None,
        *,
        waited: bool = False,
        again: bool = False,
    ) -> tuple[Lease, Pin | None]:
        """Ask the router for an instance; raises :class:`SessionLostError` if the key's session is gone and was a must."""
        if place.key is not None:
            return self._affinity.lease(
                supervisor, place.key, method, now_ns, getrandbits(64), avoid, waited=waited, again=again
            )
        if place.instance is not None:
            return self._router.pick_on(place.instance, method, now_ns, waited=waited), None
        lease = self._router.pick(
            supervisor.server_id, method, now_ns, getrandbits(64), avoid=avoid, waited=waited, again=again
        )
        return lease, None

    async def _admitted(
        self,
        supervisor: Supervisor,
        method: str,
        leased: tuple[Lease, Pin | None],
        deadline_ns: int,
        place: Place,
        avoid: RouterInstance | None = None,
    ) -> tuple[Lease, Pin | None]:
        """Return a lease that is no rejection: this one, or that of whoever waits until there is one.

        ``place`` and ``avoid`` are those that this one was asked for with.

        Raises
        ------
        CallError
            The call is refused before it is sent.
        """
        lease, pin = leased
        if lease.rejection in MAY_WAIT:

            def attempt(now_ns: int) -> Lease:
                nonlocal pin
                lease, pin = self._lease(supervisor, method, now_ns, place, avoid, waited=True)
                return lease

            lease = await self._room.turn(supervisor, lease, attempt, deadline_ns)
        if lease.rejection == Rejection.CIRCUIT_OPEN and _released(supervisor):
            lease, pin = self._lease(supervisor, method, self._clock(), place, avoid, again=True)
        if lease.rejection:
            self._reject(supervisor, lease, place)
        return lease, pin

    async def _carry(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressReports] | None,
        flight: Flight | None = None,
        answer: Any = None,
        *,
        may_resend: bool = True,
        pin: Pin | None = None,
        before: int = 0,
        hedged: bool = False,
    ) -> Message:
        """Take a call the way that leads everywhere: past a session that is not ready, or on from an unusual answer.

        With ``may_resend``, one that a session has lost is sent once more on the next, and that is an attempt as well.
        ``before`` is how many attempts there were before, ``hedged`` tells of two at a time.
        """
        attempts = 1
        instance: Instance = lease.payload
        session: Session | None = instance.session if flight is None else flight.session
        try:
            exchange = None if flight is None or session is None else flight.exchange
            session = session or await instance.ready_session(deadline_ns)
            try:
                if exchange is not None:
                    reply = await session.landed(request, exchange, answer)
                else:
                    if pin is not None and not pin.is_used:
                        pin.settle(instance, session)
                    reply = await session.call(request, deadline_ns, progress)
            except SessionLostError as lost:
                if pin is not None and pin.is_binding:
                    pin.release()
                    instance.lose(session, lost)
                    raise state_lost(supervisor.server_id, "rejected") from lost
                if not may_resend:
                    instance.lose(session, lost)
                    raise
                attempts = 2
                self.recoveries.count(supervisor.server_id, "retry")
                reply = await instance.call_again(session, lost, request, deadline_ns, progress)
                if pin is not None and instance.session is not None:
                    pin.settle(instance, instance.session)
            now_ns = self._clock()
            if 0 < deadline_ns < now_ns - LATE_AFTER_NS:
                raise _late(supervisor.server_id, now_ns - deadline_ns)
        except BaseException as error:
            # An exception's traceback holds this frame.
            del answer
            if not isinstance(error, CallError):
                error = supervisor.settings.containment.failure(error, "unknown" if session is not None else "not_sent")
            if pin is not None and not isinstance(error, SessionLostError):
                pin.is_used = True
            if attempts > 1 and isinstance(error, CallError):
                error.attempts = attempts
            self._failed(supervisor, lease, error)
            if not isinstance(error, CallError):
                # Of the others, whoever decides on further attempts takes note.
                self._flights.note(
                    supervisor.server_id, method, lease, request, started_ns, error=error, attempts=before + attempts
                )
            raise error
        if pin is not None:
            pin.is_used = True
        attempts += before
        if reply.kind == RESULT:
            self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, now_ns)
            if attempts == 1 and not hedged and lease.started_ns == started_ns:
                self._flights.ordinary(lease, method, instance.label)
            else:
                self._flights.note(
                    supervisor.server_id, method, lease, request, started_ns, attempts=attempts, hedged=hedged
                )
        else:
            outcome = classify_rpc_error(reply.error_code, instance.settings.config.breaker.rpc_errors)
            self._router.done(lease, outcome, CallStatus.RPC_ERROR, now_ns, random=getrandbits(64))
            self._flights.note(
                supervisor.server_id, method, lease, request, started_ns, status=CallStatus.RPC_ERROR, attempts=attempts
            )
            if outcome is Outcome.FAILURE:
                self._watch_circuits(supervisor)
            else:
                self._monitor.call_failed(supervisor)
        return reply

    def _reject(self, supervisor: Supervisor, lease: Lease, place: Place) -> NoReturn:
        server_id = supervisor.server_id
        if supervisor.is_over:
            raise stopping(server_id)
        if lease.rejection == Rejection.CIRCUIT_OPEN:
            raise _circuit_open(supervisor, lease, place)
        if lease.rejection >= Rejection.CONCURRENCY:
            self._router.count_refused(lease)
            raise refusal(supervisor, lease, self._config)
        if supervisor.in_maintenance:
            raise OverloadedError("the server is in maintenance", server_id=server_id, delivery="not_sent")
        raise OverloadedError(
            "the server has no instance",
            server_id=server_id,
            delivery="not_sent",
            hint="none was found under its name" if supervisor.desired else "it is suspended: scale it to 1 or more",
        )

    def _failed(self, supervisor: Supervisor, lease: Lease, error: BaseException) -> None:
        if isinstance(error, CallError):
            supervisor.settings.secrets.hide_in(error)
        if isinstance(error, ProtocolError):
            supervisor.settings.faults.count_error(error)
        now_ns = self._clock()
        outcome, status = classify_error(
            error, (now_ns - lease.started_ns) / 1e9, supervisor.config.breaker.timeout_floor_s
        )
        if isinstance(error, SessionLostError) and error.attempts == 1:
            # A session that is gone says nothing of its server, if the next one is not gone as soon.
            outcome = Outcome.IGNORED
        if lease.trial and status is CallStatus.OVERLOADED:
            # A closed circuit ignores "come back later"; a circuit on trial takes it for a no.
            outcome = Outcome.FAILURE
        retry_after_s = getattr(error, "retry_after_s", None) or 0.0
        self._router.done(
            lease, outcome, status, now_ns, retry_after_ns=int(retry_after_s * 1e9), random=getrandbits(64)
        )
        restart_s = supervisor.hold(lease.payload)
        if restart_s and isinstance(error, ConnectError | ConnectionLostError):
            if error.retry_after_s is None:
                error.hint = "; ".join(filter(None, (f"it is started again in {restart_s:.1f} s", error.hint)))
            error.retry_after_s = restart_s
        self._watch_circuits(supervisor, is_noted=True)

    def _watch_circuits(self, supervisor: Supervisor, *, is_noted: bool = False) -> None:
        """Tell the monitor of a failure, and have it probe what has just opened.

        ``is_noted`` tells that the failed call is about to be noted itself.
        """
        self._monitor.call_failed(supervisor)
        now_ns = self._clock()
        for event in self._router.take_events():
            instance: Instance = event.instance.payload
            if instance.handle is not event.instance or event.to_state != CircuitState.OPEN:
                continue
            circuit = self._router.instance_snapshot(event.instance, now_ns)
            # The news may be old: a probe's own failure opens a circuit too, and nobody asked for it then.
            if circuit.circuit_state == CircuitState.OPEN:
                self._monitor.circuit_opened(instance, circuit.retry_after_ns / 1e9)
                server_id = event.instance.server_id
                self._flights.anomaly(
                    server_id, "a circuit opened", after_next=is_noted and server_id == supervisor.server_id
                )


def _late(server_id: str, by_ns: int) -> CallError:
    """Say that a reply is there, but came after the deadline: the loop was blocked, or it would have been told before."""
    error = DeadlineExceededError(
        f"the reply came {by_ns / 1e9:.2f} s after the deadline",
        server_id=server_id,
        delivery="answered",
        retryable=False,
        hint="the event loop was blocked, or this machine is overloaded",
    )
    error.is_local = True
    return error


def _released(supervisor: Supervisor) -> bool:
    """Let calls through to those child processes of a server that may be started by now; tell whether there are any."""
    return any([supervisor.release(each) for each in supervisor.instances])


def _circuit_open(supervisor: Supervisor, lease: Lease, place: Place) -> CircuitOpenError:
    """Say why no circuit lets a call through, and when the first of them will."""
    server_id = supervisor.server_id
    retry_after_s = lease.retry_after_ns / 1e9 or None
    gone = [
        each
        for each in supervisor.instances
        if each.session is None and each.restart_at and place.instance in (None, each.handle)
    ]
    first = min(gone, key=lambda each: each.restart_at, default=None)
    restart_s = 0.0 if first is None else first.restart_at - asyncio.get_running_loop().time()
    if first is None or retry_after_s is None or restart_s > retry_after_s + _SAME_S:
        return CircuitOpenError(
            "the circuit is open after repeated failures",
            server_id=server_id,
            retry_after_s=retry_after_s,
            hint="" if retry_after_s is None else f"retry in {retry_after_s:.1f} s",
        )
    exited = first.last_error
    what = "the server process has ended" if exited is None else exited.message
    return CircuitOpenError(
        f"{what}; it is started again in {retry_after_s:.1f} s",
        server_id=server_id,
        retry_after_s=retry_after_s,
        hint="" if exited is None else exited.hint,
    )
