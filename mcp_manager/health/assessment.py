"""What a server is found to be, from what its instances, its calls and its operator say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import exp
from typing import Any, Final

from mcp_manager._core.histogram import WindowSummary
from mcp_manager._core.snapshots import BackendReading
from mcp_manager.config import ServerConfig
from mcp_manager.errors import AuthError
from mcp_manager.health.life_signs import called_until_ns
from mcp_manager.health.silence import Silence
from mcp_manager.health.tally import DRAINING, STARTING, UNPROBED
from mcp_manager.health.timing_wheel import Turn
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import CircuitState, ServerState

__all__ = ["PASSING", "Baseline", "Watch", "assess"]

_DEGRADED_FAILURE_RATE: Final = 0.05
_MIN_CALLS: Final = 20
_BASELINE_S: Final = 600.0
_WINDOW_S: Final = 60.0
# How many calls in a row may be refused, get no answer, and bring no result whatever they are answered; and
# for how long that is held against an instance that is not called any more: what got no answer, for a shorter time.
_REFUSED: Final = 3
_BROKEN: Final = 5
_FRUITLESS: Final = 10
_HELD_AGAINST_NS: Final = 300 * 10**9
_BROKEN_FOR_NS: Final = 60 * 10**9
# How many times longer than its limit a probe may take where no call says whether the server is there.
_PATIENCE: Final = 4.0

FAILING_CALLS: Final = "failing calls"
SLOW: Final = "slow"
HALF_OPEN: Final = "circuit half open"
AT_MINIMUM: Final = "limit at its minimum"
EJECTED: Final = "ejected"
AUTH_FAILING: Final = "auth failing"
PROBE_FAILED: Final = "probe failed"
PROBES_FAILING: Final = "probes failing"
SLOW_PROBE: Final = "slow probe"
FLOODING: Final = "flooding"
RESTARTING: Final = "restarting"

PASSING: Final = frozenset(
    {
        FAILING_CALLS,
        SLOW,
        HALF_OPEN,
        AT_MINIMUM,
        EJECTED,
        AUTH_FAILING,
        PROBE_FAILED,
        PROBES_FAILING,
        SLOW_PROBE,
        FLOODING,
    }
)
"""Reasons that end with calls or with time, of which nobody tells."""


class Watch:
    """What the monitor knows of one instance beside what the router counts.

    ``limit_s`` is how many seconds its next probe may take. ``is_doubted`` tells that its probes fail, or take longer than
    they should, while it answers calls.
    """

    __slots__ = (
        "_failed_ns",
        "_ran_out",
        "_was_busy",
        "failures",
        "in_flight",
        "instance",
        "is_awaited",
        "is_doubted",
        "is_spread",
        "limit_s",
        "looked_ns",
        "proven",
        "recovering",
        "removed",
        "silence",
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
        self.limit_s = instance.template.config.health.timeout_s
        self.silence = Silence()
        self.is_doubted = False
        # When the last probe that failed was sent, and whether that took longer than it might.
        self._failed_ns = 0
        self._ran_out = False
        # It was with a call when a probe ran out.
        self._was_busy = False
        # Whether it has a place of its own among those that were deployed in the same moment.
        self.is_spread = False
        # Somebody waits for its session, and is the only reason to make it; good for one turn.
        self.is_awaited = False
        self.in_flight: asyncio.Task[None] | None = None

    @property
    def config(self) -> ServerConfig:
        """The configuration it was made from; while that of its server is being replaced, the server has the other one."""
        return self.instance.template.config

    def succeeded(self) -> None:
        """Count a good sign: one is enough at start-up, after a failure it takes ``rise`` of them."""
        self.failures = 0
        self.successes += 1
        health = self.config.health
        # Where nothing probes, no second good sign would ever come.
        if not self.recovering or not health.enabled or self.successes >= health.rise:
            self.proven = True
            self.recovering = False

    def failed(self) -> None:
        """Count a bad sign other than a failed probe, which is no step towards ``fall``."""
        self.successes = 0
        self.proven = False
        self.recovering = True

    def probe_answered(self, took_s: float) -> None:
        """Count a probe that was answered, within its limit or that of a slow one."""
        timeout_s = self.config.health.timeout_s
        self.is_doubted = self._ran_out = took_s > timeout_s
        if not self.is_doubted:
            self.limit_s = timeout_s
        self.succeeded()

    def probe_begins(self, now_ns: int) -> None:
        """Give a probe no more than its usual time once the call is over that left earlier ones without an answer."""
        if self._was_busy and called_until_ns(self.instance) <= now_ns:
            self._was_busy = False
            self.limit_s = self.config.health.timeout_s

    def probe_failed(self, sent_ns: int, *, ran_out: bool, was_busy: bool = False) -> None:
        """Count a probe that failed, because it ran out of time, of a program ``was_busy`` with a call, or otherwise."""
        self._was_busy = self._was_busy or (ran_out and was_busy)
        self.failed()
        self.failures += 1
        self._failed_ns = sent_ns
        self._ran_out = ran_out
        if ran_out and self.failures >= self.config.health.fall:
            # Whether it is dead or slow, no call tells, as it gets none.
            self._allow(_PATIENCE * self.config.health.timeout_s)

    def heard(self, answered_ns: int) -> None:
        """Learn when the instance last answered a call: if that was after the last failed probe was sent, it is alive.

        Then it is the probe that is in doubt; one that ran out is given more time.
        """
        if not self.failures or answered_ns < self._failed_ns:
            return
        self.failures = 0
        self.proven = True
        self.recovering = False
        self.is_doubted = True
        if self._ran_out:
            self._allow(self.config.request_timeout_s)

    def replaced(self) -> None:
        """Hold nothing that its process did not answer against the next one."""
        self.failures = 0
        self.is_doubted = self._ran_out = self._was_busy = False
        self.limit_s = self.config.health.timeout_s

    @property
    def is_child(self) -> bool:
        """Whether it is a program of ours."""
        return self.config.transport == "stdio"

    @property
    def doubt(self) -> str:
        """Why its probes are in doubt, ``""`` if they are not."""
        return (SLOW_PROBE if self._ran_out else PROBE_FAILED) if self.is_doubted else ""

    def _allow(self, longest_s: float) -> None:
        """Give the next probe twice the time, up to ``longest_s``."""
        self.limit_s = max(min(2.0 * self.limit_s, longest_s), self.limit_s)

    @property
    def is_scheduled(self) -> bool:
        """Whether it has turns at all: a child process that is gone is started again whatever is probed."""
        is_restarted = self.is_child or self.is_awaited
        return self.config.health.enabled or (is_restarted and self.instance.session is None)

    @property
    def is_untried(self) -> bool:
        """Whether nothing is known of it yet."""
        instance = self.instance
        has_failed = instance.last_error is not None and not instance.last_error.is_local
        return instance.session is None and not has_failed and not self.failures

    @property
    def is_hindered(self) -> bool:
        """Whether it has no session for what this side lacks, which says nothing of the server."""
        error = self.instance.last_error
        return self.instance.session is None and error is not None and error.is_local


class Baseline:
    """What the 95th percentile of a server's latencies has long been: a mean over about ten minutes."""

    __slots__ = ("_is_exceeded", "_observed_at", "p95_s")

    def __init__(self) -> None:
        self.p95_s = 0.0
        self._is_exceeded = False
        self._observed_at = 0.0

    def is_exceeded(self, latest: WindowSummary, now: float, factor: float, floor_s: float) -> bool:
        """Compare the latest calls with it, and have them count from now on; few calls say nothing.

        As older calls leave the window, those that are left may look slow, without any news. So it begins only with calls
        of the newest part that are slow; it ends as soon as the window says so.

        Parameters
        ----------
        now
            Seconds; how often it is asked makes no difference.
        factor, floor_s
            See :class:`~mcp_manager.config.HealthConfig`.
        """
        p95_s = latest.p95_s
        if latest.count < _MIN_CALLS or p95_s is None:
            self._is_exceeded = False
            return False
        if not self.p95_s:
            self.p95_s, self._observed_at = p95_s, now
        longest_s = max(factor * self.p95_s, floor_s)
        is_news = self._is_exceeded or (latest.newest_p95_s is not None and latest.newest_p95_s > longest_s)
        self._is_exceeded = p95_s > longest_s and is_news
        # Calls say nothing of the time before the window that they are in.
        share = 1.0 - exp(-min(now - self._observed_at, _WINDOW_S) / _BASELINE_S)
        self.p95_s += share * (p95_s - self.p95_s)
        self._observed_at = now
        return self._is_exceeded


