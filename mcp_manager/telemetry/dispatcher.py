"""The call path of a manager that traces: it decides before a call whether a span is made, and looks at it afterwards."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from random import random
from typing import Any, Final

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager._core.router import Router
from mcp_manager.calls.affinity import Leased
from mcp_manager.calls.attempts import Landing
from mcp_manager.calls.call import Call
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.calls.traced import EVENTS
from mcp_manager.config import TracesConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import CallError
from mcp_manager.protocol.methods import KEPT_BY_SESSION, LIST_TOOLS
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.telemetry.tracer import CallTracer, Incoming
from mcp_manager.transports.base import Sendable

__all__ = ["TracedDispatcher"]

_clock: Final = time.monotonic_ns
_FRESH_S: Final = 10.0
_FEWEST_CALLS: Final = 100
_NEVER: Final = 2**62

_Make = Callable[[Call], Coroutine[Any, Any, Message]]


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
            Whether callers may be in a trace, so that the tracer must be asked for it.
        """
        self._tracer = tracer
        self._ratio = ratio
        self._traces_errors = config.errors
        self._follows_parent = config.parent
        self._slow = config.slow
        self._router = router
        self._asks = asks
        # How many further calls are not traced, if no incoming trace decides.
        self._left_out = 0
        self._draw()
        # By server: from how many nanoseconds on a call is slow.
        self._limits: dict[str, int] = {}
        self._timer = asyncio.get_running_loop().call_later(_FRESH_S, self._measure_again)

    def end(self) -> None:
        """Stop measuring from when on calls are slow."""
        self._timer.cancel()

    def _measure_again(self) -> None:
        self._limits.clear()
        self._timer = asyncio.get_running_loop().call_later(_FRESH_S, self._measure_again)

    async def call(
        self, supervisor: Supervisor, method: str, request: Sendable, started_ns: int, deadline_ns: int
    ) -> Message:
        """Make a call as :meth:`Dispatcher.call`, and trace it if that is its turn.

        What that method does for most calls is repeated here: to await it would cost more than all of this.
        """
        incoming, given = None, request
        if self._asks:
            incoming = self._tracer.incoming()
        if incoming is None:
            self._left_out -= 1
            is_traced = self._left_out < 0 and self._draw()
        else:
            is_traced = self._is_traced(incoming)
        if is_traced:
            return await self._traced(
                Call(supervisor, method, request, started_ns, deadline_ns), incoming, self._make_plainly
            )
        if incoming is not None:
            request = self._tracer.passed_on(request, incoming)
        if supervisor.tool_checks is not None:
            if method == LIST_TOOLS:
                call = Call(supervisor, method, request, started_ns, deadline_ns)
                return await self._watched(call, given, incoming, self._make_checked(call))
            try:
                self._check_tool(supervisor, method, request, started_ns)
            except CallError as error:
                if self._traces_errors:
                    call = Call(supervisor, method, given, started_ns, deadline_ns)
                    self._tracer.after(call, self._secrets_of(call), _clock(), incoming, error)
                raise
        sent = request if method not in KEPT_BY_SESSION else None
        direct = self._begin(supervisor.record, method, sent, started_ns, deadline_ns)
        future = direct.future
        is_sent = future is not None
        answer: Any
        if future is not None:
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
                    now_ns = _clock()
                    if now_ns - started_ns >= self._limits.get(supervisor.server_id, 0) and self._is_slow(
                        supervisor, started_ns, now_ns
                    ):
                        call = Call(supervisor, method, given, started_ns, deadline_ns)
                        self._tracer.after(call, self._secrets_of(call), now_ns, incoming, reply)
                    return reply
        call = Call(supervisor, method, request, started_ns, deadline_ns)
        if not is_sent:
            making = self._make_leased(call, Leased(direct.lease))
        else:
            making = self._finish(call, Landing(direct, answer))
            del answer
        return await self._watched(call, given, incoming, making)

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

    def _make_plainly(self, call: Call) -> Coroutine[Any, Any, Message]:
        return super().call(call.supervisor, call.method, call.request, call.started_ns, call.deadline_ns)

    async def _perhaps_traced(self, call: Call, make: _Make) -> Message:
        incoming = self._tracer.incoming() if self._asks else None
        if random() < self._ratio if incoming is None else self._is_traced(incoming):
            return await self._traced(call, incoming, make)
        given = call.request
        if incoming is not None:
            call.request = self._tracer.passed_on(given, incoming)
        return await self._watched(call, given, incoming, make(call))

    async def _watched(
        self, call: Call, given: Sendable, incoming: Incoming | None, making: Coroutine[Any, Any, Message]
    ) -> Message:
        """Make a call that is not traced; make its span if it fails or is slow."""
        secrets = self._secrets_of(call)
        try:
            reply = await making
        except CallError as error:
            if self._traces_errors:
                call.request = given
                self._tracer.after(call, secrets, _clock(), incoming, error)
            raise
        now_ns = _clock()
        is_slow = self._is_slow(call.supervisor, call.started_ns, now_ns)
        if is_slow or (reply.kind == ERROR and self._traces_errors):
            call.request = given
            self._tracer.after(call, secrets, now_ns, incoming, reply)
        return reply

    def _draw(self) -> bool:
        """Draw how many calls are left out before the next that is traced; tell whether any is traced at all."""
        if self._ratio <= 0.0:
            self._left_out = _NEVER
            return False
        # The numbers of calls between those that would be drawn one by one (geometric distribution).
        chance = 1.0 - random()
        self._left_out = 0 if self._ratio >= 1.0 else int(math.log(chance) / math.log1p(-self._ratio))
        return True

    def _is_traced(self, incoming: Incoming) -> bool:
        return incoming.parent.is_sampled if self._follows_parent else random() < self._ratio

    async def _traced(self, call: Call, incoming: Incoming | None, make: _Make) -> Message:
        traced, call.request = self._tracer.begin(call, self._secrets_of(call), incoming)
        if traced is None:
            return await self._watched(call, call.request, incoming, make(call))
        token = EVENTS.set(traced.events)
        try:
            reply = await make(call)
        except BaseException as error:
            self._tracer.end(traced, error)
            raise
        finally:
            EVENTS.reset(token)
        self._tracer.end(traced, reply)
        return reply

    def _secrets_of(self, call: Call) -> Secrets:
        """Return the credentials that may stand in what a call says; the caller's own are among them."""
        template = call.supervisor.template
        if call.caller is not None:
            template = self.callers_of(call.server_id).template(template, call.caller)
        return template.secrets

    def _is_slow(self, supervisor: Supervisor, started_ns: int, ended_ns: int) -> bool:
        """Tell whether a call was slow; that is not known before its server has taken some calls."""
        limit = self._limits.get(supervisor.server_id)
        if limit is None:
            limit = self._limits[supervisor.server_id] = self._measured_limit(supervisor, ended_ns)
        return ended_ns - started_ns >= limit

    def _measured_limit(self, supervisor: Supervisor, now_ns: int) -> int:
        if self._slow == "off":
            return _NEVER
        window = self._router.window_of(supervisor.record, now_ns)
        slow_s = window.p99_s if self._slow == "p99" else window.p95_s
        return _NEVER if slow_s is None or window.count < _FEWEST_CALLS else math.ceil(slow_s * 1e9)

    def forget(self, server_id: str) -> None:
        """Forget a server that was removed."""
        super().forget(server_id)
        self._limits.pop(server_id, None)
