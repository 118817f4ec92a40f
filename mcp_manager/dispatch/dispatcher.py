"""The path of one call: a lease from the router, the exchange, and what its end says of the server."""

from __future__ import annotations

from collections.abc import Callable
from random import getrandbits
from typing import Any, NoReturn

from mcp_manager._core.call_path import CallPath, Flight
from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager.errors import CircuitOpenError, OverloadedError, ProtocolError, SessionLostError
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
    """

    def __init__(self, router: Router, monitor: HealthMonitor, clock: Callable[[], int]) -> None:
        self._router = router
        path = CallPath(router, clock, getrandbits(64))
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
    ) -> Message:
        """Send a request to one of a server's instances and return its reply.

        Parameters
        ----------
        method
            Its name, for the accounts.
        started_ns, deadline_ns
            When the call came, and when it must be over, of the clock.

        Raises
        ------
        CallError
            No reply: the circuit is open, there is no instance, or the exchange failed.
        """
        passes = progress is None and method not in KEPT_BY_SESSION
        flight = self._begin(supervisor.record, method, request if passes else None, started_ns, deadline_ns)
        if flight.future is None:
            return await self._carry(supervisor, flight.lease, request, deadline_ns, progress)
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
            return await self._carry(supervisor, flight.lease, request, deadline_ns, None, flight, answer)
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
        return await self._carry(supervisor, lease, request, deadline_ns, None), lease.payload

    async def _carry(
        self,
        supervisor: Supervisor,
        lease: Lease,
        request: Sendable,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        flight: Flight | None = None,
        answer: Any = None,
    ) -> Message:
        """Take a call the way that leads everywhere: past a session that is not ready, or on from an unusual answer."""
        if lease.rejection:
            self._reject(supervisor, lease)
        instance: Instance = lease.payload
        session: Session | None = instance.session if flight is None else flight.session
        try:
            try:
                if flight is not None and flight.exchange is not None and session is not None:
                    reply = await session.landed(request, flight.exchange, answer)
                else:
                    session = session or await instance.ready_session(deadline_ns)
                    reply = await session.call(request, deadline_ns, progress)
            except SessionLostError as lost:
                assert session is not None
                reply = await instance.call_again(session, lost, request, deadline_ns, progress)
        except BaseException as error:
            self._failed(supervisor, lease, error)
            raise
        if reply.kind == RESULT:
            self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, self._clock())
        else:
            outcome = classify_rpc_error(reply.error_code)
            self._router.done(lease, outcome, CallStatus.RPC_ERROR, self._clock(), random=getrandbits(64))
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
            self._reject(supervisor, lease)
        instance: Instance = lease.payload
        try:
            await instance.notify(method_raw, params, deadline_ns)
        except BaseException as error:
            self._failed(supervisor, lease, error)
            raise
        self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, self._clock())

    def _reject(self, supervisor: Supervisor, lease: Lease) -> NoReturn:
        server_id = supervisor.server_id
        if lease.rejection == CallStatus.CIRCUIT_OPEN:
            retry_after_s = lease.retry_after_ns / 1e9
            raise CircuitOpenError(
                "the circuit is open after repeated failures",
                server_id=server_id,
                retry_after_s=retry_after_s,
                hint=f"retry in {retry_after_s:.1f} s",
            )
        if lease.rejection >= Rejection.CONCURRENCY:
            self._router.count_refused(lease)
            raise _limit_reached(server_id, Rejection(lease.rejection), lease.retry_after_ns / 1e9)
        if supervisor.in_maintenance:
            raise OverloadedError("the server is in maintenance", server_id=server_id, delivery="not_sent")
        raise OverloadedError(
            "the server has no instance",
            server_id=server_id,
            delivery="not_sent",
            hint="it is suspended: scale it to 1 or more",
        )

    def _failed(self, supervisor: Supervisor, lease: Lease, error: BaseException) -> None:
        if isinstance(error, ProtocolError):
            supervisor.settings.faults.count_error(error)
        now_ns = self._clock()
        outcome, status = classify_error(
            error, (now_ns - lease.started_ns) / 1e9, supervisor.config.breaker.timeout_floor_s
        )
        if lease.trial and status is CallStatus.OVERLOADED:
            # A closed circuit ignores "come back later"; a circuit on trial takes it for a no.
            outcome = Outcome.FAILURE
        retry_after_s = getattr(error, "retry_after_s", None) or 0.0
        self._router.done(
            lease, outcome, status, now_ns, retry_after_ns=int(retry_after_s * 1e9), random=getrandbits(64)
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
