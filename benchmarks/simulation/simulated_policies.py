"""The router as a policy of the simulation, and the policies it is compared with, in plain Python."""

from __future__ import annotations

import math
import random
from typing import Any, Final, NamedTuple, Protocol

from mcp_manager._core.router import Router
from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.servers.core_settings import balancing_settings, breaker_settings, limits_of, limits_together
from mcp_manager.types import CallStatus, Outcome

__all__ = [
    "REFERENCES",
    "SERVER",
    "Balancer",
    "LeastInFlight",
    "PeakEwma",
    "Picked",
    "PunishingPeakEwma",
    "RandomChoice",
    "RoundRobin",
    "RouterBalancer",
]

SERVER: Final = "server"
_METHOD: Final = "tools/call"
_DECAY_NS: Final = 10e9
_FAILED_NS: Final = 1e9
_UNKNOWN: Final = 1e18


class Picked(NamedTuple):
    """The place that takes a call, and what :meth:`Balancer.done` needs."""

    place: int
    started_ns: int
    lease: Any = None


class Balancer(Protocol):
    """A policy that chooses where calls go."""

    def pick(self, now_ns: int, before: Picked | None = None) -> Picked | None:
        """Choose a place, for a retry or hedge other than ``before`` if possible; ``None`` if none admits the call."""

    def done(self, picked: Picked, outcome: Outcome, now_ns: int) -> None:
        """Learn how a call ended."""


class RouterBalancer:
    """The compiled router with the settings that a server has by default.

    Parameters
    ----------
    places
        The number of instances.
    draws
        The source of its random bits.
    breaker
        ``False`` disables the circuits, to show balancing alone.
    """

    def __init__(self, places: int, draws: random.Random, *, breaker: bool = True) -> None:
        self._draws = draws
        config = ServerConfig()
        self.router = Router(together=limits_together(ManagerConfig()))
        self.router.add_server(SERVER, balancing_settings(config.balancing), limits_of(config))
        self.record = self.router.server(SERVER)
        # There are no probes here.
        settings = breaker_settings(config.breaker, False)
        for place in range(places):
            instance = self.router.add_backend(SERVER, place, settings)
            if not breaker:
                self.router.set_breaker_mode(instance, "disabled")

    def pick(self, now_ns: int, before: Picked | None = None) -> Picked | None:
        """See :class:`Balancer`."""
        avoid = None if before is None else before.lease.backend
        bits = self._draws.getrandbits(64)
        lease = self.router.pick(SERVER, _METHOD, now_ns, bits, avoid=avoid, again=before is not None)
        return None if lease.rejection else Picked(lease.payload, now_ns, lease)

    def done(self, picked: Picked, outcome: Outcome, now_ns: int) -> None:
        """See :class:`Balancer`."""
        status = CallStatus.SUCCESS if outcome is Outcome.SUCCESS else CallStatus.CONNECT_ERROR
        self.router.done(picked.lease, outcome, status, now_ns, random=self._draws.getrandbits(64))


class RandomChoice:
    """Choose every place with the same probability."""

    def __init__(self, places: int, draws: random.Random) -> None:
        self._places = places
        self._draws = draws

    def pick(self, now_ns: int, before: Picked | None = None) -> Picked | None:
        """See :class:`Balancer`."""
        return Picked(self._draws.randrange(self._places), now_ns)

    def done(self, picked: Picked, outcome: Outcome, now_ns: int) -> None:
        """See :class:`Balancer`."""


class RoundRobin(RandomChoice):
    """Choose one place after another."""

    _last = -1

    def pick(self, now_ns: int, before: Picked | None = None) -> Picked | None:
        """See :class:`Balancer`."""
        self._last = (self._last + 1) % self._places
        return Picked(self._last, now_ns)


class LeastInFlight(RandomChoice):
    """Of two places drawn at random, choose the one with fewer calls in flight."""

    def __init__(self, places: int, draws: random.Random) -> None:
        super().__init__(places, draws)
        self._in_flight = [0] * places

    def pick(self, now_ns: int, before: Picked | None = None) -> Picked | None:
        """See :class:`Balancer`."""
        first = self._draws.randrange(self._places)
        second = self._draws.randrange(self._places - 1)
        second += second >= first
        chosen = second if self._cost(second, now_ns) < self._cost(first, now_ns) else first
        self._in_flight[chosen] += 1
        return Picked(chosen, now_ns)

    def done(self, picked: Picked, outcome: Outcome, now_ns: int) -> None:
        """See :class:`Balancer`."""
        self._in_flight[picked.place] -= 1

    def _cost(self, place: int, now_ns: int) -> float:
        return self._in_flight[place]


class PeakEwma(LeastInFlight):
    """Of two places drawn at random, choose the one with less latency times calls (Finagle, peak-EWMA)."""

    def __init__(self, places: int, draws: random.Random) -> None:
        super().__init__(places, draws)
        self._latency_ns = [0.0] * places
        self._seen_ns = [0] * places

    def done(self, picked: Picked, outcome: Outcome, now_ns: int) -> None:
        """See :class:`Balancer`."""
        super().done(picked, outcome, now_ns)
        place = picked.place
        old_ns = self._latency_ns[place]
        sample_ns = self._sample(float(now_ns - picked.started_ns), old_ns, outcome)
        if sample_ns <= old_ns:
            weight = math.exp((self._seen_ns[place] - now_ns) / _DECAY_NS)
            sample_ns = old_ns * weight + sample_ns * (1.0 - weight)
        self._latency_ns[place] = sample_ns
        self._seen_ns[place] = now_ns

    def _sample(self, took_ns: float, old_ns: float, outcome: Outcome) -> float:
        return took_ns

    def _cost(self, place: int, now_ns: int) -> float:
        latency_ns = self._latency_ns[place]
        if not latency_ns:
            return _UNKNOWN * self._in_flight[place]
        return latency_ns * math.exp((self._seen_ns[place] - now_ns) / _DECAY_NS) * (self._in_flight[place] + 1)


class PunishingPeakEwma(PeakEwma):
    """Choose like :class:`PeakEwma`, but count a failure as at least a second."""

    def _sample(self, took_ns: float, old_ns: float, outcome: Outcome) -> float:
        return max(took_ns, old_ns, _FAILED_NS) if outcome is Outcome.FAILURE else took_ns


REFERENCES: Final[dict[str, type[RandomChoice]]] = {
    "round robin": RoundRobin,
    "random": RandomChoice,
    "P2C, in flight": LeastInFlight,
    "P2C, peak-EWMA": PeakEwma,
    "P2C, peak-EWMA, error penalty": PunishingPeakEwma,
}
"""The policies that the router is compared with, by name."""
