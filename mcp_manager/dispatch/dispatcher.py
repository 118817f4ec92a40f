"""The path of one call: a lease from the router, the exchange, and what its end says of the server."""

from __future__ import annotations

from collections.abc import Callable
from random import getrandbits
from typing import Any, NoReturn

from mcp_manager._core.call_path import CallPath, Flight
from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager.dispatch.affinity import Affinity, Pin, state_lost
from mcp_manager.dispatch.flight_log import FlightLog
from mcp_manager.errors import CallError, CircuitOpenError, OverloadedError, ProtocolError, SessionLostError
from mcp_manager.health import HealthMonitor
from mcp_manager.policy import classify_error, classify_rpc_error
from mcp_manager.pool import Instance
from mcp_manager.protocol.methods import KEPT_BY_SESSION
from mcp_manager.session import ProgressCallback, Session
from mcp_manager.supervisor import Supervisor
from mcp_manager.transports.base import Sendable
from mcp_manager.types import CallStatus, CircuitState, Outcome, Rejection

__all__ = ["Dispatcher"]


class Dispatcher:
    """Carry calls to instances.

    Parameters
    ----------
    router
        Picks the instance and keeps the accounts: two crossings a call, ``pick`` and ``done``.
    monitor
        Told of circuits that open, so that recovery does not wait for traffic.
    clock
        Monotonic nanoseconds.
    flights
        Remembers what became of calls.
    affinity
        Chooses instances for calls with a key.
    """

    def __init__(
        self,
        router: Router,
        monitor: HealthMonitor,
        clock: Callable[[], int],
        flights: FlightLog,
        affinity: Affinity,
    ) -> None:
        self._router = router
        self._flights = flights
        self._affinity = affinity
        path = CallPath(router, clock, getrandbits(64), flights.recorder)
        self._begin = path.begin
        self._land = path.land
        self._monitor = monitor
        self._clock = clock

    async def call(
        self,
        supervisor: Supervisor,
        method: str,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None = None,
        key: str | None = None,
    ) -> Message:
        """Send a request to one of a server's instances and return its reply.

        Parameters
        ----------
        method
            Its name, for the accounts.
        started_ns, deadline_ns
            When the call came, and when it must be over, of the clock.
        key
            Calls with the same one stay together, if the server is configured so.

        Raises
        ------
        CallError
            No reply: the circuit is open, there is no instance, or the exchange failed.
        """
        if key is not None:
            lease, pin = self._affinity.lease(supervisor, key, method, started_ns, getrandbits(64))
            return await self._carry(supervisor, method, lease, request, deadline_ns, progress, pin=pin)
        passes = progress is None and method not in KEPT_BY_SESSION
        flight = self._begin(supervisor.record, method, request if passes else None, started_ns, deadline_ns)
        if flight.future is None:
            return await self._carry(supervisor, method, flight.lease, request, deadline_ns, progress)
        answer: Any
        try:
            answer = await flight.future
        except BaseException as error:
            flight.abandon()
            answer = error
        else:
            reply = self._land(flight, answer)
            if reply is not None:
                return reply
        try:
            return await self._carry(supervisor, method, flight.lease, request, deadline_ns, None, flight, answer)
        finally:
            # An exception's traceback holds this frame.
            del answer

    async def call_on(
        self,
        supervisor: Supervisor,
        instance: Instance | None,
        method: str,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
    ) -> tuple[Message, Instance]:
        """Send a request to one instance, ``None`` for any, and return its reply and which it was; otherwise as :meth:`call`."""
        if instance is None or instance.handle is None:
            lease = self._router.pick(supervisor.server_id, method, started_ns, getrandbits(64))
        else:
            lease = self._router.pick_on(instance.handle, method, started_ns)
        return await self._carry(supervisor, method, lease, request, deadline_ns, None), lease.payload

    async def _carry(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease,
        request: Sendable,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        flight: Flight | None = None,
        answer: Any = None,
        pin: Pin | None = None,
    ) -> Message:
        """Take a call the way that leads everywhere: past a session that is not ready, or on from an unusual answer."""
        if lease.rejection:
            self._refuse(supervisor, method, lease)
        instance: Instance = lease.payload
        session: Session | None = instance.session if flight is None else flight.session
        attempts = 1
        label = instance.label
        try:
            try:
                if flight is not None and flight.exchange is not None and session is not None:
                    reply = await session.landed(request, flight.exchange, answer)
                else:
                    if session is None:
                        session = await instance.ready_session(deadline_ns)
                        label = instance.label
                        if pin is not None:
                            pin.settle(instance, session)
                    reply = await session.call(request, deadline_ns, progress)
            except SessionLostError as lost:
                assert session is not None
                if pin is not None and pin.is_binding:
                    pin.release()
                    instance.lose(session, lost)
                    raise state_lost(supervisor.server_id, "rejected") from lost
                attempts = 2
                reply = await instance.call_again(session, lost, request, deadline_ns, progress)
                label = instance.label
                if pin is not None and instance.session is not None:
                    pin.settle(instance, instance.session)
        except BaseException as error:
            if pin is not None and not isinstance(error, SessionLostError):
                pin.is_used = True
            self._failed(supervisor, method, lease, error, label, attempts)
            raise
        if pin is not None:
            pin.is_used = True
        if reply.kind == RESULT:
            self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, self._clock())
            if attempts == 1:
                self._flights.ordinary(lease, method, label)
            else:
                self._flights.unusual(
                    supervisor.server_id,
                    method,
                    lease.started_ns,
                    label,
                    CallStatus.SUCCESS,
                    attempts=attempts,
                    **self._standing(lease),
                )
        else:
            outcome = classify_rpc_error(reply.error_code)
            self._router.done(lease, outcome, CallStatus.RPC_ERROR, self._clock(), random=getrandbits(64))
            self._flights.unusual(
                supervisor.server_id,
                method,
                lease.started_ns,
                label,
                CallStatus.RPC_ERROR,
                attempts=attempts,
                **self._standing(lease),
            )
            if outcome is Outcome.FAILURE:
                self._watch_circuits()
        return reply

    async def notify(
        self, supervisor: Supervisor, method: str, method_raw: bytes, params: bytes | None, deadline_ns: int
    ) -> None:
        """Send a notification to one of a server's instances; raises as :meth:`call`."""
        started_ns = self._clock()
        lease = self._router.pick(supervisor.server_id, method, started_ns, getrandbits(64))
        if lease.rejection:
            self._refuse(supervisor, method, lease)
        instance: Instance = lease.payload
        label = instance.label
        try:
            await instance.notify(method_raw, params, deadline_ns)
        except BaseException as error:
            self._failed(supervisor, method, lease, error, label, 1)
            raise
        self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, self._clock())

    def _refuse(self, supervisor: Supervisor, method: str, lease: Lease) -> NoReturn:
        error = _rejection(supervisor, lease)
        is_limit = lease.rejection >= Rejection.CONCURRENCY
        if is_limit:
            self._router.count_refused(lease)
        status = CallStatus.OVERLOADED if is_limit else CallStatus(lease.rejection)
        self._flights.unusual(supervisor.server_id, method, lease.started_ns, None, status, error, attempts=0)
        raise error

    def _standing(self, lease: Lease) -> dict[str, Any]:
        """Say of a lease that was given back how its instance stands, for the call's record."""
        assert lease.instance is not None
        circuit = CircuitState(self._router.breaker_state(lease.instance, self._clock()))
        return {"circuit": circuit.label, "inflight": lease.instance.inflight, "limit": lease.instance.limit}

    def _failed(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease,
        error: BaseException,
        label: object,
        attempts: int,
    ) -> None:
        if isinstance(error, ProtocolError):
            supervisor.settings.faults.count_error(error)
        now_ns = self._clock()
        outcome, status = classify_error(
            error, (now_ns - lease.started_ns) / 1e9, supervisor.config.breaker.timeout_floor_s
        )
        if status is CallStatus.SESSION_LOST and attempts == 1:
            # Of a key that no other session will do for: that one is gone says nothing of the server.
            outcome = Outcome.IGNORED
        if lease.trial and status is CallStatus.OVERLOADED:
            # A closed circuit ignores "come back later"; a circuit on trial takes it for a no.
            outcome = Outcome.FAILURE
        retry_after_s = getattr(error, "retry_after_s", None) or 0.0
        self._router.done(
            lease, outcome, status, now_ns, retry_after_ns=int(retry_after_s * 1e9), random=getrandbits(64)
        )
        self._flights.unusual(
            supervisor.server_id,
            method,
            lease.started_ns,
            label,
            status,
            error,
            attempts=attempts,
            **self._standing(lease),
        )
        self._watch_circuits()

    def _watch_circuits(self) -> None:
        """Have the monitor probe what has just opened."""
        now_ns = self._clock()
        for event in self._router.take_events():
            instance: Instance = event.instance.payload
            if instance.handle is not event.instance or event.to_state != CircuitState.OPEN:
                continue
            circuit = self._router.instance_snapshot(event.instance, now_ns)
            # The news may be old: a probe's own failure opens a circuit too, and nobody asked for it then.
            if circuit.circuit_state == CircuitState.OPEN:
                self._monitor.circuit_opened(instance, circuit.retry_after_ns / 1e9)
                self._flights.anomaly(event.instance.server_id, "a circuit opened")


