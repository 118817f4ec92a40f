"""The simulated scenarios: a slow place, one that fails at once, an outage, rare slow answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from benchmarks.simulation.simulated_policies import REFERENCES, Balancer, RouterBalancer
from benchmarks.simulation.simulation import Figures, Hedging, Retrying, World
from mcp_manager._core.histogram import LatencyWindow
from mcp_manager.calls.retry_rules import next_backoff_s
from mcp_manager.config import HedgeConfig, RetryConfig
from mcp_manager.servers.core_settings import in_ns

__all__ = [
    "OURS",
    "PLACES",
    "POLICIES",
    "BudgetedRetries",
    "Comparison",
    "TimelyHedges",
    "compare",
    "hedge",
    "outage",
]

PLACES: Final = 20
SLOTS: Final = 8
LOAD: Final = 0.6
MEAN_S: Final = 0.015
FAILS_IN_S: Final = 0.001
SLOW_SHARE: Final = 0.035
SLOW_MEAN_S: Final = 0.26
HEDGED_CALLS_PER_S: Final = 1000.0
OURS: Final = "this router"

POLICIES: Final[dict[str, Callable[[int, random.Random], Balancer]]] = {
    **REFERENCES,
    OURS: RouterBalancer,
    "this router, circuits off": partial(RouterBalancer, breaker=False),
}
"""The policies that are compared, by name."""


class Comparison(NamedTuple):
    """The figures of a policy when one place takes ten times as long, and when one fails within a millisecond."""

    policy: str
    slow: Figures
    failing: Figures


def usual(place: int, draws: random.Random) -> tuple[float, bool]:
    """Take an exponentially distributed time."""
    return draws.expovariate(1 / MEAN_S), False


def one_slow(place: int, draws: random.Random) -> tuple[float, bool]:
    """Take ten times as long at place 0."""
    took_s, _ = usual(place, draws)
    return (took_s if place else 10 * took_s), False


def one_failing(place: int, draws: random.Random) -> tuple[float, bool]:
    """Fail at once at place 0."""
    took = usual(place, draws)
    return took if place else (FAILS_IN_S, True)


def all_failing(place: int, draws: random.Random) -> tuple[float, bool]:
    """Fail at once at every place."""
    return FAILS_IN_S, True


def rarely_slow(place: int, draws: random.Random) -> tuple[float, bool]:
    """Take very long now and then, at any place."""
    mean_s = SLOW_MEAN_S if draws.random() < SLOW_SHARE else MEAN_S
    return draws.expovariate(1 / mean_s), False


def compare(seed: int, seconds: float, policies: tuple[str, ...] = tuple(POLICIES)) -> Iterator[Comparison]:
    """Run one policy after another on the same calls, at 60 % of the capacity of the fleet."""
    rate = LOAD * PLACES * SLOTS / MEAN_S
    for name in policies:
        slow, failing = (
            World(
                POLICIES[name](PLACES, random.Random(seed)),
                seed=seed,
                places=PLACES,
                slots=SLOTS,
                rate=rate,
                service=service,
            ).run(seconds)
            for service in (one_slow, one_failing)
        )
        yield Comparison(name, slow, failing)


def outage(seed: int, seconds: float, retrying: Retrying, balancer: Balancer) -> Figures:
    """Run a fleet in which every call fails at every place."""
    rate = LOAD * PLACES * SLOTS / MEAN_S
    world = World(balancer, seed=seed, places=PLACES, slots=SLOTS, rate=rate, service=all_failing, retrying=retrying)
    return world.run(seconds)


def hedge(seed: int, seconds: float, balancer: Balancer, hedging: Hedging | None) -> Figures:
    """Run a fleet in which a few calls take very long, with or without hedges."""
    world = World(
        balancer,
        seed=seed,
        places=PLACES,
        slots=SLOTS,
        rate=HEDGED_CALLS_PER_S,
        service=rarely_slow,
        hedging=hedging,
    )
    return world.run(seconds)


class BudgetedRetries:
    """The retries that a server has by default: their number, delays and budget.

    Parameters
    ----------
    balancer
        Its router holds the budget.
    draws
        Random numbers for the jitter.
    budget
        ``False`` retries without a budget.
    """

    def __init__(self, balancer: RouterBalancer, draws: random.Random, *, budget: bool = True) -> None:
        self._config = RetryConfig()
        self._balancer = balancer
        self._draws = draws
        self._has_budget = budget

    def delay_ns(self, attempts: int, last_ns: int, now_ns: int) -> int | None:
        """See :class:`Retrying`."""
        if attempts >= self._config.attempts:
            return None
        if self._has_budget and not self._balancer.router.withdraw(self._balancer.record, now_ns):
            return None
        last_s = last_ns / 1e9 if last_ns else self._config.backoff_s
        return in_ns(next_backoff_s(last_s, self._config, self._draws.random()))


class TimelyHedges:
    """Hedge every call that takes longer than the 95th percentile of the latest ones, within the router's budget.

    The percentile is that of whole calls. That of the winning attempts would be wrong: it lacks the long attempts that
    hedges cut short, and would sink until a tenth of the calls were hedged.
    """

    _LOOK_AGAIN_NS = 100_000_000

    def __init__(self, balancer: RouterBalancer) -> None:
        self._config = HedgeConfig()
        self._balancer = balancer
        self._window = LatencyWindow()
        self._delay_ns: int | None = None
        self._look_at_ns = 0

    def delay_ns(self, now_ns: int) -> int | None:
        """See :class:`Hedging`."""
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + self._LOOK_AGAIN_NS
            summary = self._window.summary(now_ns)
            if summary.count >= self._config.min_samples and summary.p95_s is not None:
                self._delay_ns = in_ns(max(self._config.min_delay_s, summary.p95_s))
        return self._delay_ns

    def permits(self, now_ns: int) -> bool:
        """See :class:`Hedging`."""
        return self._balancer.router.withdraw(self._balancer.record, now_ns)

    def ended(self, took_ns: int, now_ns: int) -> None:
        """See :class:`Hedging`."""
        self._window.record(now_ns, took_ns)
