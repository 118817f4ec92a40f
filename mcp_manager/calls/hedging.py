"""Hedging: whether and when a slow call gets a second, parallel attempt (J. Dean, L. Barroso, The Tail at Scale)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import getrandbits
from typing import Final

from mcp_manager._core.histogram import LatencyWindow, WindowSummary
from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager._core.records import Lease
from mcp_manager._core.router import Router
from mcp_manager.calls.affinity import Leased
from mcp_manager.calls.attempts import Attempts
from mcp_manager.calls.availability import has_other
from mcp_manager.calls.call import Call
from mcp_manager.calls.retry_rules import cover_all_attempts, may_be_repeated
from mcp_manager.config import HedgeConfig
from mcp_manager.errors import CallError
from mcp_manager.protocol.safety import CONTENT, LISTS
from mcp_manager.runtime.background import background_task, read_failure
from mcp_manager.runtime.current_trace import note_event
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import CallStatus, Outcome

__all__ = ["HedgedCalls", "Hedges", "first_result", "is_hedged", "quantile_s"]

_PERIOD_NS: Final = 10 * 10**9
_MOST_SERVERS: Final = 1024
_FRESH_NS: Final = 100_000_000


class _Share:
    """One server's counts of calls and hedges of the last 10 to 20 seconds, and its recent call durations."""

    __slots__ = ("_looked_ns", "_summary", "before_ns", "calls", "calls_before", "hedges", "hedges_before", "window")

    def __init__(self, now_ns: int) -> None:
        self.before_ns = now_ns
        self.calls = self.calls_before = 0
        self.hedges = self.hedges_before = 0
        self.window = LatencyWindow()
        self._summary = self.window.summary(now_ns)
        self._looked_ns = now_ns

    def durations(self, now_ns: int) -> WindowSummary:
        """Return a summary of recent call durations, at most 100 ms old."""
        if now_ns - self._looked_ns >= _FRESH_NS or not self._summary.count:
            self._looked_ns = now_ns
            self._summary = self.window.summary(now_ns)
        return self._summary

    def pass_time(self, now_ns: int) -> None:
        """Drop the counts of periods that are over."""
        periods = (now_ns - self.before_ns) // _PERIOD_NS
        if periods <= 0:
            return
        self.before_ns += periods * _PERIOD_NS
        self.calls_before, self.hedges_before = (self.calls, self.hedges) if periods == 1 else (0, 0)
        self.calls = self.hedges = 0


