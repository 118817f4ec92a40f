"""Calls to a fleet in simulated time: what a policy does to latencies and errors, by the thousand and with a seed.

Calls come at random (Poisson). Every place serves up to ``slots`` of them at a time and lets the rest wait in order. How
long a call takes, and whether it fails, is drawn by the scenario. Nothing here waits, and nothing reads a clock: the same
seed gives the same figures on every machine.
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
"""``service(place, draws)`` gives the seconds that a call takes there, and whether it fails in the end."""


class Retrying(Protocol):
    """Whether, and when, a call that failed is made again."""

    def delay_ns(self, attempts: int, last_ns: int, now_ns: int) -> int | None:
        """Return the wait before another attempt after ``attempts`` of them, ``last_ns`` being the last wait, or ``None``."""


class Hedging(Protocol):
    """Whether, and when, a call that takes long is made a second time."""

    def delay_ns(self, now_ns: int) -> int | None:
        """Return after how long a call is to be hedged, ``None`` for never."""

    def permits(self, now_ns: int) -> bool:
        """Take the right to a hedge."""

    def ended(self, took_ns: int, now_ns: int) -> None:
        """Learn how long a call took, hedged or not."""


class Figures(NamedTuple):
    """What became of the calls of a run, the first tenth of its time left out.

    Latencies are in seconds, those of failures and refusals among them; ``errors`` is their share, ``sent`` the number of
    requests for each call.
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
        """Return when a call that comes now is done."""
        end_ns = max(now_ns, self._free_ns[0]) + took_ns
        heapq.heapreplace(self._free_ns, end_ns)
        return end_ns


class _Call:
    __slots__ = ("attempts", "flights", "is_over", "is_warm_up", "last_wait_ns", "started_ns")

    def __init__(self, now_ns: int, is_warm_up: bool) -> None:
        self.started_ns = now_ns
        self.is_warm_up = is_warm_up
        self.is_over = False
        self.attempts = 0
        self.last_wait_ns = 0
        self.flights: list[Picked] = []


class World:
    """One run.

    Parameters
    ----------
    balancer
        Says where calls go; made for as many places as there are here.
    seed
        Of arrivals and durations: the same for every policy, so that all meet the same calls.
    places, slots
        How many there are, and how many calls each works on at a time.
    rate
        Calls per second.
    service
        See :data:`Service`.
    retrying, hedging
        See there; ``None`` for never.
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
        """Let calls come for so long, and all of them end."""
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
        """Let happen what is due by then; ``None`` for everything."""
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
            # Refused on this side: it is not tried again, whatever may be left of the budget.
            self._errors += not call.is_warm_up
            self._end(call)

    def _send(self, call: _Call, before: Picked | None) -> bool:
        picked = self._balancer.pick(self._now_ns, before)
        if picked is None:
            return False
        self._sent += not call.is_warm_up
        took_s, failed = self._service(picked.place, self._durations)
        call.flights.append(picked)
        self._at(self._places[picked.place].serve(self._now_ns, int(took_s * 1e9)), self._land, call, picked, failed)
        return True

    def _hedge(self, call: _Call, _: Picked | None, __: bool) -> None:
        assert self._hedging is not None
        if not call.is_over and call.flights and self._hedging.permits(self._now_ns):
            self._send(call, call.flights[0])

    def _land(self, call: _Call, picked: Picked | None, failed: bool) -> None:
        assert picked is not None
        if call.is_over:
            # The loser of a hedge: its lease was given back when the other one won.
            return
        call.flights.remove(picked)
        self._balancer.done(picked, Outcome.FAILURE if failed else Outcome.SUCCESS, self._now_ns)
        if not failed:
            self._end(call)
        elif not call.flights:
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
        for other in call.flights:
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
