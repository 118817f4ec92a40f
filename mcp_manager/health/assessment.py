"""What a server is found to be, from what its instances, its calls and its operator say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import exp
from typing import Any, Final

from mcp_manager._core.histogram import WindowSummary
from mcp_manager._core.snapshots import InstanceSnapshot
from mcp_manager.errors import AuthError
from mcp_manager.health.tally import DRAINING, STARTING, UNPROBED
from mcp_manager.health.timing_wheel import Turn
from mcp_manager.pool import Instance
from mcp_manager.supervisor import Supervisor
from mcp_manager.types import CircuitState, ServerState

__all__ = ["PASSING", "Baseline", "Watch", "assess"]

_DEGRADED_FAILURE_RATE: Final = 0.05
_MIN_CALLS: Final = 20
_BASELINE_S: Final = 600.0
_WINDOW_S: Final = 60.0

FAILING_CALLS: Final = "failing calls"
SLOW: Final = "slow"
HALF_OPEN: Final = "circuit half open"
AT_MINIMUM: Final = "limit at its minimum"
EJECTED: Final = "ejected"

PASSING: Final = frozenset({FAILING_CALLS, SLOW, HALF_OPEN, AT_MINIMUM, EJECTED})
"""Reasons that end with calls or with time, of which nobody tells."""


class Watch:
    """What the monitor knows of one instance beside what the router counts."""

    __slots__ = (
        "failures",
        "in_flight",
        "instance",
        "is_awaited",
        "is_spread",
        "looked_ns",
        "proven",
        "recovering",
        "removed",
        "successes",
        "supervisor",
        "turn",
    )

    def __init__(self, supervisor: Supervisor, instance: Instance) -> None:
        self.supervisor = supervisor
        self.instance = instance
        self.turn: Turn[Any] | None = None
        self.failures = 0
        self.successes = 0
        self.looked_ns = 0
        self.proven = False
        self.recovering = False
        self.removed = False
        # Whether it has a place of its own among those that were deployed in the same moment.
        self.is_spread = False
        # Somebody waits for its session, and is the only reason to make it; good for one turn.
        self.is_awaited = False
        self.in_flight: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        """Count a good sign: one is enough at start-up, after a failure it takes ``rise`` of them."""
        self.failures = 0
        self.successes += 1
        health = self.supervisor.config.health
        # Where nothing probes, no second good sign would ever come.
        if not self.recovering or not health.enabled or self.successes >= health.rise:
            self.proven = True
            self.recovering = False

    def failed(self, *, probe: bool) -> None:
        """Count a bad sign; only failed probes count towards ``fall``."""
        self.failures += probe
        self.successes = 0
        self.proven = False
        self.recovering = True

    @property
    def is_scheduled(self) -> bool:
        """Whether it has turns at all: a child process that is gone is started again whatever is probed."""
        config = self.supervisor.config
        is_restarted = config.transport == "stdio" or self.is_awaited
        return config.health.enabled or (is_restarted and self.instance.session is None)

    @property
    def is_untried(self) -> bool:
        """Whether nothing is known of it yet."""
        return self.instance.session is None and self.instance.last_error is None and not self.failures


class Baseline:
    """What the 95th percentile of a server's latencies has long been: a mean over about ten minutes."""

    __slots__ = ("_observed_at", "p95_s")

    def __init__(self) -> None:
        self.p95_s = 0.0
        self._observed_at = 0.0

    def is_exceeded(self, latest: WindowSummary, now: float, factor: float, floor_s: float) -> bool:
        """Compare the latest calls with it, and have them count from now on; few calls say nothing.

        Parameters
        ----------
        now
            Seconds; how often it is asked makes no difference.
        factor, floor_s
            See :class:`~mcp_manager.config.HealthConfig`.
        """
        p95_s = latest.p95_s
        if latest.count < _MIN_CALLS or p95_s is None:
            return False
        if not self.p95_s:
            self.p95_s, self._observed_at = p95_s, now
        is_exceeded = p95_s > factor * self.p95_s and p95_s > floor_s
        # Calls say nothing of the time before the window that they are in.
        share = 1.0 - exp(-min(now - self._observed_at, _WINDOW_S) / _BASELINE_S)
        self.p95_s += share * (p95_s - self.p95_s)
        self._observed_at = now
        return is_exceeded


def assess(
    supervisor: Supervisor,
    watches: Sequence[Watch],
    circuits: Sequence[InstanceSnapshot],
    *,
    now_ns: int,
    is_slow: bool = False,
) -> tuple[ServerState, tuple[str, ...]]:
    """Judge a server from its instances; the first state that fits, worst first.

    Parameters
    ----------
    supervisor
        The server.
    watches, circuits
        What is known of each of its instances, in the same order.
    now_ns
        Of the router's clock.
    is_slow
        Whether its calls take markedly longer than they have long taken.

    Returns
    -------
    The state, and why it is not ``Healthy``.
    """
    if supervisor.in_maintenance:
        return ServerState.MAINTENANCE, ("operator",)
    if supervisor.is_dormant:
        return ServerState.INITIALIZING, (UNPROBED,)
    if not watches:
        return ServerState.STOPPED, ("suspended",)
    if all(watch.is_untried for watch in watches):
        is_starting = any(watch.instance.is_starting for watch in watches)
        return ServerState.INITIALIZING, (STARTING if is_starting else UNPROBED,)
    fall = supervisor.config.health.fall
    reasons: dict[str, None] = {}
    down = 0
    for watch, circuit in zip(watches, circuits, strict=True):
        reason, is_down = _judge(watch, circuit, fall, now_ns)
        down += is_down
        if reason:
            reasons[reason] = None
    if down == len(watches):
        return ServerState.UNHEALTHY, tuple(reasons)
    calls = sum(circuit.window_calls for circuit in circuits)
    failures = sum(circuit.window_failures for circuit in circuits)
    if calls >= _MIN_CALLS and failures >= _DEGRADED_FAILURE_RATE * calls:
        reasons[FAILING_CALLS] = None
    if is_slow:
        reasons[SLOW] = None
    limits = supervisor.config.limits
    if limits.min < limits.max and any(each.limit is not None and each.limit <= limits.min for each in circuits):
        reasons[AT_MINIMUM] = None
    if supervisor.draining:
        reasons[DRAINING] = None
    return (ServerState.DEGRADED if reasons else ServerState.HEALTHY), tuple(reasons)


def _judge(watch: Watch, circuit: InstanceSnapshot, fall: int, now_ns: int) -> tuple[str, bool]:
    """Name what is wrong with an instance, if anything is, and tell whether it can serve at all."""
    if circuit.circuit_state == CircuitState.OPEN:
        return "circuit open", True
    is_refused = isinstance(watch.instance.last_error, AuthError)
    if watch.failures >= fall:
        return "auth failing" if is_refused else "probes failing", True
    if watch.instance.session is None:
        if watch.instance.is_starting:
            return STARTING, False
        if watch.is_untried:
            return UNPROBED, False
        return "auth failing" if is_refused else "not connected", True
    if circuit.circuit_state == CircuitState.HALF_OPEN:
        return HALF_OPEN, False
    if circuit.ejected_until_ns > now_ns:
        return EJECTED, False
    if watch.failures:
        return "auth failing" if is_refused else "probe failed", False
    return ("", False) if watch.proven else ("recovering", False)
