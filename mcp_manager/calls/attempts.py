"""One attempt of a call: its lease, its exchange, and what its outcome means for the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import getrandbits
from typing import Any, Final, NamedTuple, NoReturn

from mcp_manager._core.call_path import LATE_AFTER_NS, DirectCall
from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager._core.tool_calls import says_tool_error
from mcp_manager.calls.admission import MAY_WAIT, WaitingRoom, refusal, stopping
from mcp_manager.calls.affinity import Affinity, Leased, state_lost
from mcp_manager.calls.call import FIRST, Call, Choice
from mcp_manager.calls.call_log import CallLog
from mcp_manager.calls.error_counts import CallErrors
from mcp_manager.calls.latencies import Latencies
from mcp_manager.calls.queue_waits import QueueWaits
from mcp_manager.config import ManagerConfig
from mcp_manager.errors import (
    AuthError,
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    Delivery,
    OverloadedError,
    ProtocolError,
    SessionLostError,
)
from mcp_manager.health import HealthMonitor
from mcp_manager.outcomes import classify_error, classify_rpc_error
from mcp_manager.protocol.methods import CALL_TOOL
from mcp_manager.protocol.request import encode_method
from mcp_manager.protocol.safety import tool_of
from mcp_manager.runtime.current_trace import note_event
from mcp_manager.runtime.loop_lag import LATE_HINT
from mcp_manager.servers.caller_sessions import CallerSessions, Checkout
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import Session
from mcp_manager.transports.base import put_off
from mcp_manager.types import CallStatus, CircuitState, Outcome, Rejection

__all__ = ["Attempts", "Landing"]


class Landing(NamedTuple):
    """The answer to a call that the compiled path sent and Python must finish: an unusual reply, or an exception."""

    direct: DirectCall
    answer: Any


# Tolerance when a restart time of the loop's clock is compared with one of the router's.
_SAME_S: Final = 0.01
# Statuses that refuse the credentials, or limit the requests, of one caller.
_OF_THE_CALLER: Final = frozenset({401, 403, 429})


class Attempts:
    """Make single attempts of calls.

    Parameters
    ----------
    router
        Picks backends and keeps their counters.
    monitor
        Notified of failures and of circuits that open.
    clock
        Returns monotonic nanoseconds.
    log
        Records how calls ended.
    affinity
        Chooses instances for calls with a key.
    config
        The manager's settings; ``max_concurrent``, ``max_waiting`` and ``max_wait_s`` are used.
    """

    def __init__(
        self,
        router: Router,
        monitor: HealthMonitor,
        clock: Callable[[], int],
        log: CallLog,
        affinity: Affinity,
        config: ManagerConfig,
    ) -> None:
        self._router = router
        self._monitor = monitor
        self._clock = clock
        self._log = log
        self._affinity = affinity
        self._config = config
        self.errors: CallErrors = CallErrors()
        self.latencies: Latencies = Latencies(router, clock)
        self._callers: dict[str, CallerSessions] = {}
        self._room = WaitingRoom(router, config, clock, self.latencies.median_s)
        self.waits: QueueWaits = self._room.waits

    async def notify(self, call: Call) -> None:
        """Send a notification to one of a server's instances.

        Raises
        ------
        CallError
            It could not be sent; ``delivery`` says whether the server may have received it.
        """
        lease = (await self.admitted(call, self.lease(call, call.started_ns))).lease
        instance: Instance = lease.payload
        checkout: Checkout | None = None
        try:
            checkout = self._check_out(call, lease)
            if checkout is not None:
                instance = checkout.instance
            await instance.notify(encode_method(call.method), call.request.params, call.deadline_ns)
        except BaseException as error:
            error = instance.template.containment.failure(error, "unknown")
            self._failed(call, lease, error)
            raise error
        finally:
            if checkout is not None:
                checkout.release()
        self._router.done(lease, Outcome.SUCCESS, CallStatus.SUCCESS, self._clock())

    def lease(self, call: Call, now_ns: int, choice: Choice = FIRST) -> Leased:
        """Ask the router for a backend at ``now_ns``; the lease may be a rejection, which says why there is none.

        Raises
        ------
        SessionLostError
            The affinity of the call's key is ``hard``, and its session is gone.
        InvalidRequestError
            The call's key is not a string.
        KeyError
            The server was removed.
        """
        if call.where.key is not None:
            leased = self._affinity.lease(call, now_ns, getrandbits(64), choice)
        elif call.where.backend is not None:
            leased = Leased(self._router.pick_on(call.where.backend, call.method, now_ns, waited=choice.waited))
        else:
            avoid, waited, again = choice
            leased = Leased(
                self._router.pick(
                    call.server_id, call.method, now_ns, getrandbits(64), avoid=avoid, waited=waited, again=again
                )
            )
        self.name_tool(call, leased.lease)
        return leased

    def name_tool(self, call: Call, lease: Lease) -> None:
        """Have a lease counted under the tool that its call names, if tools are counted and it names one."""
        if call.method == CALL_TOOL and self._router.tools is not None:
            self._router.name_tool(lease, tool_of(call.request.params))

    async def admitted(self, call: Call, leased: Leased, choice: Choice = FIRST) -> Leased:
        """Return a granted lease: the given one, or the one that the call gets after waiting in a queue.

        Parameters
        ----------
        call
            The call.
        leased
            What :meth:`lease` returned for it.
        choice
            What :meth:`lease` was called with.

        Raises
        ------
        CallError
            The call is refused; nothing was sent.
        """
        if leased.lease.rejection in MAY_WAIT:

            def try_again(now_ns: int) -> Lease:
                nonlocal leased
                leased = self.lease(call, now_ns, Choice(choice.avoid, waited=True))
                return leased.lease

            lease = await self._room.turn(call.supervisor, leased.lease, try_again, call.deadline_ns)
            leased = Leased(lease, leased.pin)
        if leased.lease.rejection == Rejection.CIRCUIT_OPEN and _released(call.supervisor):
            leased = self.lease(call, self._clock(), Choice(choice.avoid, again=True))
        if leased.lease.rejection:
            self._reject(call, leased.lease)
        return leased

    async def carry(self, call: Call, leased: Leased, landing: Landing | None = None) -> Message:
        """Make one attempt, or finish the one that the compiled path has begun, and return the reply.

        It waits for a session if there is none yet. If the session turns out to be lost and ``call.may_resend`` is
        true, the request is sent once more on the next session; that counts as an attempt. In every case the lease is
        given back.

        Parameters
        ----------
        call
            The call.
        leased
            Its granted lease.
        landing
            What the compiled path received, ``None`` if nothing was sent yet.

        Raises
        ------
        CallError
            There is no reply, or it came after the deadline.
        """
        lease, pin = leased.lease, leased.pin
        call.tries = 1
        instance: Instance = lease.payload
        session: Session | None = instance.session if landing is None else landing.direct.session
        checkout: Checkout | None = None
        try:
            checkout = self._check_out(call, lease)
            if checkout is not None:
                instance = checkout.instance
                session = instance.session if landing is None else session
            exchange = None if landing is None or session is None else landing.direct.exchange
            session = session or await instance.ready_session(call.deadline_ns)
            try:
                if exchange is not None and landing is not None:
                    reply = await session.landed(call.request, exchange, landing.answer)
                else:
                    if pin is not None and not pin.is_used:
                        pin.settle(instance, session)
                    reply = await session.call(call.request, call.deadline_ns, call.listener)
            except SessionLostError as lost:
                reply = await self._resent(call, leased, instance, session, lost)
            now_ns = self._clock()
            if 0 < call.deadline_ns < now_ns - LATE_AFTER_NS:
                late_ns = now_ns - put_off(call.listener, call.deadline_ns)
                if late_ns > LATE_AFTER_NS:
                    raise _late(call.server_id, late_ns)
        except BaseException as error:
            # An exception's traceback holds this frame.
            del landing
            if not isinstance(error, CallError):
                delivery: Delivery = "unknown" if session is not None else "not_sent"
                error = instance.template.containment.failure(error, delivery)
            if checkout is not None and isinstance(error, CallError):
                instance.template.secrets.hide_in(error)
            self._count_failure(call, leased, error)
            raise error
        finally:
            if checkout is not None:
                checkout.release()
        self._count_reply(call, leased, reply, now_ns)
        return reply

    def _check_out(self, call: Call, lease: Lease) -> Checkout | None:
        """Check out the session of a call's caller; ``None`` if the session of the instance is used."""
        if call.caller is None:
            return None
        if call.checkout is not None and call.checkout.routed is lease.payload:
            return call.checkout.again()
        return self.callers_of(call.server_id).check_out(lease.payload, call.caller)

    def callers_of(self, server_id: str) -> CallerSessions:
        """Return the sessions of a server's callers."""
        callers = self._callers.get(server_id)
        if callers is None:
            callers = self._callers[server_id] = CallerSessions()
        return callers

    def forget(self, server_id: str) -> None:
        """Forget the callers of a server that was removed."""
        callers = self._callers.pop(server_id, None)
        if callers is not None:
            callers.close()

    def close(self) -> None:
        """Stop looking for idle sessions of callers."""
        for callers in self._callers.values():
            callers.close()

    async def _resent(
        self, call: Call, leased: Leased, instance: Instance, session: Session, lost: SessionLostError
    ) -> Message:
        """Send the request once more, on the session that replaces the lost one."""
        pin = leased.pin
        try:
            if pin is not None and pin.is_binding:
                pin.release()
                instance.lose(session, lost)
                raise state_lost(call.server_id, "rejected") from lost
            if not call.may_resend:
                instance.lose(session, lost)
                raise lost
            call.tries = 2
            call.supervisor.count_recovery("retry")
            note_event("resend", lost)
            reply = await instance.call_again(session, lost, call.request, call.deadline_ns, call.listener)
        finally:
            # An exception's traceback holds this frame.
            del lost
        if pin is not None and instance.session is not None:
            pin.settle(instance, instance.session)
        return reply

    def _count_failure(self, call: Call, leased: Leased, error: BaseException) -> None:
        lease, pin = leased.lease, leased.pin
        if pin is not None and not isinstance(error, SessionLostError):
            pin.is_used = True
        if call.tries > 1 and isinstance(error, CallError):
            error.attempts = call.tries
        self._failed(call, lease, error)
        if not isinstance(error, CallError):
            # A CallError is recorded by the code that decides about retries.
            self._log.note(call, lease, call.attempts + call.tries, error=error)

    def _count_reply(self, call: Call, leased: Leased, reply: Message, now_ns: int) -> None:
        lease, pin = leased.lease, leased.pin
        if pin is not None:
            pin.is_used = True
        attempts = call.attempts + call.tries
        instance: Instance = lease.payload
        if reply.kind == RESULT:
            has_failed = call.method == CALL_TOOL and says_tool_error(reply)
            status = CallStatus.TOOL_ERROR if has_failed else CallStatus.SUCCESS
            self._router.done(lease, Outcome.SUCCESS, status, now_ns)
            if attempts == 1 and not call.is_hedge and lease.started_ns == call.started_ns:
                self._log.ordinary(lease, call.method, instance.label, status)
            else:
                self._log.note(call, lease, attempts, status)
            return
        outcome = classify_rpc_error(reply.error_code, instance.template.config.breaker.rpc_errors)
        self._router.done(lease, outcome, CallStatus.RPC_ERROR, now_ns, random=getrandbits(64))
        self._log.note(call, lease, attempts, CallStatus.RPC_ERROR)
        if outcome is Outcome.FAILURE:
            self._watch_circuits(call.supervisor)
        else:
            self._monitor.call_failed(call.supervisor)

    def _reject(self, call: Call, lease: Lease) -> NoReturn:
        supervisor = call.supervisor
        server_id = supervisor.server_id
        if supervisor.is_over:
            raise stopping(server_id)
        if lease.rejection == Rejection.CIRCUIT_OPEN:
            raise _circuit_open(call, lease)
        if lease.rejection >= Rejection.CONCURRENCY:
            self._router.count_refused(lease)
            raise refusal(supervisor, lease, self._config)
        if supervisor.in_maintenance:
            raise OverloadedError(
                "the server is in maintenance",
                server_id=server_id,
                delivery="not_sent",
                hint="set_maintenance(server_id, False) ends it",
            )
        raise OverloadedError(
            "the server has no instance",
            server_id=server_id,
            delivery="not_sent",
            hint="no address found: check its DNS name" if supervisor.desired else "it is suspended: scale it up",
        )

    def _failed(self, call: Call, lease: Lease, error: BaseException) -> None:
        supervisor, is_callers = call.supervisor, call.caller is not None
        if isinstance(error, CallError):
            supervisor.template.secrets.hide_in(error)
        if isinstance(error, ProtocolError):
            supervisor.template.knowledge.faults.count_error(error)
        now_ns = self._clock()
        outcome, status = classify_error(
            error, (now_ns - lease.started_ns) / 1e9, supervisor.config.breaker.timeout_floor_s
        )
        if isinstance(error, SessionLostError) and error.attempts == 1:
            # One lost session says nothing about the server; losing the next one at once does.
            outcome = Outcome.IGNORED
        if lease.trial and status is CallStatus.OVERLOADED:
            # A closed circuit ignores an overload; a half-open one counts it as a failed trial request.
            outcome = Outcome.FAILURE
        retry_after_s = getattr(error, "retry_after_s", None) or 0.0
        if is_callers and getattr(error, "http_status", None) in _OF_THE_CALLER:
            # It is about this caller: the server is as it was, also for the others.
            outcome, retry_after_s = Outcome.IGNORED, 0.0
            if isinstance(error, AuthError) and call.caller is not None and call.caller.carries_credentials:
                error.hint = "check the headers and auth of the caller"
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
        """Report a failed call to the monitor, and have it probe the instances whose circuit has just opened.

        ``is_noted`` tells whether the failed call is about to be recorded; then the log writes its latest records only
        after that one.
        """
        self._monitor.call_failed(supervisor)
        now_ns = self._clock()
        for event in self._router.take_events():
            instance: Instance = event.backend.payload
            if instance.backend is not event.backend or event.to_state != CircuitState.OPEN:
                continue
            circuit = self._router.backend_reading(event.backend, now_ns)
            # The event may be stale: a failed probe opens a circuit too, and its event stays in the queue until now.
            if circuit.circuit_state == CircuitState.OPEN:
                self._monitor.circuit_opened(instance, circuit.retry_after_ns / 1e9)
                server_id = event.backend.server_id
                self._log.anomaly(
                    server_id, "a circuit opened", after_next=is_noted and server_id == supervisor.server_id
                )


