"""The call path in Python: it runs a call from its first attempt to a reply, a fallback or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import getrandbits
from typing import Any, Final

from mcp_manager._core.call_path import CallPath, DirectCall
from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager.auth.caller import Caller
from mcp_manager.calls.admission import ToolRates
from mcp_manager.calls.affinity import Affinity, Leased
from mcp_manager.calls.attempts import Attempts, Landing
from mcp_manager.calls.call import ANYWHERE, Call
from mcp_manager.calls.call_log import CallLog
from mcp_manager.calls.error_counts import CallErrors
from mcp_manager.calls.fallback import Fallbacks
from mcp_manager.calls.hedging import HedgedCalls, is_hedged
from mcp_manager.calls.queue_waits import QueueWaits
from mcp_manager.calls.retry_loop import Retries
from mcp_manager.calls.tool_access import ToolAccess
from mcp_manager.config import ManagerConfig
from mcp_manager.errors import CallError
from mcp_manager.health import HealthMonitor
from mcp_manager.protocol.methods import KEPT_BY_SESSION, LIST_TOOLS
from mcp_manager.servers.caller_sessions import CallerSessions, Checkout
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import Session
from mcp_manager.transports.base import Sendable

__all__ = ["Dispatcher"]

_DEFAULTS: Final = ManagerConfig()


class Dispatcher:
    """Run calls: choose an instance, make the attempts, and apply retries, hedges and fallbacks.

    Parameters
    ----------
    router
        Picks backends and keeps the counters; each attempt calls its ``pick`` and ``done`` once.
    monitor
        Notified of failures and of circuits that open, so that recovery does not wait for traffic.
    clock
        Returns monotonic nanoseconds.
    log
        Records how calls ended.
    affinity
        Chooses instances for calls with a key.
    servers
        Returns the supervisors of all deployed servers, the candidates for fallbacks.
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
        servers: Callable[[], Iterable[Supervisor]] = tuple,
        *,
        config: ManagerConfig = _DEFAULTS,
    ) -> None:
        self.path: CallPath = CallPath(router, clock, getrandbits(64), log.ring)
        self._begin = self.path.begin
        self._land = self.path.land
        self._tool_rates = ToolRates(router)
        self._access = ToolAccess()
        self._attempts = Attempts(router, monitor, clock, log, affinity, config)
        self._retries = Retries(self._attempts, router, clock, log)
        self._hedged = HedgedCalls(self._attempts, router, clock)
        self._fallbacks = Fallbacks(servers, self._ask_other, clock)

    @property
    def errors(self) -> CallErrors:
        """The counts of failed calls by server."""
        return self._attempts.errors

    @property
    def waits(self) -> QueueWaits:
        """How long calls waited for a limit, by server."""
        return self._attempts.waits

    async def call(
        self, supervisor: Supervisor, method: str, request: Sendable, started_ns: int, deadline_ns: int
    ) -> Message:
        """Send a request to one of a server's instances and return its reply.

        Most calls take this path: the compiled core does all of their work in two calls, ``begin`` and ``land``.

        Parameters
        ----------
        supervisor
            The server.
        method
            The name of the method; the call is counted under it.
        request
            The encoded request.
        started_ns, deadline_ns
            When the call began, and when all of its attempts must have ended, in nanoseconds of the clock.

        Raises
        ------
        CallError
            There is no reply and no fallback: the circuit is open, a limit is reached, there is no instance, or the
            exchange failed.
        """
        if supervisor.tool_checks is not None:
            if method == LIST_TOOLS:
                return await self._make_list(Call(supervisor, method, request, started_ns, deadline_ns))
            self._check_first(supervisor, method, request, started_ns)
        may_go_direct = method not in KEPT_BY_SESSION
        direct = self._begin(supervisor.record, method, request if may_go_direct else None, started_ns, deadline_ns)
        future = direct.future
        if future is None:
            call = Call(supervisor, method, request, started_ns, deadline_ns)
            return await self._make_unsent(call, Leased(direct.lease))
        answer: Any
        try:
            answer = await future
        except BaseException as error:
            direct.abandon()
            # The future holds the exception, whose traceback holds this frame.
            del future
            answer = error
        else:
            reply = self._land(direct, answer)
            if reply is not None:
                return reply
        call = Call(supervisor, method, request, started_ns, deadline_ns)
        finishing = self._finish(call, Landing(direct, answer))
        # An exception's traceback holds this frame.
        del answer
        return await finishing

    def begin(self, call: Call) -> DirectCall | None:
        """Lease an instance for a call with a listener, and send the request if a connection is idle.

        Returns
        -------
        For :meth:`exchange`, which must be called next unless :meth:`land` takes the answer; ``None`` if nothing was
        done, because the call needs more than the compiled path can do.
        """
        supervisor, listener = call.supervisor, call.listener
        if supervisor.tool_checks is not None or call.method in KEPT_BY_SESSION or listener is None:
            return None
        if call.caller is None:
            if call.where is not ANYWHERE:
                return None
            direct = self._begin(supervisor.record, call.method, call.request, call.started_ns, call.deadline_ns)
        else:
            checkout = self.check_out(supervisor, call.caller)
            if checkout is None:
                return None
            call.checkout = checkout
            session = checkout.instance.session
            direct = self._begin(
                supervisor.record,
                call.method,
                call.request,
                call.started_ns,
                call.deadline_ns,
                channel=None if session is None else session.channel,
                backend=checkout.routed.backend,
            )
        if direct.exchange is not None:
            # Nothing can have arrived yet.
            direct.exchange.listener = listener
        return direct

    def check_out(self, supervisor: Supervisor, caller: Caller) -> Checkout | None:
        """Begin a call on the session of a caller, where it is plain which one that is, and it is open; else ``None``."""
        instances = supervisor.instances
        if len(instances) != 1 or supervisor.config.balancing.affinity != "none":
            return None
        return self._attempts.callers_of(supervisor.server_id).check_out_open(instances[0], caller)

    def land(self, direct: DirectCall, answer: Any) -> Message | None:
        """Finish a call that :meth:`begin` has sent, and return its reply; ``None`` if :meth:`exchange` must do that."""
        return self._land(direct, answer)

    async def exchange(self, call: Call, direct: DirectCall | None = None) -> Message:
        """Make a call whose listener takes what the server sends before its reply; raises as :meth:`call`.

        Parameters
        ----------
        call
            The call.
        direct
            What :meth:`begin` returned for it, if that was called.
        """
        listener = call.listener
        if direct is None and call.caller is None:
            direct = self.begin(call)
        if direct is None or listener is None:
            return await self._make_checked(call)
        if direct.exchange is None or direct.future is None:
            return await self._make_unsent(call, Leased(direct.lease))
        if listener.token is not None:
            session: Session = direct.session
            return await session.progress.during(self._answered(call, direct), listener.token, listener)
        # The same steps as in _answered(), in line: one coroutine less.
        answer: Any
        try:
            answer = await direct.future
        except BaseException as error:
            direct.abandon()
            answer = error
        else:
            reply = self._land(direct, answer)
            if reply is not None:
                return reply
        finishing = self._finish(call, Landing(direct, answer))
        # An exception's traceback holds this frame.
        del answer
        return await finishing

    async def _answered(self, call: Call, direct: DirectCall) -> Message:
        """Await the answer to a call that the compiled path has sent, and finish the call."""
        answer: Any
        assert direct.future is not None
        try:
            answer = await direct.future
        except BaseException as error:
            direct.abandon()
            answer = error
        else:
            reply = self._land(direct, answer)
            if reply is not None:
                return reply
        finishing = self._finish(call, Landing(direct, answer))
        # An exception's traceback holds this frame.
        del answer
        return await finishing

    async def make(self, call: Call) -> Message:
        """Make a call that is never sent by the compiled path: with a key, with progress, or repeated after a URL visit.

        Otherwise the same as :meth:`call`.
        """
        return await self._make_checked(call)

    async def _make_checked(self, call: Call) -> Message:
        """Make a call in Python alone, with the rules of its server's tools applied to request and reply."""
        if call.supervisor.tool_checks is not None:
            self._check_tool(call.supervisor, call.method, call.request, call.started_ns)
        if call.where.key is None:
            direct = self._begin(call.supervisor.record, call.method, None, call.started_ns, call.deadline_ns)
            self._attempts.name_tool(call, direct.lease)
            leased = Leased(direct.lease)
        else:
            try:
                leased = self._attempts.lease(call, call.started_ns)
            except CallError as error:
                return await self._recover(call, None, error)
        reply = await self._make_leased(call, leased)
        if call.supervisor.tool_checks is not None:
            reply = await self._access.permitted(call, reply)
        return reply

    async def call_on(self, call: Call) -> tuple[Message, Instance]:
        """Make a call without hedges and fallbacks; return its reply and the instance that sent it.

        Raises
        ------
        CallError
            There is no reply.
        """
        reply, lease = await self._make_all_attempts(call)
        if call.supervisor.tool_checks is not None:
            reply = await self._access.permitted(call, reply)
        return reply, lease.payload

    async def notify(self, call: Call) -> None:
        """Send a notification to one of a server's instances; raises :class:`CallError` if it could not be sent."""
        if call.supervisor.tool_checks is not None:
            self._access.check(call.supervisor, call.method, call.request.params)
        await self._attempts.notify(call)

    async def _finish(self, call: Call, landing: Landing) -> Message:
        """Finish a call that the compiled path has sent and cannot finish itself."""
        lease = landing.direct.lease
        carrying = self._attempts.carry(call, Leased(lease), landing)
        # An exception's traceback may hold this frame.
        del landing
        try:
            return await carrying
        except CallError as error:
            return await self._recover(call, lease, error)

    async def _make_leased(self, call: Call, leased: Leased) -> Message:
        """Finish a call whose request was not sent yet: wait for a slot, make the attempts, recover from a failure."""
        may_hedge = call.listener is None and call.where.key is None and call.supervisor.config.hedge.enabled
        try:
            leased = await self._attempts.admitted(call, leased)
            if may_hedge and is_hedged(call.method):
                reply = await self._hedged.carry(call, leased)
            else:
                reply = await self._attempts.carry(call, leased)
        except CallError as error:
            return await self._recover(call, leased.lease, error)
        self._fallbacks.keep(call, reply)
        return reply

    # call() goes on by these names, and nothing else uses them: a dispatcher that traces begins its spans there.
    _make_list = _make_checked
    _make_unsent = _make_leased

    async def _recover(self, call: Call, lease: Lease | None, error: CallError) -> Message:
        """Recover a call whose first attempt has failed: return the reply of a retry, or else a fallback."""
        try:
            reply, _ = await self._retries.retry(call, lease, error)
        except CallError as failure:
            # An exception's traceback holds this frame.
            del error
            found = await self._fallbacks.answer(call, failure)
            if found is None:
                raise
            answer, kind = found
            call.supervisor.count_recovery(kind)
            return answer
        self._fallbacks.keep(call, reply)
        return reply

    async def _ask_other(self, call: Call) -> Message:
        return (await self._make_all_attempts(call))[0]

    async def _make_all_attempts(self, call: Call) -> tuple[Message, Lease]:
        """Make all attempts of a call; return its reply and the lease of the attempt that got it."""
        if call.supervisor.tool_checks is not None:
            self._check_tool(call.supervisor, call.method, call.request, call.started_ns)
        leased = self._attempts.lease(call, call.started_ns)
        try:
            leased = await self._attempts.admitted(call, leased)
            return await self._attempts.carry(call, leased), leased.lease
        except CallError as error:
            return await self._retries.retry(call, leased.lease, error)

    def _check_tool(self, supervisor: Supervisor, method: str, request: Sendable, now_ns: int) -> None:
        """Apply the rules and the rate limits of tools.

        Raises
        ------
        ToolNotAllowedError
            The rules forbid the call.
        OverloadedError
            It is above the rate limit of its tool.
        """
        tool = self._access.check(supervisor, method, request.params)
        if tool is not None:
            self._tool_rates.take(supervisor, method, tool, now_ns)

    _check_first = _check_tool

    def forget(self, server_id: str) -> None:
        """Forget the tools, rates and counts of an id that no server has any more."""
        self._access.forget(server_id)
        self._tool_rates.forget(server_id)
        self.forget_callers(server_id)
        for kept in (self.errors, self.waits):
            kept.forget(server_id)

    def forget_callers(self, server_id: str) -> None:
        """Forget the callers of a server: their sessions end with its instances."""
        self._attempts.forget(server_id)

    def callers_of(self, server_id: str) -> CallerSessions:
        """Return the sessions of a server's callers."""
        return self._attempts.callers_of(server_id)

    async def aclose(self) -> None:
        """Stop looking for idle sessions of callers: all end with their servers."""
        self._attempts.close()
