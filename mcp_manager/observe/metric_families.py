"""The families of the metrics, and which value of a server is a sample of which family."""

from __future__ import annotations

from typing import Final, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from mcp_manager.types import ServerState

__all__ = ["CREATED_KINDS", "FAMILIES", "STATE_NUMBERS", "VALUES", "Family", "names_of"]

FamilyKind = type[CounterMetricFamily] | type[GaugeMetricFamily] | type[HistogramMetricFamily] | type[InfoMetricFamily]
_COUNTER: Final = CounterMetricFamily
_GAUGE: Final = GaugeMetricFamily
_HISTOGRAM: Final = HistogramMetricFamily

CREATED_KINDS: Final = (CounterMetricFamily, HistogramMetricFamily)
"""The kinds of families whose series tell when they were created."""


class Family(NamedTuple):
    """One family; ``labels`` in the order of its label values."""

    kind: FamilyKind
    name: str
    documentation: str
    labels: tuple[str, ...]

    def empty(self) -> Metric:
        """Return the family without samples."""
        return self.kind(self.name, self.documentation, labels=self.labels)


_PER_SERVER: Final = ("server_id",)

FAMILIES: Final = (
    Family(_COUNTER, "mcp_requests", "Completed calls by method and status", ("server_id", "method", "status")),
    Family(
        _HISTOGRAM,
        "mcp_response_time_seconds",
        "Time from picking an instance to the end of the attempt, including a resend on a new session",
        ("server_id", "method"),
    ),
    Family(
        _COUNTER,
        "mcp_tool_calls",
        "Completed tools/call by tool and status, of the tools that were used most recently",
        ("server_id", "tool", "status"),
    ),
    Family(
        _HISTOGRAM,
        "mcp_tool_response_time_seconds",
        "As mcp_response_time_seconds, by tool, of the tools that were used most recently",
        ("server_id", "tool"),
    ),
    Family(
        _COUNTER,
        "mcp_call_errors",
        "Calls that no attempt answered, by what became of the request and the class of the error",
        ("server_id", "delivery", "error"),
    ),
    Family(_HISTOGRAM, "mcp_queue_wait_seconds", "Time that calls waited because a limit was reached", _PER_SERVER),
    Family(_COUNTER, "mcp_health_checks", "Completed health probes by result", ("server_id", "result")),
    Family(_COUNTER, "mcp_retries", "Attempts after one that failed, or on a new session", _PER_SERVER),
    Family(_COUNTER, "mcp_hedges", "Additional attempts, on another instance, of calls that took long", _PER_SERVER),
    Family(_COUNTER, "mcp_fallbacks", "Fallback answers to calls that no attempt answered", ("server_id", "source")),
    Family(
        _COUNTER,
        "mcp_child_restarts",
        "Restarts of child processes that ended, or that were killed because they did not answer",
        ("server_id", "cause"),
    ),
    Family(_COUNTER, "mcp_session_renewals", "Sessions that took the place of a lost one", _PER_SERVER),
    Family(
        _COUNTER,
        "mcp_floods",
        "Times that a server sent so much that reading from it was behind for a full second",
        _PER_SERVER,
    ),
    Family(_COUNTER, "mcp_circuit_openings", "Times that the closed circuit of an instance opened", _PER_SERVER),
    Family(_GAUGE, "mcp_active_connections", "Calls under way", _PER_SERVER),
    Family(
        _GAUGE,
        "mcp_connection_pool_size",
        "Connections open to the server (child processes for stdio), in use or idle",
        ("server_id", "state"),
    ),
    Family(
        _GAUGE,
        "mcp_circuit_breaker_state",
        "State of the circuit breaker: 0 closed, 1 open, 2 half open",
        _PER_SERVER,
    ),
    Family(_GAUGE, "mcp_open_circuits", "Instances whose circuit is open or half open; absent if none is", _PER_SERVER),
    Family(
        _GAUGE,
        "mcp_server_state",
        "State of the server: 0 healthy, 1 degraded, 2 unhealthy, 3 initializing, 4 maintenance, 5 stopped",
        _PER_SERVER,
    ),
    Family(_GAUGE, "mcp_server_availability", "Share of the desired instances that are connected", _PER_SERVER),
    Family(_GAUGE, "mcp_error_rate", "Share of the attempts of the last minute that failed", _PER_SERVER),
    Family(
        _GAUGE,
        "mcp_instances",
        "Instances by state: desired, connected (ready), draining",
        ("server_id", "state"),
    ),
    Family(
        _GAUGE, "mcp_ejected_instances", "Instances ejected because they failed more often than the others", _PER_SERVER
    ),
    Family(_GAUGE, "mcp_waiting_calls", "Calls that wait because a limit is reached", _PER_SERVER),
    Family(
        _GAUGE,
        "mcp_concurrency_limit",
        "Calls that the instances take at a time; absent while nothing limits them",
        _PER_SERVER,
    ),
    Family(_GAUGE, "mcp_retry_budget", "Retries and hedges that the budget of the server still allows", _PER_SERVER),
    Family(_GAUGE, "mcp_servers", "Servers by state, those that were never used included", ("state",)),
    Family(_HISTOGRAM, "mcp_loop_lag_seconds", "Lag of the event loop, measured twice a second", ()),
    Family(InfoMetricFamily, "mcp_build", "Versions of the package and of Python", ()),
)

VALUES: Final = (
    ("mcp_health_checks", ("success",)),
    ("mcp_health_checks", ("failure",)),
    ("mcp_retries", ()),
    ("mcp_hedges", ()),
    ("mcp_fallbacks", ("server",)),
    ("mcp_fallbacks", ("stale",)),
    ("mcp_fallbacks", ("static",)),
    ("mcp_child_restarts", ("exit",)),
    ("mcp_child_restarts", ("hang",)),
    ("mcp_session_renewals", ()),
    ("mcp_floods", ()),
    ("mcp_circuit_openings", ()),
    ("mcp_active_connections", ()),
    ("mcp_connection_pool_size", ("active",)),
    ("mcp_connection_pool_size", ("idle",)),
    ("mcp_circuit_breaker_state", ()),
    ("mcp_open_circuits", ()),
    ("mcp_server_state", ()),
    ("mcp_server_availability", ()),
    ("mcp_error_rate", ()),
    ("mcp_instances", ("desired",)),
    ("mcp_instances", ("ready",)),
    ("mcp_instances", ("draining",)),
    ("mcp_ejected_instances", ()),
    ("mcp_waiting_calls", ()),
    ("mcp_concurrency_limit", ()),
    ("mcp_retry_budget", ()),
)
"""The values that every server has, in the order in which they are read: family, and labels beside ``server_id``."""

STATE_NUMBERS: Final = {
    ServerState.HEALTHY: 0,
    ServerState.DEGRADED: 1,
    ServerState.UNHEALTHY: 2,
    ServerState.INITIALIZING: 3,
    ServerState.MAINTENANCE: 4,
    ServerState.STOPPED: 5,
}
"""The values of ``mcp_server_state``."""


def names_of(family: Family) -> tuple[str, ...]:
    """Return the names by which a family may be asked for: its own, and that of its samples."""
    if family.kind is CounterMetricFamily:
        return family.name, f"{family.name}_total"
    return (family.name, f"{family.name}_info") if family.kind is InfoMetricFamily else (family.name,)
