"""The panels of the whole fleet, and of its ten worst servers."""

from __future__ import annotations

from typing import Final

from panels import (
    BLUE,
    CIRCUIT,
    FAILED_OTLP,
    GREEN,
    OBJECTIVE,
    OF_FLEET,
    ORANGE,
    QUANTILES,
    RED,
    STATE_COLORS,
    YELLOW,
    Panel,
    Query,
    all_calls,
    budget_left,
    by_error_otlp,
    error_ratio,
    error_ratio_otlp,
    growth,
    known,
    native_quantile,
    quantile,
    worst,
)

UNKNOWN: Final = 'mcp_call_errors_total{job=~"$job",delivery="unknown"}'

FLEET: Final = (
    Panel(
        "stat",
        "Servers by state",
        "Servers that are deployed, by health. Each process counts its own. Unhealthy: no instance takes calls. Degraded: some "
        "do, or it is not known yet.",
        8,
        4,
        [Query('sum by (state) (mcp_servers{job=~"$job"})', "{{state}}", now=True)],
        [Query('sum by (mcp_manager_state) (mcp_manager_servers{job=~"$job"})', "{{mcp_manager_state}}", now=True)],
        unit="none",
        colors=STATE_COLORS,
    ),
    Panel(
        "stat",
        "Calls",
        "Calls that ended, answered or not, per second.",
        3,
        4,
        [Query(f"sum({all_calls(OF_FLEET, '$__rate_interval')})", "calls")],
        [Query('sum(rate(mcp_manager_client_calls_total{job=~"$job"}[$__rate_interval]))', "calls")],
        unit="reqps",
        steps=((BLUE, None),),
    ),
    Panel(
        "stat",
        "Error ratio",
        "Share of the calls that no attempt answered. Errors that a server or tool answers with are answers.",
        3,
        4,
        [Query(error_ratio(OF_FLEET), "failed", now=True)],
        [Query(error_ratio_otlp(OF_FLEET), "failed", now=True)],
        unit="percentunit",
        steps=((GREEN, None), (ORANGE, 0.001), (RED, 0.01)),
        empty="no calls",
    ),
    Panel(
        "stat",
        "Response time",
        "Half of the attempts were faster than p50, 99 of 100 faster than p99.",
        4,
        4,
        [
            Query(known(quantile(share, "le", "mcp_response_time_seconds", OF_FLEET)), name, now=True)
            for share, name in (QUANTILES[0], QUANTILES[2])
        ],
        [
            Query(known(native_quantile(share, "", OF_FLEET)), name, now=True)
            for share, name in (QUANTILES[0], QUANTILES[2])
        ],
        unit="s",
        steps=((GREEN, None), (ORANGE, 1.0), (RED, 5.0)),
        empty="no calls",
    ),
    Panel(
        "stat",
        "Error budget left",
        f"Of the calls of the time range shown, {1 - OBJECTIVE:.1%} may fail. This is the share of these failures that is "
        "left. Below zero, the objective is missed; -100 % stands for all that is worse, too.",
        3,
        4,
        [Query(budget_left(error_ratio(OF_FLEET, "$__range")), "left", now=True)],
        [Query(budget_left(error_ratio_otlp(OF_FLEET, "$__range")), "left", now=True)],
        unit="percentunit",
        steps=((RED, None), (ORANGE, 0.0), (GREEN, 0.25)),
        least=None,
        most=1.0,
        empty="no calls",
    ),
    Panel(
        "stat",
        "Versions",
        "Processes with a manager, by version. More than one version at a time: a deployment is under way.",
        3,
        4,
        [Query('count by (version) (mcp_build_info{job=~"$job"})', "{{version}}", now=True)],
        [
            Query(
                'count by (service_version) (target_info{job=~"$job",service_version!=""})',
                "{{service_version}}",
                now=True,
            )
        ],
        unit="none",
        steps=((BLUE, None),),
    ),
    Panel(
        "table",
        "Alerts that fire",
        "Alerts of rules.yaml. Empty is good, if the rules are loaded. The manual explains each: mcp-manager help alerts.",
        24,
        5,
        [Query('ALERTS{alertname=~"Mcp.+",alertstate="firing"}', now=True, shape="table")],
    ),
    Panel(
        "timeseries",
        "Attempts by result",
        "Attempts of calls per second, by how they ended. A call that is retried has several.",
        8,
        8,
        [Query('sum by (status) (rate(mcp_requests_total{job=~"$job"}[$__rate_interval]))', "{{status}}")],
        [Query(by_error_otlp(OF_FLEET), "{{error_type}}")],
        unit="reqps",
        colors={"success": GREEN, "tool_error": YELLOW, "rpc_error": BLUE, "timeout": RED, "circuit_open": "purple"},
        stacked=True,
    ),
    Panel(
        "timeseries",
        "Response time",
        "Time of an attempt, from the choice of an instance to the reply. Waiting for a limit is not part of it.",
        8,
        8,
        [Query(quantile(share, "le", "mcp_response_time_seconds", OF_FLEET), name) for share, name in QUANTILES],
        [Query(native_quantile(share, "", OF_FLEET), name) for share, name in QUANTILES],
        unit="s",
        steps=((GREEN, None), (RED, 5.0)),
    ),
    Panel(
        "timeseries",
        "Event loop lag",
        "How late the event loop of each process is, at worst. Above 0.25 s it is blocked: every call of the process waits.",
        8,
        8,
        [Query(quantile(0.99, "le, instance", "mcp_loop_lag_seconds", OF_FLEET), "{{instance}}")],
        [Query('max by (instance) (mcp_manager_loop_lag_seconds{job=~"$job"})', "{{instance}}")],
        unit="s",
        steps=((GREEN, None), (RED, 0.25)),
    ),
    Panel(
        "timeseries",
        "Points that no collector took",
        "Data points that were lost on the way to the collector, per second. Above zero, this dashboard shows too little.",
        24,
        5,
        [],
        [
            Query(
                'sum by (instance) (rate(mcp_manager_telemetry_lost_total{job=~"$job"}[$__rate_interval]))',
                "{{instance}}",
            )
        ],
        steps=((GREEN, None), (RED, 0.001)),
    ),
)