def _rejection(supervisor: Supervisor, lease: Lease) -> CallError:
    """Say why no instance took a call."""
    server_id = supervisor.server_id
    if lease.rejection == CallStatus.CIRCUIT_OPEN:
        retry_after_s = lease.retry_after_ns / 1e9
        return CircuitOpenError(
            "the circuit is open after repeated failures",
            server_id=server_id,
            retry_after_s=retry_after_s,
            hint=f"retry in {retry_after_s:.1f} s",
        )
    if lease.rejection >= Rejection.CONCURRENCY:
        return _limit_reached(server_id, Rejection(lease.rejection), lease.retry_after_ns / 1e9)
    if supervisor.in_maintenance:
        return OverloadedError("the server is in maintenance", server_id=server_id, delivery="not_sent")
    return OverloadedError(
        "the server has no instance",
        server_id=server_id,
        delivery="not_sent",
        hint="it is suspended: scale it to 1 or more",
    )


def _limit_reached(server_id: str, rejection: Rejection, retry_after_s: float) -> OverloadedError:
    if rejection is Rejection.PAUSED:
        return OverloadedError(
            "the server asked for a pause",
            server_id=server_id,
            delivery="not_sent",
            retry_after_s=retry_after_s,
            hint=f"retry in {retry_after_s:.1f} s",
        )
    return OverloadedError("a limit of the server is reached", server_id=server_id, delivery="not_sent")
