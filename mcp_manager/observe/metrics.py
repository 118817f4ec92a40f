"""Prometheus metrics, built from the core's snapshots at each scrape: no call is counted a second time for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mcp_manager._core.router import Router
from mcp_manager._core.snapshots import ServerCounts
from mcp_manager.calls.recovery_counts import Recoveries, Recovery
from mcp_manager.health.readiness import ready_count
from mcp_manager.observe.views import circuit_of
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.runtime.read_budget import FLOOD
from mcp_manager.servers.supervisor import RestartCause, Supervisor
from mcp_manager.types import CallStatus, CircuitState

if TYPE_CHECKING:
    from mcp_manager.transports.http.connections.pool import HttpPool

__all__ = ["Scraped", "render", "scrape"]

_STATUS_LABELS = tuple(status.label for status in CallStatus)


class Scraped(msgspec.Struct, frozen=True, kw_only=True):
    """One server at the moment of a scrape.

    Attributes
    ----------
    counts
        What the router counts for it.
    circuit
        The state of its circuits as one.
    desired, ready, draining
        How many instances it should have, have a session, and drain.
    ejected
        How many instances are ejected as outliers.
    limit
        The sum of the concurrency limits of the instances that have one; ``None`` if none has.
    open_connections
        Its open connections, or child processes for stdio.
    recoveries, restarts
        Retries, hedges and fallbacks by kind, and restarts of child processes by cause.
    floods
        How often reading from it was behind for a full second.
    """

    counts: ServerCounts
    circuit: CircuitState
    desired: int
    ready: int
    draining: int
    ejected: int
    limit: int | None
    open_connections: int
    recoveries: Mapping[Recovery, int]
    restarts: Mapping[RestartCause, int] = msgspec.field(default_factory=dict)
    floods: int = 0


class _FleetCollector(Collector):
    def __init__(self, readings: Sequence[Scraped], lag: LoopLag) -> None:
        self._readings = readings
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        yield self._requests()
        yield self._response_times()
        yield self._health_checks()
        yield from self._recoveries()
        yield self._restarts()
        yield self._floods()
        yield from self._gauges()
        yield from self._fleet()
        yield self._loop_lag()

    def _loop_lag(self) -> Metric:
        family = HistogramMetricFamily(
            "mcp_loop_lag_seconds", "Lag of the event loop, measured twice a second", labels=()
        )
        counts, total, sum_s = self._lag.histogram()
        family.add_metric((), [*((_bound(bound), count) for bound, count in counts), ("+Inf", total)], sum_s)
        return family

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            "mcp_requests", "Completed calls by method and status", labels=("server_id", "method", "status")
        )
        for reading in self._readings:
            for method in reading.counts.methods:
                for label, count in zip(_STATUS_LABELS, method.counts, strict=True):
                    if count:
                        family.add_metric((reading.counts.server_id, method.method, label), count)
        return family

    def _response_times(self) -> Metric:
        family = HistogramMetricFamily(
            "mcp_response_time_seconds",
            "Time from picking an instance to the end of the attempt, including a resend on a new session",
            labels=("server_id", "method"),
        )
        for reading in self._readings:
            for method in reading.counts.methods:
                buckets = [(_bound(bound), count) for bound, count in method.buckets]
                buckets.append(("+Inf", method.count))
                family.add_metric((reading.counts.server_id, method.method), buckets, method.sum_s)
        return family

    def _health_checks(self) -> Metric:
        family = CounterMetricFamily(
            "mcp_health_checks", "Completed health probes by result", labels=("server_id", "result")
        )
        for reading in self._readings:
            server_id = reading.counts.server_id
            family.add_metric((server_id, "success"), reading.counts.health_successes)
            family.add_metric((server_id, "failure"), reading.counts.health_failures)
        return family

    def _recoveries(self) -> Iterable[Metric]:
        """Count what calls took beyond their first attempts: alert on these before callers see failures."""
        retries = CounterMetricFamily(
            "mcp_retries", "Attempts after one that failed, or on a new session", labels=("server_id",)
        )
        hedges = CounterMetricFamily(
            "mcp_hedges", "Additional attempts, on another instance, of calls that took long", labels=("server_id",)
        )
        fallbacks = CounterMetricFamily(
            "mcp_fallbacks", "Fallback answers to calls that no attempt answered", labels=("server_id", "source")
        )
        for reading in self._readings:
            server_id = reading.counts.server_id
            for recovery, count in reading.recoveries.items():
                if recovery == "retry":
                    retries.add_metric((server_id,), count)
                elif recovery == "hedge":
                    hedges.add_metric((server_id,), count)
                else:
                    fallbacks.add_metric((server_id, recovery), count)
        return retries, hedges, fallbacks

    def _restarts(self) -> Metric:
        family = CounterMetricFamily(
            "mcp_child_restarts",
            "Restarts of child processes that ended, or that were killed because they did not answer",
            labels=("server_id", "cause"),
        )
        for reading in self._readings:
            for cause, count in reading.restarts.items():
                family.add_metric((reading.counts.server_id, cause), count)
        return family

    def _floods(self) -> Metric:
        family = CounterMetricFamily(
            "mcp_floods",
            "Times that a server sent so much that reading from it was behind for a full second",
            labels=("server_id",),
        )
        for reading in self._readings:
            if reading.floods:
                family.add_metric((reading.counts.server_id,), reading.floods)
        return family

    def _fleet(self) -> Iterable[Metric]:
        instances = GaugeMetricFamily(
            "mcp_instances", "Instances by state: desired, connected (ready), draining", labels=("server_id", "state")
        )
        ejected = _gauge("mcp_ejected_instances", "Instances ejected because they failed more often than the others")
        waiting = _gauge("mcp_waiting_calls", "Calls that wait because a limit is reached")
        limit = _gauge(
            "mcp_concurrency_limit", "Calls that the instances take at a time; absent while nothing limits them"
        )
        for reading in self._readings:
            server_id = reading.counts.server_id
            label = (server_id,)
            instances.add_metric((server_id, "desired"), reading.desired)
            instances.add_metric((server_id, "ready"), reading.ready)
            instances.add_metric((server_id, "draining"), reading.draining)
            ejected.add_metric(label, reading.ejected)
            waiting.add_metric(label, reading.counts.waiting)
            if reading.limit is not None:
                limit.add_metric(label, reading.limit)
        return instances, ejected, waiting, limit

    def _gauges(self) -> Iterable[Metric]:
        active = _gauge("mcp_active_connections", "Calls under way")
        pool = GaugeMetricFamily(
            "mcp_connection_pool_size",
            "Connections open to the server (child processes for stdio), in use or idle",
            labels=("server_id", "state"),
        )
        breaker = _gauge("mcp_circuit_breaker_state", "State of the circuit breaker: 0 closed, 1 open, 2 half open")
        availability = _gauge("mcp_server_availability", "Share of the desired instances that are connected")
        error_rate = _gauge("mcp_error_rate", "Share of the calls of the last minute that failed")
        for reading in self._readings:
            counts = reading.counts
            label = (counts.server_id,)
            active.add_metric(label, counts.inflight)
            busy = min(counts.inflight, reading.open_connections)
            pool.add_metric((counts.server_id, "active"), busy)
            pool.add_metric((counts.server_id, "idle"), reading.open_connections - busy)
            breaker.add_metric(label, reading.circuit)
            availability.add_metric(label, reading.ready / reading.desired if reading.desired else 0.0)
            calls = counts.window_calls
            error_rate.add_metric(label, counts.window_failures / calls if calls else 0.0)
        return active, pool, breaker, availability, error_rate


def scrape(supervisor: Supervisor, router: Router, http: HttpPool, recoveries: Recoveries, now_ns: int) -> Scraped:
    """Read one server for the metrics; ``now_ns`` is monotonic time."""
    counts = router.server_counts(supervisor.server_id, now_ns)
    limits = [each.limit for each in counts.backends if each.limit is not None]
    ready = ready_count(supervisor)
    is_http = supervisor.config.transport != "stdio"
    return Scraped(
        counts=counts,
        circuit=circuit_of(supervisor, router, now_ns),
        desired=supervisor.desired,
        ready=ready,
        draining=supervisor.draining,
        ejected=sum(each.ejected_until_ns > now_ns for each in counts.backends),
        limit=sum(limits) if limits else None,
        open_connections=http.clients.open_connections(supervisor.server_id) if is_http else ready,
        recoveries=dict(recoveries.of(supervisor.server_id)),
        restarts=dict(supervisor.restarts or {}),
        floods=supervisor.template.fault_counts.get(FLOOD, 0),
    )


def render(readings: Sequence[Scraped], lag: LoopLag) -> str:
    """Return all metrics of these servers in the Prometheus text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_FleetCollector(readings, lag))
    return generate_latest(registry).decode("utf-8")


def _gauge(name: str, documentation: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, labels=("server_id",))


def _bound(seconds: float) -> str:
    return repr(float(seconds))
