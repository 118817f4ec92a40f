"""The path of one call: a lease from the router, the exchange, and what its end says of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import getrandbits, random
from typing import Any, NoReturn

from mcp_manager._core.call_path import CallPath, Flight
from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager._core.records import READY, Lease
from mcp_manager._core.records import Instance as RouterInstance
from mcp_manager._core.router import Router
from mcp_manager.dispatch.affinity import Affinity, Pin, state_lost
from mcp_manager.dispatch.flight_log import FlightLog
from mcp_manager.dispatch.latencies import Latencies
from mcp_manager.dispatch.retrying import (
    concluded,
    is_executed_safely,
    may_be_repeated,
    next_backoff_s,
    pause_s,
    way_to_repeat,
)
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
        self._latencies = Latencies(router, clock)

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

        One that fails is sent again as its server's :class:`~mcp_manager.config.RetryConfig` allows, on another instance
        if there is one.

        Parameters
        ----------
        method
            Its name, for the accounts.
        started_ns, deadline_ns
            When the call came, and when it must be over with all its attempts, of the clock.
        progress
            A progress token that the params carry, and who listens to it, whichever attempt it comes from.
        key
            Calls with the same one stay together, if the server is configured so.

        Raises
        ------
        CallError
            No reply: the circuit is open, there is no instance, or the exchange failed.
        """
        if key is not None:
            return await self._call_with_key(supervisor, method, request, started_ns, deadline_ns, progress, key)
        passes = progress is None and method not in KEPT_BY_SESSION
        flight = self._begin(supervisor.record, method, request if passes else None, started_ns, deadline_ns)
        lease: Lease | None = None
        try:
            if flight.future is None:
                lease = await self._admitted(supervisor, method, flight.lease, deadline_ns)
                return await self._carry(supervisor, method, lease, request, started_ns, deadline_ns, progress)
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
                return await self._carry(
                    supervisor, method, flight.lease, request, started_ns, deadline_ns, None, flight, answer
                )
            finally:
                # An exception's traceback holds this frame.
                del answer
        except CallError as error:
            lease = lease or flight.lease
            again = await self._again(supervisor, method, lease, request, started_ns, deadline_ns, progress, error)
            return again[0]

    async def _call_with_key(
        self,
        supervisor: Supervisor,
        method: str,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        key: str,
    ) -> Message:
        lease: Lease | None = None
        try:
            lease, pin = self._affinity.lease(supervisor, key, method, started_ns, getrandbits(64))
            lease = await self._admitted(supervisor, method, lease, deadline_ns)
            return await self._carry(supervisor, method, lease, request, started_ns, deadline_ns, progress, pin=pin)
        except CallError as error:
            again = await self._again(
                supervisor, method, lease, request, started_ns, deadline_ns, progress, error, key=key
            )
            return again[0]

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
        pinned = None if instance is None else instance.handle
        lease = self._pick(supervisor, method, started_ns, pinned)
        try:
            lease = await self._admitted(supervisor, method, lease, deadline_ns)
            reply = await self._carry(supervisor, method, lease, request, started_ns, deadline_ns, None)
        except CallError as error:
            reply, lease = await self._again(
                supervisor, method, lease, request, started_ns, deadline_ns, None, error, pinned
            )
        return reply, lease.payload

    async def _again(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease | None,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        error: CallError,
        pinned: RouterInstance | None = None,
        key: str | None = None,
    ) -> tuple[Message, Lease]:
        """Go on with a call whose first attempt has failed: return the reply of a later one, and its lease.

        Parameters
        ----------
        lease, error
            Those of the first attempt.
        pinned, key
            The only instance that will do, and what chooses it.

        Raises
        ------
        CallError
            That of the last attempt: it is not to be made again, or not in time.
        """
        config = supervisor.config.retry
        attempts, backoff_s = error.attempts, config.backoff_s
        may_have_run = error.delivery == "unknown"
        try:
            while attempts < config.attempts and error.retryable and lease is not None:
                is_safe = error.delivery != "unknown" or is_executed_safely(
                    method, request, config, supervisor.settings.hints
                )
                if not is_safe:
                    error.hint = error.hint or way_to_repeat(method, request)
                if not may_be_repeated(error, is_safe):
                    break
                backoff_s = next_backoff_s(backoff_s, config, random())
                if not await self._paused(supervisor, lease, deadline_ns, error, backoff_s, pinned):
                    break
                try:
                    again, pin = self._lease(supervisor, method, self._clock(), pinned, lease.instance, key)
                except KeyError:
                    # The server was removed meanwhile.
                    break
                except SessionLostError as lost:
                    error = lost
                    break
                may_resend = attempts + 1 < config.attempts
                try:
                    again = await self._admitted(supervisor, method, again, deadline_ns)
                    reply = await self._carry(
                        supervisor,
                        method,
                        again,
                        request,
                        started_ns,
                        deadline_ns,
                        progress,
                        may_resend=may_resend,
                        pin=pin,
                        before=attempts,
                    )
                    return reply, again
                except CallError as failure:
                    if again.rejection and not lease.rejection:
                        # Why the call failed says more than why it is not made once more.
                        break
                    lease, error = again, failure
                attempts += error.attempts
                may_have_run = may_have_run or error.delivery == "unknown"
            concluded(error, attempts, may_have_run=may_have_run)
            self._flights.note(supervisor.server_id, method, lease, request, started_ns, error=error, attempts=attempts)
            raise error
        finally:
            # An exception's traceback holds this frame.
            del error

    async def _paused(
        self,
        supervisor: Supervisor,
        lease: Lease,
        deadline_ns: int,
        error: CallError,
        backoff_s: float,
        pinned: RouterInstance | None,
    ) -> bool:
        """Wait before another attempt; tell whether there is to be one: if the budget has it, and time is left for it."""
        now_ns = self._clock()
        is_local = lease.rejection != 0
        has_other = pinned is None and self._has_other(supervisor, lease.instance, now_ns)
        wait_s = pause_s(error, supervisor.config.retry, backoff_s, is_local=is_local, has_other=has_other)
        if wait_s is None:
            return False
        left_s = (deadline_ns - now_ns) / 1e9 - wait_s
        if left_s <= 0 or left_s < self._latencies.median_s(supervisor.server_id):
            return False
        if not is_local and not self._router.withdraw(supervisor.record, now_ns):
            return False
        if wait_s:
            await asyncio.sleep(wait_s)
        return True

    def _has_other(self, supervisor: Supervisor, failed: RouterInstance | None, now_ns: int) -> bool:
        """Tell whether an instance other than the one that failed would take a call at once."""
        for instance in supervisor.instances:
            handle = instance.handle
            if (
                handle is not None
                and handle is not failed
                and handle.availability == READY
                and handle.ejected_until_ns <= now_ns
                and handle.paused_until_ns <= now_ns
                and (handle.limit is None or handle.inflight < handle.limit)
                and self._router.breaker_state(handle, now_ns) == CircuitState.CLOSED
            ):
                return True
        return False

    def _pick(
        self,
        supervisor: Supervisor,
        method: str,
        now_ns: int,
        pinned: RouterInstance | None,
        avoid: RouterInstance | None = None,
    ) -> Lease:
        if pinned is not None:
            return self._router.pick_on(pinned, method, now_ns)
        return self._router.pick(supervisor.server_id, method, now_ns, getrandbits(64), avoid=avoid)

    def _lease(
        self,
        supervisor: Supervisor,
        method: str,
        now_ns: int,
        pinned: RouterInstance | None,
        avoid: RouterInstance | None,
        key: str | None,
    ) -> tuple[Lease, Pin | None]:
        if key is not None:
            return self._affinity.lease(supervisor, key, method, now_ns, getrandbits(64), avoid)
        return self._pick(supervisor, method, now_ns, pinned, avoid), None

    async def _admitted(self, supervisor: Supervisor, method: str, lease: Lease, deadline_ns: int) -> Lease:
        """Return a lease that is no rejection: this one, or that of whoever waits until there is one.

        Raises
        ------
        CallError
            The call is refused before it is sent.
        """
        if lease.rejection:
            self._reject(supervisor, lease)
        return lease

    async def _carry(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        flight: Flight | None = None,
        answer: Any = None,
        *,
        may_resend: bool = True,
        pin: Pin | None = None,
        before: int = 0,
    ) -> Message:
        """Take a call the way that leads everywhere: past a session that is not ready, or on from an unusual answer.

        With ``may_resend``, one that a session has lost is sent once more on the next, and that is an attempt as well.
        ``before`` is how many attempts there were before.
        """
        attempts = 1
        instance: Instance = lease.payload
        session: Session | None = instance.session if flight is None else flight.session
        try:
            try:
                if flight is not None and flight.exchange is not None and session is not None:
                    reply = await session.landed(request, flight.exchange, answer)
                else:
                    session = session or await instance.ready_session(deadline_ns)
                    if pin is not None and not pin.is_used:
                        pin.settle(instance, session)
                    reply = await session.call(request, deadline_ns, progress)
            except SessionLostError as lost:
                assert session is not None
                if pin is not None and pin.is_binding:
                    pin.release()
                    instance.lose(session, lost)
                    raise state_lost(supervisor.server_id, "rejected") from lost
                if not may_resend:
                    instance.lose(session, lost)
                    raise
                attempts = 2
                reply = await instance.call_again(session, lost, request, deadline_ns, progress)
                if pin is not None and instance.session is not None:
                    pin.settle(instance, instance.session)
        except BaseException as error:
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
            raise
        if pin is not None:
            pin.is_used = True
        attempts += before
        if reply.kind == RESULT:
            self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, self._clock())
            if attempts == 1 and lease.started_ns == started_ns:
                self._flights.ordinary(lease, method, instance.label)
            else:
                self._flights.note(supervisor.server_id, method, lease, request, started_ns, attempts=attempts)
        else:
            outcome = classify_rpc_error(reply.error_code)
            self._router.done(lease, outcome, CallStatus.RPC_ERROR, self._clock(), random=getrandbits(64))
            self._flights.note(
                supervisor.server_id, method, lease, request, started_ns, status=CallStatus.RPC_ERROR, attempts=attempts
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
        lease = await self._admitted(supervisor, method, lease, deadline_ns)
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
        self._watch_circuits(supervisor.server_id)

    def _watch_circuits(self, calling: str = "") -> None:
        """Have the monitor probe what has just opened; a call of the server ``calling`` is about to be noted."""
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
                self._flights.anomaly(server_id, "a circuit opened", after_next=server_id == calling)


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
