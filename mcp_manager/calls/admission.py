"""Admission: the queues of calls above a limit, the rate limits of tools, and the errors for refused calls."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

from mcp_manager._core.allowance import RateLimiter
from mcp_manager._core.records import Lease, Server
from mcp_manager._core.router import Router
from mcp_manager.calls.queue_waits import QueueWaits
from mcp_manager.config import ManagerConfig, RateConfig
from mcp_manager.errors import CallError, ConnectError, DeadlineExceededError, OverloadedError
from mcp_manager.servers.core_settings import in_ns
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import CallStatus, Outcome, Rejection

__all__ = ["MAY_WAIT", "ToolRates", "WaitingRoom", "refusal", "stopping"]

MAY_WAIT: Final = frozenset({int(Rejection.CONCURRENCY), int(Rejection.TOGETHER)})
"""The rejections that may pass when another call ends, so that waiting helps."""

_SHOWN: Final = 80
_ANY_NUMBER: Final = 1 << 62


class _Waiter:
    """A call in a queue.

    ``lease`` is its latest rejection. ``is_for_all`` tells whether the manager's limit held it back when it came.
    """

    __slots__ = ("attempt", "future", "is_for_all", "lease")

    def __init__(
        self, attempt: Callable[[int], Lease], future: asyncio.Future[Lease | None], lease: Lease, is_for_all: bool
    ) -> None:
        self.attempt = attempt
        self.future = future
        self.lease = lease
        self.is_for_all = is_for_all


class _Line:
    """The queue of one server: its waiting calls by ticket, in the order in which they came.

    ``is_due``: the first call is about to try again. ``is_blocked``: only the manager's limit holds the first call
    back. ``for_all``: how many of the calls have ``is_for_all``.
    """

    __slots__ = ("for_all", "is_blocked", "is_due", "record", "supervisor", "waiters")

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.record = supervisor.record
        self.waiters: OrderedDict[int, _Waiter] = OrderedDict()
        self.for_all = 0
        self.is_due = False
        self.is_blocked = False

    def first(self) -> int | None:
        """Return the ticket of the first call, ``None`` if the queue is empty."""
        return next(iter(self.waiters), None)


class WaitingRoom:
    """Let calls above a limit wait in order until they are admitted.

    Each server has a queue. Its first call tries again whenever a call of that server ends; no other call overtakes it.
    If only the manager's limit on all servers together holds calls back, the oldest of those first calls tries again.
    Calls that no limit refuses never come here.

    Parameters
    ----------
    router
        Refuses calls, and notifies the queues when other calls have ended.
    config
        The manager's settings: how many calls may wait for its own limit, and for how long. The configuration of each
        server says the same for the server's limits.
    clock
        Returns monotonic nanoseconds.
    latency_s
        ``latency_s(server_id)`` returns the server's median latency in seconds, 0 if it is not known.
    """

    def __init__(
        self, router: Router, config: ManagerConfig, clock: Callable[[], int], latency_s: Callable[[str], float]
    ) -> None:
        self._router = router
        self._config = config
        self._clock = clock
        self._latency_s = latency_s
        self.waits: QueueWaits = QueueWaits()
        self._lines: dict[Server, _Line] = {}
        # A heap of the queues whose first call is to try again, by that call's ticket.
        self._due: list[tuple[int, _Line]] = []
        self._tickets = itertools.count()
        self._waiting_for_all = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_serving = False
        router.on_slot = self._serve_soon

    def __len__(self) -> int:
        """Return how many calls wait in all queues."""
        return sum(len(line.waiters) for line in self._lines.values())

    async def turn(
        self, supervisor: Supervisor, lease: Lease, attempt: Callable[[int], Lease], deadline_ns: int
    ) -> Lease:
        """Queue a call that a limit refused; return its lease once it is admitted.

        The lease may still be a rejection, but one that waiting does not help: the circuit has opened, for example.

        Parameters
        ----------
        supervisor
            The server.
        lease
            The rejection, one of :data:`MAY_WAIT`, that the router has just returned.
        attempt
            ``attempt(now_ns)`` asks the router once more, with ``waited=True``.
        deadline_ns
            When the call must have ended, in nanoseconds of the clock.

        Raises
        ------
        OverloadedError
            The queue is full, or the call waited for as long as the settings allow.
        DeadlineExceededError
            The deadline passed while the call waited.
        CallError
            The server was removed, or the manager stopped, while the call waited.
        """
        record, is_for_all = supervisor.record, lease.rejection == Rejection.TOGETHER
        line = self._lines.get(record)
        longest_ns = in_ns(self._config.max_wait_s if is_for_all else supervisor.config.limits.max_wait_s)
        left_ns = deadline_ns - self._clock()
        if is_for_all:
            is_crowded = self._waiting_for_all >= self._config.max_waiting
        else:
            ahead = 0 if line is None else len(line.waiters) - line.for_all
            is_crowded = ahead >= _most_waiting(supervisor)
        if is_crowded or longest_ns <= 0:
            self._router.count_refused(lease)
            raise self._refusal(supervisor, lease, "; the queue is full" if longest_ns > 0 else "")
        granted = await self._waited(
            line or self._open(supervisor, is_for_all), lease, attempt, min(longest_ns, left_ns)
        )
        if isinstance(granted, Lease):
            return granted
        if left_ns > longest_ns:
            self._router.count_refused(granted.lease)
            raise self._refusal(supervisor, granted.lease, f"; no slot was free within {longest_ns / 1e9:g} s")
        self._router.count_refused(granted.lease, CallStatus.TIMEOUT)
        why = refusal(supervisor, granted.lease, self._config)
        raise DeadlineExceededError(
            "no slot was free for the call within the deadline",
            server_id=supervisor.server_id,
            delivery="not_sent",
            hint=why.message,
        )

    async def _waited(
        self, line: _Line, lease: Lease, attempt: Callable[[int], Lease], wait_ns: int
    ) -> Lease | _Waiter:
        """Wait in a queue; return the lease, or the waiter itself if ``wait_ns`` has passed."""
        loop = self._loop = asyncio.get_running_loop()
        waiter = _Waiter(attempt, loop.create_future(), lease, lease.rejection == Rejection.TOGETHER)
        ticket = next(self._tickets)
        line.waiters[ticket] = waiter
        line.for_all += waiter.is_for_all
        self._waiting_for_all += waiter.is_for_all
        line.record.waiting = len(line.waiters)
        if line.is_blocked and len(line.waiters) == 1:
            self._make_due(line)
        timer = loop.call_later(max(wait_ns, 0) / 1e9, self._expire, line, ticket)
        began_ns = self._clock()
        try:
            return await waiter.future or waiter
        except asyncio.CancelledError:
            self._give_back(waiter)
            raise
        finally:
            timer.cancel()
            self._leave(line, ticket)
            if not line.supervisor.is_over:
                self.waits.record(line.record.server_id, self._clock() - began_ns)

    def _give_back(self, waiter: _Waiter) -> None:
        """Count a call that was cancelled while it waited, and give back a lease that it was granted but never got."""
        handed = waiter.future
        if not handed.done() or handed.cancelled() or handed.exception() is not None:
            self._router.count_refused(waiter.lease, CallStatus.CANCELLED)
            return
        lease = handed.result()
        if lease is None:
            self._router.count_refused(waiter.lease, CallStatus.CANCELLED)
        elif not lease.rejection:
            self._router.done(lease, Outcome.IGNORED, CallStatus.CANCELLED, self._clock())

    # Queues

    def _open(self, supervisor: Supervisor, is_blocked: bool) -> _Line:
        line = self._lines[supervisor.record] = _Line(supervisor)
        line.record.on_slot = partial(self._slot_freed, line)
        self._set_blocked(line, is_blocked)
        return line

    def _slot_freed(self, line: _Line) -> None:
        if line.supervisor.is_over:
            self._dismiss(line)
            return
        self._make_due(line)
        self._serve_soon()

    def _dismiss(self, line: _Line) -> None:
        """Fail all calls in a queue: their server is being stopped."""
        for ticket, waiter in list(line.waiters.items()):
            if not waiter.future.done():
                waiter.future.set_exception(stopping(line.record.server_id))
            self._leave(line, ticket)

    def _make_due(self, line: _Line) -> None:
        ticket = line.first()
        if ticket is not None and not line.is_due:
            line.is_due = True
            heapq.heappush(self._due, (ticket, line))

    def _set_blocked(self, line: _Line, is_blocked: bool) -> None:
        if line.is_blocked is not is_blocked:
            line.is_blocked = is_blocked
            self._router.waiting += 1 if is_blocked else -1

    def _leave(self, line: _Line, ticket: int) -> None:
        """Remove a call from its queue if it is still there; if it was the first, the next one tries."""
        was_first = line.first() == ticket
        waiter = line.waiters.pop(ticket, None)
        if waiter is None:
            return
        line.for_all -= waiter.is_for_all
        self._waiting_for_all -= waiter.is_for_all
        line.record.waiting = len(line.waiters)
        if not line.waiters:
            del self._lines[line.record]
            line.record.on_slot = None
            self._set_blocked(line, False)
        elif was_first:
            self._make_due(line)
        if self._due:
            self._serve_soon()

    # Further tries

    def _serve_soon(self) -> None:
        """Schedule the first calls to try again: outside of the router's callback, which runs as another call ends."""
        if self._due and not self._is_serving and self._loop is not None:
            self._is_serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        try:
            self._try_in_turn()
        finally:
            self._is_serving = False

    def _try_in_turn(self) -> None:
        while self._due:
            ticket, line = self._due[0]
            first = line.first()
            if first is None:
                heapq.heappop(self._due)
                line.is_due = False
                continue
            if first != ticket:
                heapq.heapreplace(self._due, (first, line))
                continue
            rejection = self._try(line, first)
            if line.waiters:
                self._set_blocked(line, rejection == Rejection.TOGETHER)
            if rejection == Rejection.TOGETHER:
                return
            if rejection == Rejection.CONCURRENCY:
                heapq.heappop(self._due)
                line.is_due = False

    def _try(self, line: _Line, ticket: int) -> int:
        """Try again for the first call of a queue; return the rejection if it must keep waiting, or 0."""
        waiter = line.waiters[ticket]
        if not waiter.future.done():
            try:
                lease = waiter.attempt(self._clock())
            except KeyError:
                waiter.future.set_exception(_removed(line.record.server_id))
            except Exception as error:  # It fails this call only; the others keep waiting.
                waiter.future.set_exception(error)
            else:
                if lease.rejection in MAY_WAIT:
                    waiter.lease = lease
                    return lease.rejection
                waiter.future.set_result(lease)
        self._leave(line, ticket)
        return 0

    def _expire(self, line: _Line, ticket: int) -> None:
        """End a call's wait; the first in the queue tries once more, since not every freed slot is reported."""
        waiter = line.waiters.get(ticket)
        if waiter is None or waiter.future.done():
            return
        if line.first() == ticket and not self._try(line, ticket):
            return
        waiter.future.set_result(None)
        self._leave(line, ticket)

    # Refusals

    def _refusal(self, supervisor: Supervisor, lease: Lease, waited: str) -> OverloadedError:
        """Make the error for a reached limit; it estimates when the present queue will have been served."""
        error = refusal(supervisor, lease, self._config, waited)
        if lease.rejection == Rejection.TOGETHER:
            ahead, at_a_time = self._waiting_for_all, self._router.inflight
        else:
            ahead, at_a_time = supervisor.record.waiting, supervisor.record.inflight
        estimate_s = self._latency_s(supervisor.server_id) * (ahead + 1) / max(at_a_time, 1)
        if estimate_s > 0:
            error.retry_after_s = estimate_s
            error.hint = f"retry in about {estimate_s:.2g} s"
        return error


