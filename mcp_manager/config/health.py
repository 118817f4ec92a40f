"""The configuration of probes, circuit breakers and restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Unpack

from msgspec import Meta

from mcp_manager.config._struct import Count, Jitter, PositiveSeconds, Rate, RpcCode, Seconds, Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.health import BreakerFields, HealthFields, RestartFields

__all__ = ["BreakerConfig", "HealthConfig", "RestartConfig"]


class BreakerConfig(Settings, frozen=True, kw_only=True):
    """Configure when an instance's circuit breaker opens and how it closes again.

    It opens when ``consecutive_failures`` calls in a row failed, or when at least ``min_calls`` calls ended within
    ``window_s`` and the share that failed reaches ``failure_rate`` or the share that was slow reaches ``slow_rate``.

    Parameters
    ----------
    enabled
        ``False`` turns the breaker off: it lets every call pass.
    window_s
        Length of the sliding window in seconds, above 0.
    min_calls
        Below this number of calls in the window, neither rate opens the circuit.
    failure_rate, slow_rate
        Shares of calls, above 0 and at most 1.
    consecutive_failures
        Failures in a row that open the circuit.
    slow_call_s
        Duration in seconds from which a call counts as slow; 0 turns this off.
    open_s, open_max_s
        Seconds the circuit stays open the first time. The time doubles with every trip, up to ``open_max_s``.
    jitter
        Random spread of the open time, from 0 to below 1: 0.2 is ±20 %.
    trip_decay_s
        Seconds of closed circuit that undo one doubling.
    half_open_permits
        Trial calls allowed at a time while the circuit is half-open.
    half_open_successes
        Trial calls that must succeed before the circuit closes.
    probe_ttl_s
        Seconds after which an unanswered trial call counts as failed.
    active_first
        Reserve the first trial call for a health probe, for up to ``probe_grace_s`` seconds.
    probe_grace_s
        See ``active_first``.
    timeout_floor_s
        A timeout after less than this many seconds does not count against the server: the caller's deadline was short.
    rpc_errors
        Codes of JSON-RPC errors that count as failures of the server, at most 64, such as ``(-32603,)``. Empty by
        default: a server that answers is alive, and many servers answer one caller's bad arguments with -32603.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[BreakerFields]) -> None: ...

    enabled: bool = True
    window_s: PositiveSeconds = 10.0
    min_calls: Count = 20
    failure_rate: Rate = 0.5
    consecutive_failures: Count = 5
    slow_call_s: Seconds = 0.0
    slow_rate: Rate = 0.8
    open_s: PositiveSeconds = 5.0
    open_max_s: PositiveSeconds = 300.0
    jitter: Jitter = 0.2
    trip_decay_s: PositiveSeconds = 30.0
    half_open_permits: Count = 1
    half_open_successes: Count = 2
    probe_ttl_s: PositiveSeconds = 30.0
    active_first: bool = True
    probe_grace_s: Seconds = 2.0
    timeout_floor_s: Seconds = 1.0
    rpc_errors: Annotated[tuple[RpcCode, ...], Meta(max_length=64)] = ()


class HealthConfig(Settings, frozen=True, kw_only=True):
    """Configure how often a server is probed and how many results change its state.

    Parameters
    ----------
    enabled
        ``False`` sends no probes: calls alone decide the state.
    interval_s
        Seconds between probes of a healthy instance.
    unhealthy_interval_s, unhealthy_interval_max_s
        Seconds before the next probe of an unhealthy instance, doubling up to the maximum.
    timeout_s
        Seconds a probe may take. If a probe times out while calls are answered, the instance is only slow: the next
        probes get twice the time each, up to the server's ``request_timeout_s``, and the server is Degraded
        (``slow probe``) meanwhile.
    fall, rise
        Failed probes in a row, without an answered call in between, that make an instance unhealthy, and successful
        probes in a row that make it healthy again. Any answer counts as a success, even an error; only refused
        credentials do not.
    jitter
        Random spread of the intervals, from 0 to below 1: 0.1 is ±10 %.
    idle_interval_s
        Seconds between probes of a healthy instance that received no call since the last probe; ``None`` for twice
        ``interval_s``.
    slow_factor, slow_floor_s
        A server is Degraded (``slow``) while the p95 of its calls in the last minute exceeds both ``slow_factor`` times
        its average over about ten minutes and ``slow_floor_s`` seconds.
    settle_s
        Seconds without a problem before a server that was Unhealthy or Degraded is shown as Healthy; until then it is
        Degraded. A worse state is shown at once. A server that was new, or Degraded only because an instance drained,
        becomes Healthy at once.
    outliers
        Eject instances whose calls fail much more often than those of the others: success rate more than 1.9 standard
        deviations below the mean, among at least five instances with at least 100 calls each within
        ``breaker.window_s``. The check runs every 10 s. An ejection lasts 30 s times the number of ejections in a row,
        at most 300 s.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[HealthFields]) -> None: ...

    enabled: bool = True
    interval_s: PositiveSeconds = 30.0
    unhealthy_interval_s: PositiveSeconds = 5.0
    unhealthy_interval_max_s: PositiveSeconds = 60.0
    timeout_s: PositiveSeconds = 5.0
    fall: Count = 3
    rise: Count = 2
    jitter: Jitter = 0.1
    idle_interval_s: PositiveSeconds | None = None
    slow_factor: Annotated[float, Meta(gt=1.0, le=1e6)] = 3.0
    slow_floor_s: Seconds = 0.1
    settle_s: Seconds = 10.0
    outliers: bool = False

    @property
    def idle_s(self) -> float:
        """``idle_interval_s``, or its default of twice ``interval_s``."""
        return self.idle_interval_s if self.idle_interval_s is not None else 2 * self.interval_s


class RestartConfig(Settings, frozen=True, kw_only=True):
    """Configure the backoff before a child process is restarted or a lost connection is opened again.

    Parameters
    ----------
    initial_s, max_s
        Seconds before the first attempt. The delay doubles with every failure up to ``max_s``; attempts never stop.
    jitter
        Random spread of the delay, from 0 to below 1: 0.2 is ±20 %.
    stable_after_s
        Seconds a process or connection must last for the delay to start over from ``initial_s``.
    on_hang
        Kill a child process that hangs, together with everything it started, and restart it. A process hangs if it left
        ``health.fall`` probes in a row unanswered while no call to it was within its deadline. Any message on its
        standard output is a sign of life; output on its standard error is not.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[RestartFields]) -> None: ...

    initial_s: PositiveSeconds = 1.0
    max_s: PositiveSeconds = 60.0
    jitter: Jitter = 0.2
    stable_after_s: PositiveSeconds = 30.0
    on_hang: bool = True
