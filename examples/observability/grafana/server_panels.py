"""The panels of one server."""

from __future__ import annotations

from typing import Final

from panels import (
    BLUE,
    CIRCUIT,
    GREEN,
    GREY,
    OF_SERVER,
    OF_SERVER_OTLP,
    ORANGE,
    QUANTILES,
    RED,
    STATES,
    YELLOW,
    Panel,
    Query,
    by_error_otlp,
    error_ratio,
    error_ratio_otlp,
    growth,
    most_serious,
    native_quantile,
    quantile,
)

# Values of mcp_server_state and of mcp_circuit_breaker_state.
UNHEALTHY: Final = 2
OPEN: Final = 1


def grown(counter: str, selector: str) -> str:
    """Return how much counters of the server grew from one bar to the next."""
    return growth(f"{counter}{{{selector}}}", "$__interval")


def grown_or_none(counter: str, selector: str) -> str:
    """Return how much counters of the server grew together, 0 if there are none yet."""
    return f"sum({grown(counter, selector)}) or vector(0)"


def tool_calls(condition: str) -> str:
    """Return how many calls of tools of the server there were in the time range."""
    return growth(f"mcp_tool_calls_total{{{OF_SERVER}{condition}}}", "$__range")


SERVER: Final = (
    Panel(
        "stat",
        "State",
        "State of the server: unhealthy if it is in any process, else the state with the highest number.",
        4,
        4,
        [Query(most_serious(f"mcp_server_state{{{OF_SERVER}}}", UNHEALTHY), "state", now=True)],
        unit="none",
        mappings=STATES,
    ),
    Panel(
        "stat",
        "Circuit",
        "State of its circuit breaker: open if it is in any process.",
        4,
        4,
        [Query(most_serious(f"mcp_circuit_breaker_state{{{OF_SERVER}}}", OPEN), "circuit", now=True)],
        [Query(most_serious(f"mcp_manager_breaker{{{OF_SERVER_OTLP}}}", OPEN), "circuit", now=True)],
        unit="none",
        mappings=CIRCUIT,
    ),
    Panel(
        "stat",
        "Instances that are missing",
        "Desired instances that are not connected.",
        4,
        4,
        [
            Query(
                f'sum(mcp_instances{{{OF_SERVER},state="desired"}}) - sum(mcp_instances{{{OF_SERVER},state="ready"}})',
                "missing",
            )
        ],
        [
            Query(
                f'sum(mcp_manager_instances{{{OF_SERVER_OTLP},mcp_manager_state="desired"}})'
                f' - sum(mcp_manager_instances{{{OF_SERVER_OTLP},mcp_manager_state="ready"}})',
                "missing",
            )
        ],
        unit="none",
        steps=((GREEN, None), (ORANGE, 1.0)),
    ),
    Panel(
        "stat",
        "Error ratio",
        "Share of its calls that no attempt answered.",
        4,
        4,
        [Query(error_ratio(OF_SERVER), "failed", now=True)],
        [Query(error_ratio_otlp(OF_SERVER_OTLP), "failed", now=True)],
        unit="percentunit",
        steps=((GREEN, None), (ORANGE, 0.001), (RED, 0.01)),
        empty="no calls",
    ),
    Panel(
        "stat",
        "Retries left",
        "Retries and hedges that the budget of the server still allows, in the process that has the fewest. Below one, calls "
        "fail at their first attempt.",
        4,
        4,
        [Query(f"min(mcp_retry_budget{{{OF_SERVER}}})", "left")],
        unit="none",
        steps=((RED, None), (ORANGE, 1.0), (GREEN, 10.0)),
    ),
    Panel(
        "stat",
        "Ejected instances",
        "Instances that get no calls because they failed far more often than the others (health.outliers).",
        4,
        4,
        [Query(f"sum(mcp_ejected_instances{{{OF_SERVER}}})", "ejected")],
        unit="none",
        steps=((GREEN, None), (ORANGE, 1.0)),
    ),
    Panel(
        "heatmap",
        "Response time",
        "How many attempts took how long. Two bands mean two kinds of calls, or one instance that is slower.",
        16,
        9,
        [
            Query(
                f"sum by (le) (increase(mcp_response_time_seconds_bucket{{{OF_SERVER}}}[$__rate_interval]))",
                "{{le}}",
                shape="heatmap",
            )
        ],
        [
            Query(
                f"sum(increase(mcp_client_operation_duration_seconds{{{OF_SERVER_OTLP}}}[$__rate_interval]))",
                shape="heatmap",
            )
        ],
        unit="s",
    ),
    Panel(
        "timeseries",
        "Response time by method",
        "The p99 of each method.",
        8,
        9,
        [Query(quantile(0.99, "le, method", "mcp_response_time_seconds", OF_SERVER), "{{method}}")],
        [Query(native_quantile(0.99, "mcp_method_name", OF_SERVER_OTLP), "{{mcp_method_name}}")],
        unit="s",
    ),
    Panel(
        "timeseries",
        "Attempts by result",
        "Attempts per second, by how they ended.",
        8,
        8,
        [Query(f"sum by (status) (rate(mcp_requests_total{{{OF_SERVER}}}[$__rate_interval]))", "{{status}}")],
        [Query(by_error_otlp(OF_SERVER_OTLP), "{{error_type}}")],
        unit="reqps",
        colors={"success": GREEN, "tool_error": YELLOW, "rpc_error": BLUE, "timeout": RED, "circuit_open": "purple"},
        stacked=True,
    ),
    Panel(
        "timeseries",
        "Failed calls by delivery",
        "Calls that no attempt answered. not_sent and rejected: not executed. unknown: perhaps executed. answered: executed, "
        "but the reply was of no use. No data: none failed.",
        8,
        8,
        [
            Query(
                f"sum by (delivery, error) ({grown('mcp_call_errors_total', OF_SERVER)})",
                "{{delivery}}: {{error}}",
            )
        ],
        stacked=True,
        bars=True,
    ),
    Panel(
        "timeseries",
        "Retries, hedges, fallbacks",
        "Further attempts, and answers that stood in for a failed call, by source.",
        8,
        8,
        [
            Query(grown_or_none("mcp_retries_total", OF_SERVER), "retries"),
            Query(grown_or_none("mcp_hedges_total", OF_SERVER), "hedges"),
            Query(
                f"sum by (source) ({grown('mcp_fallbacks_total', OF_SERVER)})",
                "fallback: {{source}}",
            ),
        ],
        [
            Query(grown_or_none("mcp_manager_retries_total", OF_SERVER_OTLP), "retries"),
            Query(grown_or_none("mcp_manager_hedges_total", OF_SERVER_OTLP), "hedges"),
            Query(
                f"sum by (mcp_manager_fallback_source) ({grown('mcp_manager_fallbacks_total', OF_SERVER_OTLP)})",
                "fallback: {{mcp_manager_fallback_source}}",
            ),
        ],
        bars=True,
    ),
    Panel(
        "timeseries",
        "Calls under way",
        "Calls at the server, calls that wait, and how many the server takes at a time (no line: nothing limits them).",
        8,
        8,
        [
            Query(f"sum(mcp_active_connections{{{OF_SERVER}}})", "under way"),
            Query(f"sum(mcp_waiting_calls{{{OF_SERVER}}})", "waiting"),
            Query(f"sum(mcp_concurrency_limit{{{OF_SERVER}}})", "limit"),
        ],
        [
            Query(f"sum(mcp_manager_calls_active{{{OF_SERVER_OTLP}}})", "under way"),
            Query(f"sum(mcp_manager_calls_waiting{{{OF_SERVER_OTLP}}})", "waiting"),
        ],
        unit="none",
        colors={"under way": BLUE, "waiting": ORANGE, "limit": RED},
    ),
    Panel(
        "timeseries",
        "Queue wait",
        "For how long calls waited for a limit, of the calls that had to wait.",
        8,
        8,
        [Query(quantile(share, "le", "mcp_queue_wait_seconds", OF_SERVER), name) for share, name in QUANTILES],
        unit="s",
        steps=((GREEN, None), (RED, 0.5)),
    ),
    Panel(
        "timeseries",
        "Connections",
        "Open connections, or running programs: with a call, or idle.",
        8,
        8,
        [Query(f"sum by (state) (mcp_connection_pool_size{{{OF_SERVER}}})", "{{state}}")],
        unit="none",
        stacked=True,
    ),
    Panel(
        "timeseries",
        "Instances",
        "Instances that are desired, connected (ready), and on their way out (draining).",
        8,
        8,
        [Query(f"sum by (state) (mcp_instances{{{OF_SERVER}}})", "{{state}}")],
        [Query(f"sum by (mcp_manager_state) (mcp_manager_instances{{{OF_SERVER_OTLP}}})", "{{mcp_manager_state}}")],
        unit="none",
        colors={"desired": GREY, "ready": GREEN, "draining": ORANGE},
    ),
    Panel(
        "timeseries",
        "Restarts, lost sessions, circuits, floods",
        "Programs that ended or hung, sessions that replaced a lost one, circuits that opened, and times when the server "
        "sent too much.",
        8,
        8,
        [
            Query(
                f"sum by (cause) ({grown('mcp_child_restarts_total', OF_SERVER)})",
                "restart: {{cause}}",
            ),
            Query(grown_or_none("mcp_session_renewals_total", OF_SERVER), "session renewed"),
            Query(grown_or_none("mcp_circuit_openings_total", OF_SERVER), "circuit opened"),
            Query(grown_or_none("mcp_floods_total", OF_SERVER), "flood"),
        ],
        [
            Query(
                f"sum by (mcp_manager_restart_cause) ({grown('mcp_manager_child_restarts_total', OF_SERVER_OTLP)})",
                "restart: {{mcp_manager_restart_cause}}",
            )
        ],
        bars=True,
    ),
    Panel(
        "timeseries",
        "Health probes",
        "Probes per second, by result.",
        8,
        8,
        [Query(f"sum by (result) (rate(mcp_health_checks_total{{{OF_SERVER}}}[$__rate_interval]))", "{{result}}")],
        [
            Query(
                "sum by (mcp_manager_result)"
                f" (rate(mcp_manager_health_checks_total{{{OF_SERVER_OTLP}}}[$__rate_interval]))",
                "{{mcp_manager_result}}",
            )
        ],
        unit="ops",
        colors={"success": GREEN, "failure": RED},
    ),
    Panel(
        "table",
        "Tools",
        "Attempts of calls of each tool in the time range. Tools that are rarely used count as _other. The p99 is an estimate "
        "from wide buckets (1 s, 4 s, 16 s): it may be several times too high.",
        24,
        9,
        [
            Query(f"sum by (tool) ({tool_calls(condition)})", now=True, shape="table")
            for condition in ("", ',status="tool_error"', ',status!~"success|tool_error"')
        ]
        + [
            Query(
                quantile(0.99, "le, tool", "mcp_tool_response_time_seconds", OF_SERVER, "$__range"),
                now=True,
                shape="table",
            ),
        ],
    ),
)
