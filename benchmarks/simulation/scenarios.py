"""What can go wrong in a fleet, to be simulated: a slow instance, one that fails at once, an outage, rare slow answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from benchmarks.simulation.simulated_policies import REFERENCES, Balancer, RouterBalancer
from benchmarks.simulation.simulation import Figures, Hedging, Retrying, World
from mcp_manager._core.histogram import LatencyWindow
from mcp_manager.calls.retrying import next_backoff_s
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
"""Everything that is compared, by name."""


class Comparison(NamedTuple):
    """One policy with one of the places ten times as slow, and with one that fails within a millisecond."""

    policy: str
    slow: Figures
    failing: Figures


def usual(place: int, draws: random.Random) -> tuple[float, bool]:
    """Take an exponentially distributed time."""
    return draws.expovariate(1 / MEAN_S), False


def one_slow(place: int, draws: random.Random) -> tuple[float, bool]:
    """Take ten times as long in the first place."""
    took_s, _ = usual(place, draws)
    return (took_s if place else 10 * took_s), False


def one_failing(place: int, draws: random.Random) -> tuple[float, bool]:
    """Fail at once in the first place."""
    took = usual(place, draws)
    return took if place else (FAILS_IN_S, True)


def all_failing(place: int, draws: random.Random) -> tuple[float, bool]:
    """Fail at once."""
    return FAILS_IN_S, True


def rarely_slow(place: int, draws: random.Random) -> tuple[float, bool]:
    """Take very long now and then, in whichever place."""
    mean_s = SLOW_MEAN_S if draws.random() < SLOW_SHARE else MEAN_S
    return draws.expovariate(1 / mean_s), False


def compare(seed: int, seconds: float, policies: tuple[str, ...] = tuple(POLICIES)) -> Iterator[Comparison]:
    """Run one policy after the other over the same calls, at 60 % of what the fleet can do."""
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
    """Let every call fail in every place."""
    rate = LOAD * PLACES * SLOTS / MEAN_S
    world = World(balancer, seed=seed, places=PLACES, slots=SLOTS, rate=rate, service=all_failing, retrying=retrying)
    return world.run(seconds)


def hedge(seed: int, seconds: float, balancer: Balancer, hedging: Hedging | None) -> Figures:
    """Let a few calls take very long, with a second try for those or without."""
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
    """Retries as a server has them by default: how many, how far apart, and within what budget.

    Parameters
    ----------
    balancer
        Whose router keeps the budget.
    draws
        The jitter.
    budget
        ``False`` for no end of retries.
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
    """A hedge for every call that takes longer than the 95th percentile of the latest ones, within the router's budget.

    The latencies are those of whole calls. Those of the attempts that won would be the wrong ones: the long ones, cut
    short by their hedges, are not among them, and the percentile would sink until a tenth of the calls were hedged.
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
