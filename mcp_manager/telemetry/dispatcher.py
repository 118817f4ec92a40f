"""The call path of a manager that traces: it decides before a call whether a span is made, and looks at it afterwards."""

from __future__ import annotations

import math
import time
from random import random
from typing import Any, Final

from opentelemetry.context import get_current

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager._core.router import Router
from mcp_manager.calls.call import Call
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.calls.traced import EVENTS
from mcp_manager.config import TracesConfig
from mcp_manager.errors import CallError
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.telemetry.tracer import CallTracer, Incoming
from mcp_manager.transports.base import Sendable

__all__ = ["TracedDispatcher"]

_clock: Final = time.monotonic_ns
_call: Final = Dispatcher.call
_FRESH_NS: Final = 10 * 10**9
_FEWEST_CALLS: Final = 100
_NEVER: Final = 2**62


class TracedDispatcher(Dispatcher):
    """Make calls, and trace some of them; see :meth:`trace`, which must be called before the first."""

    def trace(self, tracer: CallTracer, config: TracesConfig, ratio: float, router: Router, *, asks: bool) -> None:
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
        asks
            Whether the tracer must be asked for the trace of each caller, because OpenTelemetry's current context does
            not tell.
        """
        self._tracer = tracer
        self._ratio = ratio
        self._traces_errors = config.errors
        self._follows_parent = config.parent
        self._slow = config.slow
        self._router = router
        self._asks = asks
        # By server: from how many nanoseconds a call is slow, and until when that is taken to be so.
        self._limits: dict[str, tuple[int, int]] = {}

    async def call(
        self, supervisor: Supervisor, method: str, request: Sendable, started_ns: int, deadline_ns: int
    ) -> Message:
        """Make a call as :meth:`Dispatcher.call`, and trace it if that is its turn."""
        incoming = None
        context = get_current()
        if context or self._asks:
            incoming = self._tracer.incoming(context)
        if incoming is not None:
            if self._is_traced(incoming):
                return await self._traced(
                    Call(supervisor, method, request, started_ns, deadline_ns), incoming, self._plainly
                )
            given, request = request, self._tracer.passed_on(request, incoming)
        elif random() < self._ratio:
            return await self._traced(Call(supervisor, method, request, started_ns, deadline_ns), None, self._plainly)
        else:
            given = request
        try:
            reply = await _call(self, supervisor, method, request, started_ns, deadline_ns)
        except CallError as error:
            if self._traces_errors:
                self._tracer.after(supervisor, method, given, (started_ns, _clock()), incoming, error)
            raise
        now_ns = _clock()
        limit = self._limits.get(supervisor.server_id)
        if limit is None or now_ns >= limit[1]:
            limit = self._new_limit(supervisor, now_ns)
        if now_ns - started_ns >= limit[0] or (reply.kind == ERROR and self._traces_errors):
            self._tracer.after(supervisor, method, given, (started_ns, now_ns), incoming, reply)
        return reply

    async def make(self, call: Call) -> Message:
        """Make a call as :meth:`Dispatcher.make`, and trace it if that is its turn."""
        return await self._perhaps_traced(call, super().make)

    async def call_on(self, call: Call) -> tuple[Message, Instance]:
        """Make a call as :meth:`Dispatcher.call_on`, and trace it if that is its turn."""
        found: list[Instance] = []
        ask = super().call_on

        async def ask_one(call: Call) -> Message:
            reply, instance = await ask(call)
            found.append(instance)
            return reply

        return await self._perhaps_traced(call, ask_one), found[-1]

    async def _perhaps_traced(self, call: Call, make: Any) -> Message:
        context = get_current()
        incoming = self._tracer.incoming(context) if context or self._asks else None
        is_traced = random() < self._ratio if incoming is None else self._is_traced(incoming)
        if is_traced:
            return await self._traced(call, incoming, make)
        given = call.request
        if incoming is not None:
            call.request = self._tracer.passed_on(given, incoming)
        try:
            reply: Message = await make(call)
        except CallError as error:
            if self._traces_errors:
                times = (call.started_ns, _clock())
                self._tracer.after(call.supervisor, call.method, given, times, incoming, error)
            raise
        if reply.kind == ERROR and self._traces_errors:
            self._tracer.after(call.supervisor, call.method, given, (call.started_ns, _clock()), incoming, reply)
        return reply

    def _is_traced(self, incoming: Incoming) -> bool:
        return incoming.parent.is_sampled if self._follows_parent else random() < self._ratio

    async def _plainly(self, call: Call) -> Message:
        return await _call(self, call.supervisor, call.method, call.request, call.started_ns, call.deadline_ns)

    async def _traced(self, call: Call, incoming: Incoming | None, make: Any) -> Message:
        traced, call.request = self._tracer.begin(call.supervisor, call.method, call.request, call.started_ns, incoming)
        if traced is None:
            untraced: Message = await make(call)
            return untraced
        token = EVENTS.set(traced.events)
        try:
            reply: Message = await make(call)
        except BaseException as error:
            self._tracer.end(traced, error)
            raise
        finally:
            EVENTS.reset(token)
        self._tracer.end(traced, reply)
        return reply

    def _new_limit(self, supervisor: Supervisor, now_ns: int) -> tuple[int, int]:
        """Measure from when on a call of a server is slow; that is not known before it has made some calls."""
        slow_ns = _NEVER
        if self._slow != "off":
            window = self._router.window_of(supervisor.record, now_ns)
            slow_s = window.p99_s if self._slow == "p99" else window.p95_s
            if window.count >= _FEWEST_CALLS and slow_s is not None:
                slow_ns = math.ceil(slow_s * 1e9)
        limit = self._limits[supervisor.server_id] = (slow_ns, now_ns + _FRESH_NS)
        return limit

    def forget(self, server_id: str) -> None:
        """Forget a server that was removed."""
        super().forget(server_id)
        self._limits.pop(server_id, None)