def _late(server_id: str, by_ns: int) -> CallError:
    """Make the error for a reply that was read after the deadline, which only a late event loop allows."""
    error = DeadlineExceededError(
        f"the reply came {by_ns / 1e9:.2f} s after the deadline",
        server_id=server_id,
        delivery="answered",
        retryable=False,
        hint=LATE_HINT,
    )
    error.is_local = True
    return error


def _released(supervisor: Supervisor) -> bool:
    """Admit calls to those child processes of a server whose restart is due; tell whether there are any."""
    return any([supervisor.release(each) for each in supervisor.instances])


def _circuit_open(call: Call, lease: Lease) -> CircuitOpenError:
    """Make the error for a call that no circuit admits: it quotes how the process ended if that is the cause."""
    supervisor, server_id = call.supervisor, call.server_id
    retry_after_s = lease.retry_after_ns / 1e9 or None
    gone = [
        each
        for each in supervisor.instances
        if each.session is None and each.restart_at and call.where.backend in (None, each.backend)
    ]
    first = min(gone, key=lambda each: each.restart_at, default=None)
    restart_s = 0.0 if first is None else first.restart_at - asyncio.get_running_loop().time()
    if first is None or retry_after_s is None or restart_s > retry_after_s + _SAME_S:
        told = "flight_records() tells what failed, the settings of breaker say when a circuit opens"
        return CircuitOpenError(
            "the circuit is open after repeated failures",
            server_id=server_id,
            retry_after_s=retry_after_s,
            hint="" if retry_after_s is None else f"retry in {retry_after_s:.1f} s; {told}",
        )
    exited = first.last_error
    what = "the server process has ended" if exited is None else exited.message
    return CircuitOpenError(
        f"{what}; it is started again in {retry_after_s:.1f} s",
        server_id=server_id,
        retry_after_s=retry_after_s,
        hint="" if exited is None else exited.hint,
    )
