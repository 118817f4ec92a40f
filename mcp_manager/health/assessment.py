"""Assesses the state of a server from its instances, its calls and the operator's decisions."""

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

__all__ = ["PASSING", "RECOVERING", "Baseline", "Watch", "assess"]

_DEGRADED_FAILURE_RATE: Final = 0.05
_MIN_CALLS: Final = 20
_BASELINE_S: Final = 600.0
_WINDOW_S: Final = 60.0
# How many calls in a row must be refused, unanswered, or without a result before an instance counts as failing; and how
# long that counts against an instance that gets no more calls, less if they were unanswered.
_REFUSED: Final = 3
_BROKEN: Final = 5
_FRUITLESS: Final = 10
_HELD_AGAINST_NS: Final = 300 * 10**9
_BROKEN_FOR_NS: Final = 60 * 10**9
# How many times its timeout a probe may take when no call shows whether the server is alive.
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
RECOVERING: Final = "recovering"

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
"""Reasons that calls or time may end without any event: servers with one of them are reviewed regularly."""


class Watch:
    """The monitor's record of an instance, in addition to what the router counts.

    Attributes
    ----------
    limit_s
        How many seconds its next probe may take.
    is_doubted
        Whether its probes fail, or take too long, while it answers calls.
    is_awaited
        Whether its session is made only because somebody waits for it; reset after one turn.
    circuit
        The state and the generation of its circuit that were told last; only :mod:`.transitions` changes them.
    """

    __slots__ = (
        "_failed_ns",
        "_ran_out",
        "_was_busy",
        "circuit",
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
        self.supervisor: Supervisor = supervisor
        self.instance: Instance = instance
        self.turn: Turn[Any] | None = None
        self.circuit: tuple[CircuitState, int] = (CircuitState.CLOSED, 1)
        self.failures: int = 0
        self.successes: int = 0
        self.looked_ns: int = 0
        self.proven: bool = False
        self.recovering: bool = False
        self.removed: bool = False
        self.limit_s: float = instance.template.config.health.timeout_s
        self.silence: Silence = Silence()
        self.is_doubted: bool = False
        # When the last failed probe was sent, and whether the last probe took too long.
        self._failed_ns = 0
        self._ran_out = False
        # Whether it was busy with a call when a probe timed out.
        self._was_busy = False
        # Whether its probes are spread out from those of instances that were deployed at the same time.
        self.is_spread: bool = False
        self.is_awaited: bool = False
        self.in_flight: asyncio.Task[None] | None = None

    @property
    def config(self) -> ServerConfig:
        """The configuration that it was made from; its server may have a newer one while that is rolled out."""
        return self.instance.template.config

    def settings_changed(self) -> None:
        """Let the next probe take as long as the settings now say, and spread the probes again."""
        self.limit_s = self.config.health.timeout_s
        self.is_spread = False

    def succeeded(self) -> None:
        """Count a sign of life: one is enough at start-up; after a failure it takes ``rise`` of them."""
        self.failures = 0
        self.successes += 1
        health = self.config.health
        # Without probes, a second sign of life might never come.
        if not self.recovering or not health.enabled or self.successes >= health.rise:
            self.proven = True
            self.recovering = False

    def failed(self) -> None:
        """Count a failure that is not a failed probe; it does not count towards ``fall``."""
        self.successes = 0
        self.proven = False
        self.recovering = True

    def probe_answered(self, took_s: float) -> None:
        """Count an answered probe; one that took longer than ``timeout_s`` leaves the probes in doubt."""
        timeout_s = self.config.health.timeout_s
        self.is_doubted = self._ran_out = took_s > timeout_s
        if not self.is_doubted:
            self.limit_s = timeout_s
        self.succeeded()

    def probe_begins(self, now_ns: int) -> None:
        """Reset the time limit of probes once the call has ended that kept earlier probes from being answered."""
        if self._was_busy and called_until_ns(self.instance) <= now_ns:
            self._was_busy = False
            self.limit_s = self.config.health.timeout_s

    def probe_failed(self, sent_ns: int, *, ran_out: bool, was_busy: bool = False) -> None:
        """Count a failed probe.

        Parameters
        ----------
        sent_ns
            When it was sent.
        ran_out
            Whether it timed out.
        was_busy
            Whether the program was busy with a call meanwhile.
        """
        self._was_busy = self._was_busy or (ran_out and was_busy)
        self.failed()
        self.failures += 1
        self._failed_ns = sent_ns
        self._ran_out = ran_out
        if ran_out and self.failures >= self.config.health.fall:
            # It gets no calls any more that could show whether it is dead or only slow.
            self._allow(_PATIENCE * self.config.health.timeout_s)

    def heard(self, answered_ns: int) -> None:
        """Learn when the instance last answered a call.

        If that was after the last failed probe was sent, the instance is alive, and its probes are in doubt; if they
        timed out, they get more time.
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
        """Reset the failures of its process: the next process starts without them."""
        self.failures = 0
        self.is_doubted = self._ran_out = self._was_busy = False
        self.limit_s = self.config.health.timeout_s

    @property
    def is_child(self) -> bool:
        """Whether the manager itself starts it: as a child process, or in memory."""
        return self.config.runs_here

    @property
    def doubt(self) -> str:
        """Why its probes are in doubt; ``""`` if they are not."""
        return (SLOW_PROBE if self._ran_out else PROBE_FAILED) if self.is_doubted else ""

    def _allow(self, longest_s: float) -> None:
        """Double the time limit of the next probe, up to ``longest_s``."""
        self.limit_s = max(min(2.0 * self.limit_s, longest_s), self.limit_s)

    @property
    def is_scheduled(self) -> bool:
        """Whether it has turns: without probes, only to restart its child process or to make an awaited session."""
        is_restarted = self.is_child or self.is_awaited
        return self.config.health.enabled or (is_restarted and self.instance.session is None)

    @property
    def is_untried(self) -> bool:
        """Whether nothing is known about it yet."""
        instance = self.instance
        has_failed = instance.last_error is not None and not instance.last_error.is_local
        return instance.session is None and not has_failed and not self.failures

    @property
    def is_hindered(self) -> bool:
        """Whether it has no session for a local reason, such as no free connection, which is not the server's fault."""
        error = self.instance.last_error
        return self.instance.session is None and error is not None and error.is_local


class Baseline:
    """The long-term 95th percentile of a server's latencies: an average over about ten minutes."""

    __slots__ = ("_is_exceeded", "_observed_at", "p95_s")

    def __init__(self) -> None:
        self.p95_s: float = 0.0
        self._is_exceeded = False
        self._observed_at = 0.0

    def is_exceeded(self, latest: WindowSummary, now: float, factor: float, floor_s: float) -> bool:
        """Return whether the latest calls are too slow, and add them to the baseline; too few calls are ignored.

        When older calls leave the window, the rest may look slow although nothing has changed. So calls become too slow
        only if those of the newest epoch are slow as well; they stop being so as soon as the whole window is fast
        enough.

        Parameters
        ----------
        latest
            A summary of the server's latest calls.
        now
            Seconds of a monotonic clock; how often this is called makes no difference.
        factor, floor_s
            ``slow_factor`` and ``slow_floor_s`` of :class:`~mcp_manager.config.HealthConfig`.
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
        # The calls of a window represent no more time than the window has.
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
    """Determine the state of a server from its instances.

    Parameters
    ----------
    supervisor
        The server.
    watches, circuits
        What is known about each of its instances, in the same order.
    now_ns
        The time of the router's clock.
    is_slow
        Whether its calls take much longer than they have in the long term.

    Returns
    -------
    The state, and the reasons why it is not ``Healthy``.
    """
    if supervisor.in_maintenance:
        return ServerState.MAINTENANCE, ("operator",)
    if supervisor.is_inactive:
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
    """Return what is wrong with an instance, ``""`` for nothing, and whether it cannot serve at all."""
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
    return ("", False) if watch.proven else (RECOVERING, False)


def _is_fruitless(circuit: BackendReading, now_ns: int) -> bool:
    """Return whether none of its latest calls brought a result, even if it answers them and its probes."""
    age_ns = now_ns - circuit.last_fruitless_ns
    if age_ns <= _BROKEN_FOR_NS and circuit.broken >= _BROKEN:
        return True
    return age_ns <= _HELD_AGAINST_NS and (circuit.refused >= _REFUSED or circuit.fruitless >= _FRUITLESS)
