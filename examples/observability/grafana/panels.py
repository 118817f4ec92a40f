"""What the tables of panels are written with: panels, queries, and the parts that queries share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

OBJECTIVE: Final = 0.999
"""The share of calls that must be answered."""

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "#8e8e8e"
STATE_COLORS: Final = {
    "healthy": GREEN,
    "degraded": ORANGE,
    "unhealthy": RED,
    "initializing": BLUE,
    "maintenance": "purple",
    "stopped": GREY,
}
CIRCUIT: Final = ((0, "closed", GREEN), (1, "open", RED), (2, "half open", ORANGE))
# The values of mcp_server_state.
STATES: Final = tuple((value, state, color) for value, (state, color) in enumerate(STATE_COLORS.items()))


QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


class Query(NamedTuple):
    """One query; ``now`` asks for the latest values only, ``shape`` is the format that Grafana asks for."""

    expression: str
    legend: str = ""
    now: bool = False
    shape: str = "time_series"


class Panel(NamedTuple):
    """One panel; a dashboard leaves out panels for which it has no queries.

    ``steps`` are the thresholds: colors and the values from which they apply. ``colors`` are fixed by the name of a series.
    ``least`` and ``most`` are the ends of the scale. ``empty`` is shown where there are no data.
    """

    kind: str
    title: str
    description: str
    width: int
    height: int
    scraped: Sequence[Query]
    exported: Sequence[Query] = ()
    unit: str = "short"
    steps: Sequence[tuple[str, float | None]] = ()
    mappings: Sequence[tuple[int, str, str]] = ()
    colors: Mapping[str, str] = MappingProxyType({})
    stacked: bool = False
    bars: bool = False
    least: float | None = 0.0
    most: float | None = None
    empty: str | None = None


OF_FLEET: Final = 'job=~"$job"'
OF_SERVER: Final = 'job=~"$job",server_id="$server_id"'
OF_SERVER_OTLP: Final = 'job=~"$job",mcp_manager_server_id="$server_id"'
FAILED_OTLP: Final = 'error_type!~"(rpc_error|tool_error|cancelled)?"'
"""Selects attempts that got no answer; those without ``error_type`` succeeded."""


def all_calls(selector: str, window: str, function: str = "rate") -> str:
    """Return the rates of all calls, answered or failed, to be added up: ``mcp_requests_total`` counts attempts."""
    answered = f'mcp_requests_total{{{selector},status=~"success|rpc_error|tool_error"}}'
    return f"{function}({answered}[{window}]) or {function}(mcp_call_errors_total{{{selector}}}[{window}])"


def error_ratio(selector: str, window: str = "$__rate_interval") -> str:
    """Return the share of calls that failed; nothing if there were no calls."""
    failed = f"sum(rate(mcp_call_errors_total{{{selector}}}[{window}])) or vector(0)"
    return f"({failed}) / (sum({all_calls(selector, window)}) > 0)"


def known(expression: str) -> str:
    """Leave out quantiles of nothing, which are not a number."""
    return f"{expression} >= 0"


def error_ratio_otlp(selector: str, window: str = "$__rate_interval") -> str:
    """Return the share of attempts that got no answer; nothing if there were none."""
    failed = f"sum(rate(mcp_manager_client_calls_total{{{selector},{FAILED_OTLP}}}[{window}])) or vector(0)"
    return f"({failed}) / (sum(rate(mcp_manager_client_calls_total{{{selector}}}[{window}])) > 0)"


def budget_left(ratio: str) -> str:
    """Return the share of the error budget that is left, at least -1, given the share of calls that failed."""
    return f"clamp_min(1 - {ratio} / {1 - OBJECTIVE:.4g}, -1)"


def by_error_otlp(selector: str) -> str:
    """Return the attempts per second by their error, successful ones as ``success``."""
    rates = f"sum by (error_type) (rate(mcp_manager_client_calls_total{{{selector}}}[$__rate_interval]))"
    return f'label_replace({rates}, "error_type", "success", "error_type", "")'


def growth(counter: str, window: str) -> str:
    """Return how much counters grew, those included that began within the window: their first count is growth, too.

    A counter that was missing for less than two minutes before the window did not begin: some scrapes failed.
    """
    before = f"present_over_time({counter}[2m] offset {window})"
    return f"(increase({counter}[{window}]) and {before}) or ({counter} unless {before})"


def quantile(share: float, by: str, metric: str, selector: str, window: str = "$__rate_interval") -> str:
    """Return the quantile of a histogram in the text format."""
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{{selector}}}[{window}])))"


def native_quantile(share: float, by: str, selector: str, window: str = "$__rate_interval") -> str:
    """Return the quantile of the native histogram that Prometheus makes of an exponential one."""
    rates = f"rate(mcp_client_operation_duration_seconds{{{selector}}}[{window}])"
    grouped = f"sum by ({by}) " if by else "sum"
    return f"histogram_quantile({share}, {grouped}({rates}))"


def most_serious(gauge: str, state: int) -> str:
    """Return a state if a process is in it, else the largest number of any process."""
    return f"max({gauge} == {state}) or max({gauge})"


def worst(expression: str) -> str:
    """Return the ten largest values above zero."""
    return f"topk(10, {expression} > 0)"
