"""The way of one call: its attempts, what is tried beside them, and what stands in for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from random import getrandbits, random
from typing import Any, Final

from mcp_manager._core.call_path import CallPath
from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager._core.records import READY, Backend, Lease
from mcp_manager._core.router import Router
from mcp_manager.calls.admission import MAY_WAIT, ToolRates
from mcp_manager.calls.affinity import Affinity
from mcp_manager.calls.attempt import ANYWHERE, Attempts, Place
from mcp_manager.calls.call_log import CallLog
from mcp_manager.calls.fallback import Fallbacks, from_other, may_ask_another
from mcp_manager.calls.hedging import Hedges, first_result, is_hedged
from mcp_manager.calls.retrying import (
    concluded,
    give_up,
    is_executed_safely,
    may_be_repeated,
    next_backoff_s,
    pause_s,
    way_to_repeat,
)
from mcp_manager.config import FallbackConfig, ManagerConfig
from mcp_manager.errors import CallError, SessionLostError
from mcp_manager.health import HealthMonitor
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.methods import CALL_TOOL, KEPT_BY_SESSION
from mcp_manager.protocol.safety import tool_of
from mcp_manager.runtime.background import background_task, read_failure
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import ProgressReports
from mcp_manager.transports.base import Sendable
from mcp_manager.types import CallStatus, CircuitState, Outcome, Rejection

__all__ = ["Dispatcher"]

_DEFAULTS: Final = ManagerConfig()
_NO_FALLBACK: Final = FallbackConfig()


class Dispatcher(Attempts):
    """Carry calls to instances.

    Parameters
    ----------
    router
        Picks the instance and keeps the accounts: two crossings a call, ``pick`` and ``done``.
    monitor
        Told of failures and of circuits that open, so that recovery does not wait for traffic.
    clock
        Monotonic nanoseconds.
    flights
        Remembers what became of calls.
    affinity
        Chooses instances for calls with a key.
    servers
        Returns the supervisors of all deployed servers: one may answer for another.
    config
        The manager's settings: how many calls wait while all servers together are full, and for how long.
    """

    def __init__(
        self,
        router: Router,
        monitor: HealthMonitor,
        clock: Callable[[], int],
        flights: CallLog,
        affinity: Affinity,
        servers: Callable[[], Iterable[Supervisor]] = tuple,
        *,
        config: ManagerConfig = _DEFAULTS,
    ) -> None:
        super().__init__(router, monitor, clock, flights, affinity, config)
        path = CallPath(router, clock, getrandbits(64), flights.ring)
        self._begin = path.begin
        self._land = path.land
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
        progress: tuple[str, ProgressReports] | None = None,
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
        key
            Whose calls belong together; see :class:`mcp_manager.config.BalancingConfig`.
        progress
            A progress token that the params carry, and who listens to it, whichever attempt it comes from.

        Raises
        ------
        CallError
            No reply: the circuit is open, there is no instance, or the exchange failed.
        """
        if supervisor.has_tool_rates:
            self._check_tool(supervisor, method, request, started_ns)
        if key is not None:
            return await self._call_with_key(supervisor, method, request, started_ns, deadline_ns, progress, key)
        passes = progress is None and method not in KEPT_BY_SESSION
        flight = self._begin(supervisor.record, method, request if passes else None, started_ns, deadline_ns)
        lease: Lease | None = None
        future = flight.future
        try:
            if future is None:
                lease, _ = await self._admitted(supervisor, method, (flight.lease, None), deadline_ns, ANYWHERE)
                if progress is None and supervisor.config.hedge.enabled and is_hedged(method):
                    reply = await self._hedged(supervisor, method, lease, request, started_ns, deadline_ns)
                else:
                    reply = await self._carry(supervisor, method, lease, request, started_ns, deadline_ns, progress)
                if supervisor.settings.kept is not None:
                    self._fallbacks.keep(supervisor, method, request, reply)
                return reply
            answer: Any
            try:
                answer = await future
            except BaseException as error:
                flight.abandon()
                # It has the exception, whose traceback holds this frame.
                del future
                answer = error
            else:
                landed = self._land(flight, answer)
                if landed is not None:
                    return landed
            try:
                return await self._carry(
                    supervisor, method, flight.lease, request, started_ns, deadline_ns, None, flight, answer
                )
            finally:
                # An exception's traceback holds this frame.
                del answer
        except CallError as error:
            lease = lease or flight.lease
            return await self._recovered(supervisor, method, lease, request, started_ns, deadline_ns, progress, error)

    async def _call_with_key(
        self,
        supervisor: Supervisor,
        method: str,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressReports] | None,
        key: str,
    ) -> Message:
        lease: Lease | None = None
        place = Place(key=key)
        try:
            lease, pin = self._lease(supervisor, method, started_ns, place)
            lease, pin = await self._admitted(supervisor, method, (lease, pin), deadline_ns, place)
            return await self._carry(supervisor, method, lease, request, started_ns, deadline_ns, progress, pin=pin)
        except CallError as error:
            return await self._recovered(
                supervisor, method, lease, request, started_ns, deadline_ns, progress, error, place
            )

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
        place = ANYWHERE if instance is None else Place(instance.backend)
        reply, lease = await self._tried(supervisor, method, request, started_ns, deadline_ns, None, place)
        return reply, lease.payload

    async def _tried(
        self,
        supervisor: Supervisor,
        method: str,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressReports] | None,
        place: Place = ANYWHERE,
    ) -> tuple[Message, Lease]:
        """Make all attempts of a call, and return its reply and the lease that led to it."""
        if supervisor.has_tool_rates:
            self._check_tool(supervisor, method, request, started_ns)
        lease, pin = self._lease(supervisor, method, started_ns, place)
        try:
            lease, pin = await self._admitted(supervisor, method, (lease, pin), deadline_ns, place)
            reply = await self._carry(supervisor, method, lease, request, started_ns, deadline_ns, progress, pin=pin)
        except CallError as error:
            return await self._again(
                supervisor, method, lease, request, started_ns, deadline_ns, progress, error, place
            )
        return reply, lease

    async def _recovered(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease | None,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressReports] | None,
        error: CallError,
        place: Place = ANYWHERE,
    ) -> Message:
        """Return what comes of a call whose first attempt has failed: the reply of a later one, or what stands in for it."""
        settings = supervisor.settings
        try:
            reply, _ = await self._again(
                supervisor, method, lease, request, started_ns, deadline_ns, progress, error, place
            )
        except CallError as failure:
            # An exception's traceback holds this frame.
            del error
            if settings.config.fallback == _NO_FALLBACK or failure.delivery == "answered":
                raise
            is_safe = is_executed_safely(method, request, settings.config.retry, settings.hints)
            answer = await self._answered_elsewhere(
                supervisor, method, request, deadline_ns, progress, failure, is_safe=is_safe
            )
            if answer is not None:
                self.recoveries.count(supervisor.server_id, "server")
                return answer
            own = self._fallbacks.own(supervisor, method, request, is_safe=is_safe)
            if own is None:
                raise
            answer, kind = own
            self.recoveries.count(supervisor.server_id, kind)
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
        progress: tuple[str, ProgressReports] | None,
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
        self, supervisor: Supervisor, method: str, lease: Lease, request: Sendable, started_ns: int, deadline_ns: int
    ) -> Message:
        """Carry a call, and a second one on another instance if it takes long or fails; the first result is the reply."""
        settings = supervisor.settings
        is_safe = is_executed_safely(method, request, settings.config.retry, settings.hints)
        delay_s = self._hedges.delay_s(supervisor) if is_safe else None
        if delay_s is None:
            reply = await self._carry(supervisor, method, lease, request, started_ns, deadline_ns, None)
            if is_safe:
                self._hedges.took(supervisor.server_id, self._clock() - lease.started_ns)
            return reply
        first = background_task(self._carry(supervisor, method, lease, request, started_ns, deadline_ns, None), "call")
        first.add_done_callback(read_failure)
        tasks, leases = [first], [lease]
        try:
            await asyncio.wait(tasks, timeout=delay_s)
            failure = first.exception() if first.done() else None
            if not first.done() or (isinstance(failure, CallError) and may_be_repeated(failure, is_safe)):
                hedge = self._hedge_lease(supervisor, method, lease, deadline_ns)
                if hedge is not None:
                    self.recoveries.count(supervisor.server_id, "hedge")
                    leases.append(hedge)
                    carrying = self._carry(
                        supervisor, method, hedge, request, started_ns, deadline_ns, None, may_resend=False, hedged=True
                    )
                    tasks.append(background_task(carrying, "hedge"))
                    tasks[-1].add_done_callback(read_failure)
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
        if now_ns >= deadline_ns or not self._has_other(supervisor, lease.backend, now_ns):
            return None
        if not self._hedges.take(server_id, supervisor.config.hedge):
            return None
        if not self._router.withdraw(supervisor.record, now_ns):
            return None
        hedge = self._router.pick(server_id, method, now_ns, getrandbits(64), avoid=lease.backend, again=True)
        if hedge.rejection:
            return None
        if hedge.backend is lease.backend:
            self._router.done(hedge, Outcome.IGNORED, CallStatus.CANCELLED, now_ns)
            return None
        return hedge

    async def _again(
        self,
        supervisor: Supervisor,
        method: str,
        lease: Lease | None,
        request: Sendable,
        started_ns: int,
        deadline_ns: int,
        progress: tuple[str, ProgressReports] | None,
        error: CallError,
        place: Place = ANYWHERE,
    ) -> tuple[Message, Lease]:
        """Go on with a call whose first attempt has failed: return the reply of a later one, and its lease.

        Parameters
        ----------
        lease, error
            Those of the first attempt.
        place
            Where it may go.

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
                if not is_safe and not supervisor.is_over:
                    error.hint = error.hint or way_to_repeat(method, request, config)
                if not may_be_repeated(error, is_safe):
                    break
                backoff_s = next_backoff_s(backoff_s, config, random())
                if not await self._paused(supervisor, lease, deadline_ns, error, backoff_s, place):
                    break
                try:
                    again, pin = self._lease(
                        supervisor,
                        method,
                        self._clock(),
                        place,
                        lease.backend,
                        # What neither rate nor shedding has let through was not counted as let through.
                        again=lease.rejection not in (Rejection.RATE, Rejection.SHED),
                    )
                except KeyError:
                    # The server was removed meanwhile.
                    break
                except SessionLostError as lost:
                    error = lost
                    break
                may_resend = attempts + 1 < config.attempts
                try:
                    again, pin = await self._admitted(
                        supervisor, method, (again, pin), deadline_ns, place, lease.backend
                    )
                    self.recoveries.count(supervisor.server_id, "retry")
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
            if supervisor.is_over and error.retryable:
                give_up(error)
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
        place: Place,
    ) -> bool:
        """Wait before another attempt; tell whether there is to be one: if the budget has it, and time is left for it."""
        now_ns = self._clock()
        if supervisor.is_over or lease.rejection in MAY_WAIT:
            # There is nothing to wait for, or it has waited as long as it may.
            return False
        is_local = lease.rejection != 0
        has_other = not is_local and place.instance is None and self._has_other(supervisor, lease.backend, now_ns)
        is_on_trial = lease.rejection == CallStatus.CIRCUIT_OPEN and self._is_on_trial(supervisor, now_ns)
        wait_s = pause_s(
            error, supervisor.config.retry, backoff_s, is_local=is_local, has_other=has_other, is_on_trial=is_on_trial
        )
        if wait_s is None:
            return False
        left_s = (deadline_ns - now_ns) / 1e9 - wait_s
        if left_s <= 0 or left_s < self._latencies.median_s(supervisor.server_id):
            return False
        if not is_local and not self._router.withdraw(supervisor.record, now_ns):
            return False
        if wait_s:
            # The server's own: whoever removes it, or stops the manager, need not wait for it.
            pause = supervisor.spawn(asyncio.sleep(wait_s))
            try:
                await asyncio.wait({pause})
            finally:
                pause.cancel()
        return not supervisor.is_over

    def _has_other(self, supervisor: Supervisor, failed: Backend | None, now_ns: int) -> bool:
        """Tell whether an instance other than the one that failed would take a call at once."""
        for instance in supervisor.instances:
            backend = instance.backend
            if (
                backend is not None
                and backend is not failed
                and backend.availability == READY
                and backend.ejected_until_ns <= now_ns
                and backend.paused_until_ns <= now_ns
                and (backend.limit is None or backend.inflight < backend.limit)
                and self._router.breaker_state(backend, now_ns) == CircuitState.CLOSED
            ):
                return True
        return False

    def _is_on_trial(self, supervisor: Supervisor, now_ns: int) -> bool:
        """Tell whether trials are to show if the circuit of an instance closes."""
        return any(
            instance.backend is not None and self._router.is_on_trial(instance.backend, now_ns)
            for instance in supervisor.instances
        )

    def _check_tool(self, supervisor: Supervisor, method: str, request: Sendable, now_ns: int) -> None:
        """Hold the calls of a tool to its rate; raises :class:`OverloadedError`."""
        if method == CALL_TOOL:
            self._tool_rates.take(supervisor, method, tool_of(request.params), now_ns)

    def forget(self, server_id: str) -> None:
        """Forget a server that was removed."""
        self._tool_rates.forget(server_id)
        self.recoveries.forget(server_id)
