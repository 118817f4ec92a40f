"""Simulates calls to a fleet in simulated time, to show the effect of a policy on latencies and errors.

Calls arrive at random (Poisson). Every place serves up to ``slots`` of them at a time; the rest wait in order. The
scenario draws how long a call takes and whether it fails. Nothing waits and nothing reads a clock, so the same seed
gives the same figures on every machine.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import NamedTuple, Protocol

from benchmarks.simulation.simulated_policies import Balancer, Picked
from mcp_manager.types import Outcome

__all__ = ["Figures", "Hedging", "Retrying", "Service", "World"]

Service = Callable[[int, random.Random], tuple[float, bool]]
"""``service(place, draws)`` returns the seconds that a call takes at a place, and whether it fails."""


class Retrying(Protocol):
    """Decides whether and when a failed call is retried."""

    def delay_ns(self, attempts: int, last_ns: int, now_ns: int) -> int | None:
        """Return the wait after ``attempts`` attempts, the last wait having been ``last_ns``; ``None`` for no retry."""


class Hedging(Protocol):
    """Decides whether and when a slow call is made a second time."""

    def delay_ns(self, now_ns: int) -> int | None:
        """Return after how long to hedge a call; ``None`` for never."""

    def permits(self, now_ns: int) -> bool:
        """Take a hedge from the budget; return whether one was left."""

    def ended(self, took_ns: int, now_ns: int) -> None:
        """Learn how long a call took, hedged or not."""


class Figures(NamedTuple):
    """The results of a run, without the first tenth of its time.

    Latencies are in seconds, those of failures and rejections included. ``errors`` is the share of these; ``sent`` is
    the number of requests per call.
    """

    calls: int
    p50_s: float
    p99_s: float
    p999_s: float
    errors: float
    sent: float


class _Place:
    """A server that works on ``slots`` calls at a time."""

    def __init__(self, slots: int) -> None:
        self._free_ns = [0] * slots

    def serve(self, now_ns: int, took_ns: int) -> int:
        """Return when a call that arrives now is done."""
        end_ns = max(now_ns, self._free_ns[0]) + took_ns
        heapq.heapreplace(self._free_ns, end_ns)
        return end_ns


class _Call:
    __slots__ = ("attempts", "in_flight", "is_over", "is_warm_up", "last_wait_ns", "started_ns")

    def __init__(self, now_ns: int, is_warm_up: bool) -> None:
        self.started_ns = now_ns
        self.is_warm_up = is_warm_up
        self.is_over = False
        self.attempts = 0
        self.last_wait_ns = 0
        self.in_flight: list[Picked] = []


class World:
    """A run of the simulation.

    Parameters
    ----------
    balancer
        Chooses where calls go; made for the same number of places.
    seed
        The seed of arrivals and durations: with the same seed, all policies get the same calls.
    places, slots
        The number of places, and how many calls each serves at a time.
    rate
        Calls per second.
    service
        See :data:`Service`.
    retrying, hedging
        See :class:`Retrying` and :class:`Hedging`; ``None`` for never.
    """

    def __init__(
        self,
        balancer: Balancer,
        *,
        seed: int,
        places: int,
        slots: int,
        rate: float,
        service: Service,
        retrying: Retrying | None = None,
        hedging: Hedging | None = None,
    ) -> None:
        self._balancer = balancer
        self._arrivals = random.Random(seed)
        self._durations = random.Random(seed + 1)
        self._places = [_Place(slots) for _ in range(places)]
        self._rate = rate
        self._service = service
        self._retrying = retrying
        self._hedging = hedging
        self._events: list[
            tuple[int, int, Callable[[_Call, Picked | None, bool], None], _Call, Picked | None, bool]
        ] = []
        self._numbers = itertools.count()
        self._now_ns = 0
        self._latencies_ns: list[int] = []
        self._errors = 0
        self._sent = 0

    def run(self, seconds: float) -> Figures:
        """Let calls arrive for this many seconds, wait for all of them to end, and return the results."""
        end_ns = int(seconds * 1e9)
        arrival_ns = self._gap_ns()
        while arrival_ns < end_ns:
            self._advance(arrival_ns)
            self._begin(_Call(arrival_ns, arrival_ns < end_ns // 10))
            arrival_ns += self._gap_ns()
        self._advance(None)
        return self._figures()

    def _gap_ns(self) -> int:
        return int(self._arrivals.expovariate(self._rate) * 1e9)

    def _advance(self, until_ns: int | None) -> None:
        """Process the events that are due by then; ``None`` for all."""
        events = self._events
        while events and (until_ns is None or events[0][0] <= until_ns):
            self._now_ns, _, what, call, picked, failed = heapq.heappop(events)
            what(call, picked, failed)
        if until_ns is not None:
            self._now_ns = until_ns

    def _at(
        self,
        when_ns: int,
        what: Callable[[_Call, Picked | None, bool], None],
        call: _Call,
        picked: Picked | None = None,
        failed: bool = False,
    ) -> None:
        heapq.heappush(self._events, (when_ns, next(self._numbers), what, call, picked, failed))

    def _begin(self, call: _Call) -> None:
        self._attempt(call)
        if self._hedging is not None and not call.is_over:
            delay_ns = self._hedging.delay_ns(self._now_ns)
            if delay_ns is not None:
                self._at(self._now_ns + delay_ns, self._hedge, call)

    def _attempt(self, call: _Call, before: Picked | None = None, _: bool = False) -> None:
        call.attempts += 1
        if not self._send(call, before):
            # Rejected locally: it is not retried, whatever is left of the budget.
            self._errors += not call.is_warm_up
            self._end(call)

    def _send(self, call: _Call, before: Picked | None) -> bool:
        picked = self._balancer.pick(self._now_ns, before)
        if picked is None:
            return False
        self._sent += not call.is_warm_up
        took_s, failed = self._service(picked.place, self._durations)
        call.in_flight.append(picked)
        self._at(
            self._places[picked.place].serve(self._now_ns, int(took_s * 1e9)), self._complete, call, picked, failed
        )
        return True

    def _hedge(self, call: _Call, _: Picked | None, __: bool) -> None:
        assert self._hedging is not None
        if not call.is_over and call.in_flight and self._hedging.permits(self._now_ns):
            self._send(call, call.in_flight[0])

    def _complete(self, call: _Call, picked: Picked | None, failed: bool) -> None:
        assert picked is not None
        if call.is_over:
            # The loser of a hedge: its lease was given back when the other one won.
            return
        call.in_flight.remove(picked)
        self._balancer.done(picked, Outcome.FAILURE if failed else Outcome.SUCCESS, self._now_ns)
        if not failed:
            self._end(call)
        elif not call.in_flight:
            self._failed(call, picked)

    def _failed(self, call: _Call, picked: Picked) -> None:
        delay_ns = None
        if self._retrying is not None:
            delay_ns = self._retrying.delay_ns(call.attempts, call.last_wait_ns, self._now_ns)
        if delay_ns is None:
            self._errors += not call.is_warm_up
            self._end(call)
        else:
            call.last_wait_ns = delay_ns
            self._at(self._now_ns + delay_ns, self._attempt, call, picked)

    def _end(self, call: _Call) -> None:
        call.is_over = True
        for other in call.in_flight:
            self._balancer.done(other, Outcome.IGNORED, self._now_ns)
        if self._hedging is not None:
            self._hedging.ended(self._now_ns - call.started_ns, self._now_ns)
        if not call.is_warm_up:
            self._latencies_ns.append(self._now_ns - call.started_ns)

    def _figures(self) -> Figures:
        self._latencies_ns.sort()
        calls = len(self._latencies_ns)

        def quantile_s(share: float) -> float:
            return self._latencies_ns[min(int(calls * share), calls - 1)] / 1e9

        return Figures(
            calls, quantile_s(0.5), quantile_s(0.99), quantile_s(0.999), self._errors / calls, self._sent / calls
        )
