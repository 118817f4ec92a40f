"""The call path of a manager that traces: it decides before a call whether a span is made, and looks at it afterwards.

A call that is not traced is looked at where its path ends: the compiled path tells of slow calls, and what that leaves
to Python passes through :meth:`TracedDispatcher._watched`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from random import random
from typing import Any, Final

from mcp_manager._core.call_path import DirectCall, Sampler
from mcp_manager._core.jsonrpc import ERROR, Message, scan
from mcp_manager._core.records import Server
from mcp_manager._core.router import Router
from mcp_manager.auth.caller import fixed_headers
from mcp_manager.calls.affinity import Leased
from mcp_manager.calls.attempts import Landing
from mcp_manager.calls.call import Call
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.config import TracesConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import CallError, McpManagerError
from mcp_manager.runtime.current_trace import CURRENT_TRACE
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.telemetry.tracer import CallTracer, Incoming, Made
from mcp_manager.transports.base import Sendable

__all__ = ["TracedDispatcher"]

_log = logging.getLogger(__name__)

_clock: Final = time.monotonic_ns
_FRESH_S: Final = 10.0
_FEWEST_CALLS: Final = 100
_NEVER: Final = 2**62
# How deep the frames of our own requests may be nested: as deep as can be scanned.
_DEEPEST: Final = 4_096

_Make = Callable[[Call], Coroutine[Any, Any, Message]]


class TracedDispatcher(Dispatcher):
    """Make calls, and trace some of them; see :meth:`trace`, which must be called before the first."""

    def trace(self, tracer: CallTracer, config: TracesConfig, ratio: float, router: Router) -> None:
        """Trace calls.

        Parameters
        ----------
        tracer
            Makes the spans.
        config
            Which calls are traced.
        ratio
            The share of calls that are traced if no incoming trace decides.
        router
            Measures the latencies, from which it follows which calls are slow.
        """
        self._tracer = tracer
        self._make_plainly = super().call
        self._sampler = Sampler(self._make_plainly, self._decide, tracer.variable, asks=tracer.asks)
        # In place of the method: in compiled code, the decision costs less than a call of a Python function.
        vars(self)["call"] = self._sampler.call
        self._ratio = ratio
        self._traces_errors = config.errors
        self._follows_parent = config.parent
        self._slow = config.slow
        self._router = router
        self._draw()
        if self._slow != "off":
            self.path.watch(self._landed_slowly)
        self._timer = asyncio.get_running_loop().call_later(_FRESH_S, self._measure_again)

    def end(self) -> None:
        """Stop measuring from when on calls are slow."""
        self._timer.cancel()

    def _measure_again(self) -> None:
        self.path.measure_again()
        self._timer = asyncio.get_running_loop().call_later(_FRESH_S, self._measure_again)

    # Before a call

    def _decide(
        self, supervisor: Supervisor, method: str, request: Sendable, started_ns: int, deadline_ns: int
    ) -> Coroutine[Any, Any, Message]:
        """Make a call as :meth:`Dispatcher.call`: it is traced if that is its turn, or if the trace it is in says so."""
        incoming = self._tracer.incoming() if self._tracer.may_be_in_trace else None
        if incoming is None:
            if self._sampler.left_out >= 0:
                # It was asked for a context in which there is no trace.
                self._sampler.left_out -= 1
            if self._sampler.left_out >= 0 or not self._draw():
                return self._make_plainly(supervisor, method, request, started_ns, deadline_ns)
        elif not self._is_traced(incoming):
            passed_on = self._tracer.passed_on(request, incoming)
            return self._make_plainly(supervisor, method, passed_on, started_ns, deadline_ns)
        call = Call(supervisor, method, request, started_ns, deadline_ns)
        return self._traced(call, incoming, self._make_directly)

    async def make(self, call: Call) -> Message:
        """Make a call as :meth:`Dispatcher.make`, and trace it if that is its turn."""
        return await self._perhaps_traced(call, super().make)

    def begin(self, call: Call) -> DirectCall | None:
        """Leave the call to :meth:`exchange`, which decides about a span."""
        return None

    async def exchange(self, call: Call, direct: DirectCall | None = None) -> Message:
        """Make a call as :meth:`Dispatcher.exchange`, and trace it if that is its turn."""
        return await self.make(call)

    async def call_on(self, call: Call) -> tuple[Message, Instance]:
        """Make a call as :meth:`Dispatcher.call_on`, and trace it if that is its turn."""
        found: list[Instance] = []
        ask = super().call_on

        async def ask_one(call: Call) -> Message:
            reply, instance = await ask(call)
            found.append(instance)
            return reply

        return await self._perhaps_traced(call, ask_one), found[-1]

    def _make_directly(self, call: Call) -> Coroutine[Any, Any, Message]:
        return self._make_plainly(call.supervisor, call.method, call.request, call.started_ns, call.deadline_ns)

    async def _perhaps_traced(self, call: Call, make: _Make) -> Message:
        incoming = self._tracer.incoming() if self._tracer.may_be_in_trace else None
        if random() < self._ratio if incoming is None else self._is_traced(incoming):
            return await self._traced(call, incoming, lambda call: self._watched(call, make(call)))
        if incoming is not None:
            call.request = self._tracer.passed_on(call.request, incoming)
        return await self._watched(call, make(call))

    def _draw(self) -> bool:
        """Draw how many calls are left out before the next that is traced; tell whether any is traced at all."""
        if self._ratio <= 0.0:
            self._sampler.left_out = _NEVER
            return False
        # The numbers of calls between those that would be drawn one by one (geometric distribution).
        chance = 1.0 - random()
        left_out = 0.0 if self._ratio >= 1.0 else math.log(chance) / math.log1p(-self._ratio)
        self._sampler.left_out = int(min(left_out, _NEVER))
        return True

    def _is_traced(self, incoming: Incoming) -> bool:
        return incoming.parent.is_sampled if self._follows_parent else random() < self._ratio

    async def _traced(self, call: Call, incoming: Incoming | None, make: _Make) -> Message:
        traced, call.request = self._tracer.begin(_made(call, self._secrets_of(call)), call.request, incoming)
        if traced is None:
            return await make(call)
        token = CURRENT_TRACE.set(traced.current)
        try:
            reply = await make(call)
        except BaseException as error:
            self._tracer.end(traced, error)
            raise
        finally:
            CURRENT_TRACE.reset(token)
        self._tracer.end(traced, reply)
        return reply

    def _secrets_of(self, call: Call) -> Secrets:
        """Return the credentials that may stand in what a call says; the caller's own are among them."""
        template = call.supervisor.template
        if call.caller is None:
            return template.secrets
        try:
            return self.callers_of(call.server_id).template(template, call.caller).secrets
        except McpManagerError:
            # The call fails for the same reason, where that is counted and a fallback may answer.
            secrets = Secrets(template.config)
            for name, value in fixed_headers(call.caller).items():
                secrets.add(value, name)
            return secrets

    # After a call that was not traced

    async def _make_list(self, call: Call) -> Message:
        return await self._watched(call, super()._make_list(call))

    async def _make_unsent(self, call: Call, leased: Leased) -> Message:
        return await self._watched(call, super()._make_unsent(call, leased))

    async def _finish(self, call: Call, landing: Landing) -> Message:
        making = super()._finish(call, landing)
        # An exception's traceback may hold this frame.
        del landing
        return await self._watched(call, making)

    def _check_first(self, supervisor: Supervisor, method: str, request: Sendable, now_ns: int) -> None:
        try:
            super()._check_first(supervisor, method, request, now_ns)
        except CallError as error:
            if self._traces_errors and not _has_span(now_ns) and self._tracer.may_look_back():
                call = Call(supervisor, method, request, now_ns, 0)
                self._tracer.after(_made(call, self._secrets_of(call)), _clock(), error)
            raise

    async def _watched(self, call: Call, making: Coroutine[Any, Any, Message]) -> Message:
        """Make a call; make its span if it is not traced and fails or is slow."""
        if _has_span(call.started_ns):
            return await making
        # Now: what is known of the caller may be gone when the call has ended.
        secrets = self._secrets_of(call)
        try:
            reply = await making
        except CallError as error:
            if self._traces_errors and self._tracer.may_look_back():
                self._tracer.after(_made(call, secrets), _clock(), error)
            raise
        now_ns = _clock()
        is_slow = self._is_slow(call.supervisor.record, now_ns - call.started_ns, now_ns)
        if (is_slow or (reply.kind == ERROR and self._traces_errors)) and self._tracer.may_look_back():
            self._tracer.after(_made(call, secrets), now_ns, reply)
        return reply

    def _landed_slowly(self, direct: DirectCall, reply: Message, now_ns: int) -> None:
        """Make the span of a call that the compiled path has settled, if it was slow."""
        try:
            self._look_at(direct, reply, now_ns)
        except Exception:
            # The call has succeeded and is settled: it must not fail because it is looked at.
            _log.exception("a span could not be made")

    def _look_at(self, direct: DirectCall, reply: Message, now_ns: int) -> None:
        lease, exchange = direct.lease, direct.exchange
        if (
            not self._is_slow(lease.server, now_ns - lease.started_ns, now_ns)
            or _has_span(lease.started_ns)
            or exchange is None
            or not self._tracer.may_look_back()
        ):
            return
        template = lease.payload.template
        params = scan(exchange.frame, max_depth=_DEEPEST).params
        made = Made(lease.server, template.config, template.secrets, direct.method or "", params, lease.started_ns)
        self._tracer.after(made, now_ns, reply)

    def _is_slow(self, server: Server, took_ns: int, now_ns: int) -> bool:
        """Tell whether a call was slow; that is not known before its server has taken some calls."""
        if self._slow == "off":
            return False
        limit_ns = self.path.slow_ns(server)
        if limit_ns is None:
            limit_ns = self._measured_limit(server, now_ns)
            self.path.set_slow(server, limit_ns)
        return took_ns >= limit_ns

    def _measured_limit(self, server: Server, now_ns: int) -> int:
        window = self._router.window_of(server, now_ns)
        slow_s = window.p99_s if self._slow == "p99" else window.p95_s
        return _NEVER if slow_s is None or window.count < _FEWEST_CALLS else math.ceil(slow_s * 1e9)


def _made(call: Call, secrets: Secrets) -> Made:
    """Return what a span shows of a call."""
    supervisor = call.supervisor
    return Made(supervisor.record, supervisor.config, secrets, call.method, call.request.params, call.started_ns)


def _has_span(started_ns: int) -> bool:
    """Tell whether the call that began then is traced: the context may be that of another, which a task has inherited."""
    current = CURRENT_TRACE.get()
    return current is not None and current.started_ns == started_ns