def assess(
    supervisor: Supervisor,
    watches: Sequence[Watch],
    circuits: Sequence[BackendReading],
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
    if any(watch.instance.template.is_flooding for watch in watches):
        reasons[FLOODING] = None
    if supervisor.draining:
        reasons[DRAINING] = None
    return (ServerState.DEGRADED if reasons else ServerState.HEALTHY), tuple(reasons)


def _judge(watch: Watch, circuit: BackendReading, fall: int, now_ns: int) -> tuple[str, bool]:
    """Name what is wrong with an instance, if anything is, and tell whether it can serve at all."""
    if watch.instance.restarts_in_s:
        return RESTARTING, True
    if circuit.circuit_state == CircuitState.OPEN:
        return "circuit open", True
    is_refused = isinstance(watch.instance.last_error, AuthError)
    if watch.failures >= fall:
        return AUTH_FAILING if is_refused else PROBES_FAILING, True
    if watch.instance.session is None:
        if watch.instance.is_starting:
            return STARTING, False
        if watch.is_untried or watch.is_hindered:
            return UNPROBED, False
        return AUTH_FAILING if is_refused else "not connected", True
    if circuit.circuit_state == CircuitState.HALF_OPEN:
        return HALF_OPEN, False
    if circuit.ejected_until_ns > now_ns:
        return EJECTED, False
    if watch.failures:
        return AUTH_FAILING if is_refused else PROBE_FAILED, False
    if _is_fruitless(circuit, now_ns):
        return FAILING_CALLS, False
    if watch.is_doubted:
        return watch.doubt, False
    return ("", False) if watch.proven else ("recovering", False)


def _is_fruitless(circuit: BackendReading, now_ns: int) -> bool:
    """Tell whether none of its latest calls brought a result, whatever it answered to them and to probes."""
    age_ns = now_ns - circuit.last_fruitless_ns
    if age_ns <= _BROKEN_FOR_NS and circuit.broken >= _BROKEN:
        return True
    return age_ns <= _HELD_AGAINST_NS and (circuit.refused >= _REFUSED or circuit.fruitless >= _FRUITLESS)