class Hedges:
    """Decide when calls are hedged, and limit the share of calls that are.

    The delay is a percentile of the durations of whole calls, hedged or not. The router's latencies would be wrong:
    they leave out attempts that lost to their hedge, so that long attempts are missing and the percentile falls until
    a tenth of the calls are hedged (``benchmarks/simulation/bench_simulation.py``).

    Parameters
    ----------
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._shares: dict[str, _Share] = {}

    def delay_s(self, supervisor: Supervisor) -> float | None:
        """Count a call that may be hedged; return the seconds after which it is, ``None`` if it is not."""
        config = supervisor.config.hedge
        share = self._share(supervisor.server_id)
        share.calls += 1
        if len(supervisor.instances) < 2:
            return None
        window = share.durations(self._clock())
        if window.count < config.min_samples:
            return None
        return max(config.min_delay_s, quantile_s(window, config.quantile))

    def took(self, server_id: str, duration_ns: int) -> None:
        """Record the duration of a call that :meth:`delay_s` has counted and that got a reply."""
        self._share(server_id).window.record(self._clock(), max(duration_ns, 0))

    def take(self, server_id: str, config: HedgeConfig) -> bool:
        """Count a hedge and return true, or return false if hedges have reached ``config.max_share``."""
        share = self._share(server_id)
        if share.hedges + share.hedges_before + 1 > config.max_share * (share.calls + share.calls_before):
            return False
        share.hedges += 1
        return True

    def _share(self, server_id: str) -> _Share:
        now_ns = self._clock()
        share = self._shares.get(server_id)
        if share is None:
            if len(self._shares) >= _MOST_SERVERS:
                self._shares.clear()
            share = self._shares[server_id] = _Share(now_ns)
        share.pass_time(now_ns)
        return share


class HedgedCalls:
    """Make calls with a second attempt on another instance if the first is slow or fails.

    Parameters
    ----------
    attempts
        Makes both attempts.
    router
        Leases the backend of the hedge.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(self, attempts: Attempts, router: Router, clock: Callable[[], int]) -> None:
        self._attempts = attempts
        self._router = router
        self._clock = clock
        self._hedges = Hedges(clock)

    async def carry(self, call: Call, leased: Leased) -> Message:
        """Make a call and return the first result, of the first attempt or its hedge.

        Raises
        ------
        CallError
            No attempt got a reply; see :func:`first_result`.
        """
        lease, server_id = leased.lease, call.server_id
        is_safe = call.is_safe
        delay_s = self._hedges.delay_s(call.supervisor) if is_safe else None
        if delay_s is None:
            reply = await self._attempts.carry(call, leased)
            if is_safe:
                self._hedges.took(server_id, self._clock() - lease.started_ns)
            return reply
        first = background_task(self._attempts.carry(call, leased), "call")
        first.add_done_callback(read_failure)
        tasks, leases = [first], [lease]
        try:
            await asyncio.wait(tasks, timeout=delay_s)
            failure = first.exception() if first.done() else None
            if not first.done() or (isinstance(failure, CallError) and may_be_repeated(failure, is_safe)):
                hedge = self._lease(call, lease)
                if hedge is not None:
                    call.supervisor.count_recovery("hedge")
                    note_event("hedge", failure)
                    leases.append(hedge)
                    tasks.append(background_task(self._attempts.carry(call.hedged(), Leased(hedge)), "hedge"))
                    tasks[-1].add_done_callback(read_failure)
            reply = await first_result(tasks)
            self._hedges.took(server_id, self._clock() - lease.started_ns)
            return reply
        finally:
            await self._end(tasks, leases)

    async def _end(self, tasks: Sequence[asyncio.Task[Message]], leases: Sequence[Lease]) -> None:
        """Cancel the attempt that lost, or both if the caller gave up, and give the leases back."""
        pending = [task for task in tasks if not task.done()]
        for task in pending:
            task.cancel()
        try:
            if pending:
                await asyncio.wait(pending)
        finally:
            # A task cancelled before it began has not given its lease back; doing so twice changes nothing.
            for each in leases:
                self._router.done(each, Outcome.IGNORED, CallStatus.CANCELLED, self._clock())

    def _lease(self, call: Call, lease: Lease) -> Lease | None:
        """Return a lease for the hedge on another backend; ``None`` if no backend, budget or time is left."""
        now_ns = self._clock()
        supervisor = call.supervisor
        if now_ns >= call.deadline_ns or not has_other(self._router, supervisor, lease.backend, now_ns):
            return None
        if not self._hedges.take(call.server_id, supervisor.config.hedge):
            return None
        if not self._router.withdraw(supervisor.record, now_ns):
            return None
        hedge = self._router.pick(call.server_id, call.method, now_ns, getrandbits(64), avoid=lease.backend, again=True)
        self._attempts.name_tool(call, hedge)
        if hedge.rejection:
            return None
        if hedge.backend is lease.backend:
            self._router.done(hedge, Outcome.IGNORED, CallStatus.CANCELLED, now_ns)
            return None
        return hedge


def is_hedged(method: str) -> bool:
    """Tell whether requests of this method may be hedged if they are safe to repeat: content and lists may."""
    return method in CONTENT or method in LISTS


def quantile_s(window: WindowSummary, quantile: float) -> float:
    """Return the measured quantile (0.5, 0.95 or 0.99) that is nearest to ``quantile``, in seconds; 0 without calls."""
    measured = ((0.5, window.p50_s), (0.95, window.p95_s), (0.99, window.p99_s))
    return min(measured, key=lambda each: abs(each[0] - quantile))[1] or 0.0


async def first_result(tasks: Sequence[asyncio.Task[Message]]) -> Message:
    """Return the first reply that is a result, or if all attempts end without one, a reply that is an error.

    Raises
    ------
    CallError
        No attempt got a reply. It is the last failure: ``attempts`` counts those of all tasks, and ``delivery`` is
        ``unknown`` if any of them may have been executed.
    """
    pending = set(tasks)
    refusal: Message | None = None
    failures: list[CallError] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            failure = task.exception()
            if failure is None:
                reply = task.result()
                if reply.kind == RESULT:
                    return reply
                refusal = refusal or reply
            elif isinstance(failure, CallError):
                failures.append(failure)
            else:
                try:
                    raise failure
                finally:
                    # Its traceback holds this frame.
                    del failure
    if refusal is not None:
        return refusal
    may_have_run = any(each.delivery == "unknown" for each in failures)
    # A copy: the task holds the original, and a traceback added to that would hold the task.
    last = failures[-1]
    attempts = sum(each.attempts for each in failures)
    raise cover_all_attempts(last.for_caller(last.delivery), attempts, may_have_run=may_have_run)