WORST: Final = (
    Panel(
        "bargauge",
        "Highest error ratio",
        "Share of the calls of the last five minutes that no attempt answered. Click a bar to see its server below.",
        8,
        8,
        [
            Query(
                worst(
                    f"sum by (server_id) (rate(mcp_call_errors_total{{{OF_FLEET}}}[5m])) / sum by (server_id) ({all_calls(OF_FLEET, '5m')})"
                ),
                "{{server_id}}",
                now=True,
            )
        ],
        [
            Query(
                worst(
                    "sum by (mcp_manager_server_id)"
                    f' (rate(mcp_manager_client_calls_total{{job=~"$job",{FAILED_OTLP}}}[5m]))'
                    ' / sum by (mcp_manager_server_id) (rate(mcp_manager_client_calls_total{job=~"$job"}[5m]))'
                ),
                "{{mcp_manager_server_id}}",
                now=True,
            )
        ],
        unit="percentunit",
        steps=((YELLOW, None), (ORANGE, 0.01), (RED, 0.1)),
        most=1.0,
        empty="none",
    ),
    Panel(
        "bargauge",
        "Slowest",
        "The p99 of the response time in the last five minutes.",
        8,
        8,
        [
            Query(
                worst(quantile(0.99, "le, server_id", "mcp_response_time_seconds", OF_FLEET, "5m")),
                "{{server_id}}",
                now=True,
            )
        ],
        [
            Query(
                worst(native_quantile(0.99, "mcp_manager_server_id", OF_FLEET, "5m")),
                "{{mcp_manager_server_id}}",
                now=True,
            )
        ],
        unit="s",
        steps=((GREEN, None), (ORANGE, 1.0), (RED, 5.0)),
        empty="no calls",
    ),
    Panel(
        "bargauge",
        "Longest queue wait",
        "The p99 of the time for which calls waited for a limit in the last five minutes, of the calls that had to wait.",
        8,
        8,
        [
            Query(
                worst(quantile(0.99, "le, server_id", "mcp_queue_wait_seconds", OF_FLEET, "5m")),
                "{{server_id}}",
                now=True,
            )
        ],
        unit="s",
        steps=((GREEN, None), (ORANGE, 0.1), (RED, 0.5)),
        empty="none waits",
    ),
    Panel(
        "bargauge",
        "Circuits that are not closed",
        "Servers that get no calls, or only trials, because too many have failed.",
        8,
        8,
        [Query(worst('max by (server_id) (mcp_circuit_breaker_state{job=~"$job"})'), "{{server_id}}", now=True)],
        [
            Query(
                worst('max by (mcp_manager_server_id) (mcp_manager_breaker{job=~"$job"})'),
                "{{mcp_manager_server_id}}",
                now=True,
            )
        ],
        unit="none",
        mappings=CIRCUIT,
        most=2.0,
        empty="none",
    ),
    Panel(
        "bargauge",
        "Most tool errors",
        "Results per second in which a tool itself reports an error (isError), in the last five minutes. The server works.",
        8,
        8,
        [
            Query(
                worst('sum by (server_id, tool) (rate(mcp_tool_calls_total{job=~"$job",status="tool_error"}[5m]))'),
                "{{server_id}} {{tool}}",
                now=True,
            )
        ],
        [
            Query(
                worst(
                    "sum by (mcp_manager_server_id)"
                    ' (rate(mcp_manager_client_calls_total{job=~"$job",error_type="tool_error"}[5m]))'
                ),
                "{{mcp_manager_server_id}}",
                now=True,
            )
        ],
        unit="reqps",
        steps=((YELLOW, None),),
        empty="none",
    ),
    Panel(
        "bargauge",
        "Perhaps executed",
        "Failed calls of the time range of which nobody knows whether the server executed them (delivery unknown).",
        8,
        8,
        [
            Query(
                worst(f"sum by (server_id) ({growth(UNKNOWN, '$__range')})"),
                "{{server_id}}",
                now=True,
            )
        ],
        steps=((ORANGE, None),),
        empty="none",
    ),
    Panel(
        "bargauge",
        "Most instances missing",
        "Share of the desired instances that are missing.",
        8,
        8,
        [],
        [
            Query(
                worst(
                    '1 - sum by (mcp_manager_server_id) (mcp_manager_instances{job=~"$job",mcp_manager_state="ready"})'
                    ' / (sum by (mcp_manager_server_id) (mcp_manager_instances{job=~"$job",mcp_manager_state="desired"}) > 0)'
                ),
                "{{mcp_manager_server_id}}",
                now=True,
            )
        ],
        unit="percentunit",
        steps=((ORANGE, None), (RED, 1.0)),
        most=1.0,
        empty="none missing",
    ),
)
