"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

__all__ = ["BreakerFields", "HealthFields", "RestartFields"]


class BreakerFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.BreakerConfig`, as keyword arguments or as a mapping."""

    enabled: bool
    """``False`` turns the breaker off: it lets every call pass. Default: ``True``."""
    window_s: float
    """Length of the sliding window in seconds, above 0. Default: ``10.0``."""
    min_calls: int
    """Below this number of calls in the window, neither rate opens the circuit. Default: ``20``."""
    failure_rate: float
    """Shares of calls, above 0 and at most 1. Default: ``0.5``."""
    consecutive_failures: int
    """Failures in a row that open the circuit. Default: ``5``."""
    slow_call_s: float
    """Duration in seconds from which a call counts as slow; 0 turns this off. Default: ``0.0``."""
    slow_rate: float
    """Shares of calls, above 0 and at most 1. Default: ``0.8``."""
    open_s: float
    """Seconds the circuit stays open the first time. The time doubles with every trip, up to ``open_max_s``. Default:
    ``5.0``.
    """
    open_max_s: float
    """Seconds the circuit stays open the first time. The time doubles with every trip, up to ``open_max_s``. Default:
    ``300.0``.
    """
    jitter: float
    """Random spread of the open time, from 0 to below 1: 0.2 is ±20 %. Default: ``0.2``."""
    trip_decay_s: float
    """Seconds of closed circuit that undo one doubling. Default: ``30.0``."""
    half_open_permits: int
    """Trial calls allowed at a time while the circuit is half-open. Default: ``1``."""
    half_open_successes: int
    """Trial calls that must succeed before the circuit closes. Default: ``2``."""
    probe_ttl_s: float
    """Seconds after which an unanswered trial call counts as failed. Default: ``30.0``."""
    active_first: bool
    """Reserve the first trial call for a health probe, for up to ``probe_grace_s`` seconds. Default: ``True``."""
    probe_grace_s: float
    """See ``active_first``. Default: ``2.0``."""
    timeout_floor_s: float
    """A timeout after less than this many seconds does not count against the server: the caller's deadline was short.
    Default: ``1.0``.
    """
    rpc_errors: Sequence[int]
    """Codes of JSON-RPC errors that count as failures of the server, at most 64, such as ``(-32603,)``. Empty by
    default: a server that answers is alive, and many servers answer one caller's bad arguments with -32603.
    """


class HealthFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.HealthConfig`, as keyword arguments or as a mapping."""

    enabled: bool
    """``False`` sends no probes: calls alone decide the state. Default: ``True``."""
    interval_s: float
    """Seconds between probes of a healthy instance. Default: ``30.0``."""
    unhealthy_interval_s: float
    """Seconds before the next probe of an unhealthy instance, doubling up to the maximum. Default: ``5.0``."""
    unhealthy_interval_max_s: float
    """Seconds before the next probe of an unhealthy instance, doubling up to the maximum. Default: ``60.0``."""
    timeout_s: float
    """Seconds a probe may take. If a probe times out while calls are answered, the instance is only slow: the next
    probes get twice the time each, up to the server's ``request_timeout_s``, and the server is Degraded (``slow
    probe``) meanwhile. Default: ``5.0``.
    """
    fall: int
    """Failed probes in a row, without an answered call in between, that make an instance unhealthy, and successful
    probes in a row that make it healthy again. Any answer counts as a success, even an error; only refused credentials
    do not. Default: ``3``.
    """
    rise: int
    """Failed probes in a row, without an answered call in between, that make an instance unhealthy, and successful
    probes in a row that make it healthy again. Any answer counts as a success, even an error; only refused credentials
    do not. Default: ``2``.
    """
    jitter: float
    """Random spread of the intervals, from 0 to below 1: 0.1 is ±10 %. Default: ``0.1``."""
    idle_interval_s: float | None
    """Seconds between probes of a healthy instance that received no call since the last probe; ``None`` for twice
    ``interval_s``.
    """
    slow_factor: float
    """A server is Degraded (``slow``) while the p95 of its calls in the last minute exceeds both ``slow_factor`` times
    its average over about ten minutes and ``slow_floor_s`` seconds. Default: ``3.0``.
    """
    slow_floor_s: float
    """A server is Degraded (``slow``) while the p95 of its calls in the last minute exceeds both ``slow_factor`` times
    its average over about ten minutes and ``slow_floor_s`` seconds. Default: ``0.1``.
    """
    settle_s: float
    """Seconds without a problem before a server that was Unhealthy or Degraded is shown as Healthy; until then it is
    Degraded. A worse state is shown at once. A server that was new, or Degraded only because an instance drained,
    becomes Healthy at once. Default: ``10.0``.
    """
    outliers: bool
    """Eject instances whose calls fail much more often than those of the others: success rate more than 1.9 standard
    deviations below the mean, among at least five instances with at least 100 calls each within ``breaker.window_s``.
    The check runs every 10 s. An ejection lasts 30 s times the number of ejections in a row, at most 300 s. Default:
    ``False``.
    """


class RestartFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.RestartConfig`, as keyword arguments or as a mapping."""

    initial_s: float
    """Seconds before the first attempt. The delay doubles with every failure up to ``max_s``; attempts never stop.
    Default: ``1.0``.
    """
    max_s: float
    """Seconds before the first attempt. The delay doubles with every failure up to ``max_s``; attempts never stop.
    Default: ``60.0``.
    """
    jitter: float
    """Random spread of the delay, from 0 to below 1: 0.2 is ±20 %. Default: ``0.2``."""
    stable_after_s: float
    """Seconds a process or connection must last for the delay to start over from ``initial_s``. Default: ``30.0``."""
    on_hang: bool
    """Kill a child process that hangs, together with everything it started, and restart it. A process hangs if it left
    ``health.fall`` probes in a row unanswered while no call to it was within its deadline. Any message on its standard
    output is a sign of life; output on its standard error is not. Default: ``True``.
    """