class ToolRates:
    """Apply the rate limits of single tools, ``limits.tools`` of the servers' configurations.

    Parameters
    ----------
    router
        Counts the calls that are refused.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._rates: dict[str, tuple[dict[str, RateConfig], dict[str, RateLimiter]]] = {}

    def take(self, supervisor: Supervisor, method: str, tool: str, now_ns: int) -> None:
        """Admit a call of a tool.

        Parameters
        ----------
        supervisor
            The server.
        method
            The method that a refusal is counted under.
        tool
            The name of the tool.
        now_ns
            The time of the clock, in nanoseconds.

        Raises
        ------
        OverloadedError
            The rate limit of the tool is reached.
        """
        configured = supervisor.config.limits.tools
        if tool not in configured:
            return
        known = self._rates.get(supervisor.server_id)
        if known is None or known[0] != configured:
            limiters = {name: RateLimiter(rate=each.rate, burst=each.burst) for name, each in configured.items()}
            known = self._rates[supervisor.server_id] = configured, limiters
        wait_ns = known[1][tool].take(now_ns)
        if wait_ns:
            self._router.count_unpicked(supervisor.record, method, tool)
            text = f"the rate limit of tool {tool[:_SHOWN]!r}, {configured[tool].rate:g} per second, is reached"
            raise _overloaded(supervisor.server_id, text, "limits.tools", wait_ns / 1e9)

    def forget(self, server_id: str) -> None:
        """Forget the rates of a server that was removed."""
        self._rates.pop(server_id, None)


def refusal(supervisor: Supervisor, lease: Lease, config: ManagerConfig, waited: str = "") -> OverloadedError:
    """Make the error for a call that a limit refused.

    Parameters
    ----------
    supervisor
        The server.
    lease
        The rejection: ``Rejection.CONCURRENCY`` or a higher number.
    config
        The manager's settings.
    waited
        What the message adds about the queue.
    """
    server_id, limits, record = supervisor.server_id, supervisor.config.limits, supervisor.record
    retry_after_s = lease.retry_after_ns / 1e9 or None
    match lease.rejection:
        case Rejection.TOGETHER:
            text = f"the manager's concurrency limit of {config.max_concurrent} is reached"
            return _overloaded(server_id, text, "max_concurrent", retry_after_s, waited)
        case Rejection.RATE:
            text = f"the server's rate limit of {limits.rate.rate:g} per second is reached"
            return _overloaded(server_id, text, "limits.rate", retry_after_s)
        case Rejection.SHED:
            text = "the call was shed because the server refuses too many calls"
            return _overloaded(server_id, text, "limits.shedding", retry_after_s)
        case Rejection.PAUSED:
            return _overloaded(server_id, "the server asked for a pause", None, retry_after_s)
    if record.max_concurrent and (record.inflight >= record.max_concurrent or not _adapted(supervisor)):
        text = f"the server's concurrency limit of {record.max_concurrent} is reached"
        return _overloaded(server_id, text, "limits.max_concurrent", retry_after_s, waited)
    text = "all instances of the server are at their adaptive concurrency limits"
    return _overloaded(server_id, text, "limits.concurrency", retry_after_s, waited)


def _overloaded(
    server_id: str, text: str, limit: str | None, retry_after_s: float | None, waited: str = ""
) -> OverloadedError:
    error = OverloadedError(
        text + waited if limit is None else f"{text} ({limit}){waited}",
        server_id=server_id,
        delivery="not_sent",
        retry_after_s=retry_after_s,
        hint="" if retry_after_s is None else f"retry in {retry_after_s:.{1 if retry_after_s >= 1 else 2}f} s",
    )
    error.limit = limit
    return error


def stopping(server_id: str) -> ConnectError:
    """Make the error for a call that was not sent because its server is removed or the manager stops."""
    return ConnectError("the server is being stopped", server_id=server_id, retryable=False)


def _removed(server_id: str) -> CallError:
    return CallError(
        "the server was removed while the call waited in the queue", server_id=server_id, delivery="not_sent"
    )


def _adapted(supervisor: Supervisor) -> list[int]:
    """Return the adaptive limits of the instances that have one."""
    backends = (instance.backend for instance in supervisor.instances)
    return [backend.limit for backend in backends if backend is not None and backend.limit is not None]


def _most_waiting(supervisor: Supervisor) -> int:
    """Return how many calls may wait for a server: by default, as many as may be in flight."""
    adapted, most = _adapted(supervisor), supervisor.record.max_concurrent
    if not adapted and not most:
        # The limit was lifted a moment ago: this call only follows those that still wait for their turn.
        return _ANY_NUMBER
    waiting = supervisor.config.limits.max_waiting
    if waiting >= 0:
        return waiting
    if most == 0:
        return sum(adapted)
    return most if len(adapted) < len(supervisor.instances) else min(most, sum(adapted))
