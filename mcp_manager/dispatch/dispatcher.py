"""The path of one call: a lease from the router, the exchange, and what its end says of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from random import getrandbits, random
from typing import Any, Final, NoReturn

from mcp_manager._core.call_path import CallPath, Flight
from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager._core.records import READY, Lease
from mcp_manager._core.records import Instance as RouterInstance
from mcp_manager._core.router import Router
from mcp_manager.config import FallbackConfig, ManagerConfig
from mcp_manager.dispatch.admission import MAY_WAIT, ToolRates, WaitingRoom, refusal
from mcp_manager.dispatch.fallback import Fallbacks, from_other, may_ask_another
from mcp_manager.dispatch.hedging import Hedges, first_result, is_hedged
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
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.methods import CALL_TOOL, KEPT_BY_SESSION
from mcp_manager.protocol.safety import tool_of
from mcp_manager.session import ProgressCallback, Session
from mcp_manager.supervisor import Supervisor
from mcp_manager.transports.base import Sendable
from mcp_manager.types import CallStatus, CircuitState, Outcome, Rejection

__all__ = ["Dispatcher"]

_DEFAULTS: Final = ManagerConfig()
_NO_FALLBACK: Final = FallbackConfig()


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
    config
        The manager's settings: how many calls wait while all servers together are full, and for how long.
    servers
        Returns the supervisors of all deployed servers: one may answer for another.
    """

    def __init__(
        self,
        router: Router,
        monitor: HealthMonitor,
        clock: Callable[[], int],
        servers: Callable[[], Iterable[Supervisor]] = tuple,
        *,
        config: ManagerConfig = _DEFAULTS,
    ) -> None:
        self._router = router
        path = CallPath(router, clock, getrandbits(64))
        self._begin = path.begin
        self._land = path.land
        self._monitor = monitor
        self._clock = clock
        self._latencies = Latencies(router, clock)
        self._config = config
        self._room = WaitingRoom(router, config, clock, self._latencies.median_s)
        self._tool_rates = ToolRates(router)
        self._hedges = Hedges(clock)
        self._fallbacks = Fallbacks(servers, clock)

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

        Raises
        ------
        CallError
            No reply: the circuit is open, there is no instance, or the exchange failed.
        """
        if supervisor.has_tool_rates:
            self._check_tool(supervisor, method, request, started_ns)
        passes = progress is None and method not in KEPT_BY_SESSION
        flight = self._begin(supervisor.record, method, request if passes else None, started_ns, deadline_ns)
        lease: Lease | None = None
        try:
            if flight.future is None:
                lease = await self._admitted(supervisor, method, flight.lease, deadline_ns)
                if progress is None and supervisor.config.hedge.enabled and is_hedged(method):
                    reply = await self._hedged(supervisor, method, lease, request, deadline_ns)
                else:
                    reply = await self._carry(supervisor, method, lease, request, deadline_ns, progress)
                if supervisor.settings.kept is not None:
                    self._fallbacks.keep(supervisor, method, request, reply)
                return reply
            answer: Any
            try:
                answer = await flight.future
            except BaseException as error:
                flight.abandon()
                answer = error
            else:
                landed = self._land(flight, answer)
                if landed is not None:
                    return landed
            try:
                return await self._carry(supervisor, method, flight.lease, request, deadline_ns, None, flight, answer)
            finally:
                # An exception's traceback holds this frame.
                del answer
        except CallError as error:
            lease = lease or flight.lease
            return await self._recovered(supervisor, method, lease, request, deadline_ns, progress, error)

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
        reply, lease = await self._tried(supervisor, method, request, started_ns, deadline_ns, None, pinned)
        return reply, lease.payload

    async def _tried(
        self,
        supervisor: Supervisor,
        method: str,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        pinned: RouterInstance | None = None,
    ) -> tuple[Message, Lease]:
        """Make all attempts of a call, and return its reply and the lease that led to it."""
        if supervisor.has_tool_rates:
            self._check_tool(supervisor, method, request, started_ns)
        lease = self._pick(supervisor, method, started_ns, pinned)
        try:
            lease = await self._admitted(supervisor, method, lease, deadline_ns, pinned)
            return await self._carry(supervisor, method, lease, request, deadline_ns, progress), lease
        except CallError as error:
            return await self._again(supervisor, method, lease, request, deadline_ns, progress, error, pinned)

    async def _recovered(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease,
        request: Sendable,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        error: CallError,
    ) -> Message:
        """Return what comes of a call whose first attempt has failed: the reply of a later one, or what stands in for it."""
        settings = supervisor.settings
        try:
            reply, _ = await self._again(supervisor, method, lease, request, deadline_ns, progress, error)
        except CallError as failure:
            if settings.config.fallback == _NO_FALLBACK or failure.delivery == "answered":
                raise
            is_safe = is_executed_safely(method, request, settings.config.retry, settings.hints)
            answer = await self._answered_elsewhere(
                supervisor, method, request, deadline_ns, progress, failure, is_safe=is_safe
            )
            answer = answer or self._fallbacks.own(supervisor, method, request, is_safe=is_safe)
            if answer is None:
                raise
            return answer
        if settings.kept is not None:
            self._fallbacks.keep(supervisor, method, request, reply)
        return reply

    async def _answered_elsewhere(
        self,
        supervisor: Supervisor,
        method: str,
        request: Sendable,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        failure: CallError,
        *,
        is_safe: bool,
    ) -> Message | None:
        """Ask the servers that may answer for one, each once and none for another; ``None`` if no answer came of it.

        The failure that is raised then is the first one, of a delivery that holds for all of them.
        """
        for other in self._fallbacks.others(supervisor, method):
            now_ns = self._clock()
            if now_ns >= deadline_ns or not may_ask_another(failure, is_safe):
                break
            try:
                reply, _ = await self._tried(other, method, request, now_ns, deadline_ns, progress)
            except (CallError, KeyError) as error:
                # A KeyError: it has been removed this moment.
                if isinstance(error, CallError):
                    failure.attempts += error.attempts
                    if error.delivery not in ("not_sent", "rejected"):
                        failure.delivery = "unknown"
            else:
                if reply.kind == RESULT:
                    return from_other(reply, other)
                if reply.error_code not in (METHOD_NOT_FOUND, INVALID_PARAMS):
                    failure.delivery = "unknown"
        return None

    async def _hedged(
        self, supervisor: Supervisor, method: str, lease: Lease, request: Sendable, deadline_ns: int
    ) -> Message:
        """Carry a call, and a second one on another instance if it takes long or fails; the first result is the reply."""
        settings = supervisor.settings
        is_safe = is_executed_safely(method, request, settings.config.retry, settings.hints)
        delay_s = self._hedges.delay_s(supervisor) if is_safe else None
        if delay_s is None:
            reply = await self._carry(supervisor, method, lease, request, deadline_ns, None)
            if is_safe:
                self._hedges.took(supervisor.server_id, self._clock() - lease.started_ns)
            return reply
        loop = asyncio.get_running_loop()
        first = loop.create_task(self._carry(supervisor, method, lease, request, deadline_ns, None))
        tasks, leases = [first], [lease]
        try:
            await asyncio.wait(tasks, timeout=delay_s)
            failure = first.exception() if first.done() else None
            if not first.done() or (isinstance(failure, CallError) and may_be_repeated(failure, is_safe)):
                hedge = self._hedge_lease(supervisor, method, lease, deadline_ns)
                if hedge is not None:
                    leases.append(hedge)
                    carrying = self._carry(supervisor, method, hedge, request, deadline_ns, None, may_resend=False)
                    tasks.append(loop.create_task(carrying))
            reply = await first_result(tasks)
            self._hedges.took(supervisor.server_id, self._clock() - lease.started_ns)
            return reply
        finally:
            # Whoever lost, or all of them if it is the caller who gives up.
            pending = [task for task in tasks if not task.done()]
            for task in pending:
                task.cancel()
            try:
                if pending:
                    await asyncio.wait(pending)
            finally:
                # One that was cancelled before it began has not given its lease back; a second time does nothing.
                for each in leases:
                    self._router.done(each, Outcome.IGNORED, CallStatus.CANCELLED, self._clock())

    def _hedge_lease(self, supervisor: Supervisor, method: str, lease: Lease, deadline_ns: int) -> Lease | None:
        """Return a lease of an instance other than that of the first, ``None`` if none, or no budget, is left for it."""
        now_ns = self._clock()
        server_id = supervisor.server_id
        if now_ns >= deadline_ns or not self._has_other(supervisor, lease.instance, now_ns):
            return None
        if not self._hedges.take(server_id, supervisor.config.hedge):
            return None
        if not self._router.withdraw(supervisor.record, now_ns):
            return None
        hedge = self._router.pick(server_id, method, now_ns, getrandbits(64), avoid=lease.instance, again=True)
        if hedge.rejection:
            return None
        if hedge.instance is lease.instance:
            self._router.done(hedge, Outcome.IGNORED, CallStatus.CANCELLED, now_ns)
            return None
        return hedge

    async def _again(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease,
        request: Sendable,
        deadline_ns: int,
        progress: tuple[str, ProgressCallback] | None,
        error: CallError,
        pinned: RouterInstance | None = None,
    ) -> tuple[Message, Lease]:
        """Go on with a call whose first attempt has failed: return the reply of a later one, and its lease.

        Parameters
        ----------
        lease, error
            Those of the first attempt.
        pinned
            The only instance that will do.

        Raises
        ------
        CallError
            That of the last attempt: it is not to be made again, or not in time.
        """
        config = supervisor.config.retry
        attempts, backoff_s = error.attempts, config.backoff_s
        may_have_run = error.delivery == "unknown"
        try:
            while attempts < config.attempts and error.retryable:
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
                    again = self._pick(
                        supervisor,
                        method,
                        self._clock(),
                        pinned,
                        lease.instance,
                        # What neither rate nor shedding has let through was not counted as let through.
                        again=lease.rejection not in (Rejection.RATE, Rejection.SHED),
                    )
                except KeyError:
                    # The server was removed meanwhile.
                    break
                may_resend = attempts + 1 < config.attempts
                try:
                    again = await self._admitted(supervisor, method, again, deadline_ns, pinned, lease.instance)
                    reply = await self._carry(
                        supervisor, method, again, request, deadline_ns, progress, may_resend=may_resend
                    )
                    return reply, again
                except CallError as failure:
                    if again.rejection and not lease.rejection:
                        # Why the call failed says more than why it is not made once more.
                        break
                    lease, error = again, failure
                attempts += error.attempts
                may_have_run = may_have_run or error.delivery == "unknown"
            raise concluded(error, attempts, may_have_run=may_have_run)
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
        if lease.rejection in MAY_WAIT:
            # It has waited as long as it may.
            return False
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
        *,
        waited: bool = False,
        again: bool = False,
    ) -> Lease:
        if pinned is not None:
            return self._router.pick_on(pinned, method, now_ns, waited=waited)
        return self._router.pick(
            supervisor.server_id, method, now_ns, getrandbits(64), avoid=avoid, waited=waited, again=again
        )

    async def _admitted(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease,
        deadline_ns: int,
        pinned: RouterInstance | None = None,
        avoid: RouterInstance | None = None,
    ) -> Lease:
        """Return a lease that is no rejection: this one, or that of whoever waits until there is one.

        ``pinned`` and ``avoid`` are those that this one was asked for with.

        Raises
        ------
        CallError
            The call is refused before it is sent.
        """
        if lease.rejection in MAY_WAIT:

            def attempt(now_ns: int) -> Lease:
                return self._pick(supervisor, method, now_ns, pinned, avoid, waited=True)

            lease = await self._room.turn(supervisor, lease, attempt, deadline_ns)
        if lease.rejection:
            self._reject(supervisor, lease)
        return lease

    def _check_tool(self, supervisor: Supervisor, method: str, request: Sendable, now_ns: int) -> None:
        """Hold the calls of a tool to its rate; raises :class:`OverloadedError`."""
        if method == CALL_TOOL:
            self._tool_rates.take(supervisor, method, tool_of(request.params), now_ns)

    def forget(self, server_id: str) -> None:
        """Forget a server that was removed."""
        self._tool_rates.forget(server_id)

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
        *,
        may_resend: bool = True,
    ) -> Message:
        """Take a call the way that leads everywhere: past a session that is not ready, or on from an unusual answer.

        With ``may_resend``, one that a session has lost is sent once more on the next, and that is an attempt as well.
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
                    reply = await session.call(request, deadline_ns, progress)
            except SessionLostError as lost:
                assert session is not None
                if not may_resend:
                    instance.lose(session, lost)
                    raise
                attempts = 2
                reply = await instance.call_again(session, lost, request, deadline_ns, progress)
        except BaseException as error:
            if attempts > 1 and isinstance(error, CallError):
                error.attempts = attempts
            self._failed(supervisor, lease, error)
            raise
        if reply.kind == RESULT:
            self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, self._clock())
        else:
            outcome = classify_rpc_error(reply.error_code)
            self._router.done(lease, outcome, CallStatus.RPC_ERROR, self._clock(), random=getrandbits(64))
            if outcome is Outcome.FAILURE:
                self._watch_circuits(supervisor)
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
        self._watch_circuits(supervisor)

    def _watch_circuits(self, supervisor: Supervisor) -> None:
        """Tell the monitor of a failure, and have it probe what has just opened."""
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
