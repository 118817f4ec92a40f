"""The recipe ``opentelemetry_tracing``: one trace from the application's span to the server's, and its metrics and logs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
from support.collector import Collector, attributes
from support.orphans import no_orphans
from support.recipes import environment, folder_of

FAILED = "the order failed: "


class Story(NamedTuple):
    """What a run of the application has exported and logged."""

    collector: Collector
    log: list[dict[str, Any]]
    printed: str

    def chain(self, tool: str) -> list[tuple[str, Any]]:
        """Return the spans of one order by their services, from the application's to the innermost."""
        spans = [(attributes(resource)["service.name"], span) for span, resource in self.collector.spans]
        found = [each for each in spans if each[1].name == f"order {tool}"]
        while below := [each for each in spans if each[1].parent_span_id == found[-1][1].span_id]:
            found += below
        return found


def tell(program: str, **variables: str) -> tuple[str, list[dict[str, Any]]]:
    """Run a program of the recipe; return what it prints, and its log."""
    with no_orphans():
        done = subprocess.run(
            [sys.executable, "-W", "error", program, *(["application.py"] if program != "application.py" else [])],
            cwd=folder_of("opentelemetry_tracing"),
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


@pytest.fixture(scope="module")
def story() -> Story:
    folder_of("opentelemetry_tracing")
    with Collector() as collector:
        printed, log = tell("application.py", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="orders")
    return Story(collector, log, printed)


def test_one_trace_leads_from_the_application_through_the_call_into_the_server(story: Story) -> None:
    chain = story.chain("add")
    assert [(service, span.name) for service, span in chain] == [
        ("orders", "order add"),
        ("orders", "tools/call add"),
        ("calculator", "tools/call add"),
        ("calculator", "compute"),
    ]
    assert len({span.trace_id for _, span in chain}) == 1
    # Three orders, and nothing of handshakes and lists.
    assert len({span.trace_id for span, _ in story.collector.spans}) == 3
    assert story.printed == "add: 5.0\ndivide: failed, answered\nwait: failed, unknown\n"


def test_the_spans_of_failed_calls_say_what_failed(story: Story) -> None:
    told = {tool: attributes(story.chain(tool)[1][1]) for tool in ("divide", "wait")}
    assert told["divide"]["error.type"] == "tool_error"
    assert (told["wait"]["error.type"], told["wait"]["mcp_manager.delivery"]) == ("timeout", "unknown")


def test_log_lines_have_the_ids_of_their_spans(story: Story) -> None:
    lines = [line for line in story.log if line["message"].startswith(FAILED)]
    orders = [story.chain(tool)[0][1] for tool in ("divide", "wait")]
    assert [(line["trace_id"], line["span_id"]) for line in lines] == [
        (span.trace_id.hex(), span.span_id.hex()) for span in orders
    ]
    (package,) = [line for line in story.log if line["logger"].startswith("mcp_manager.")]
    call = story.chain("wait")[1][1]
    assert (package["trace_id"], package["span_id"]) == (call.trace_id.hex(), call.span_id.hex())


def test_metrics_of_both_arrive_and_lead_to_traces(story: Story) -> None:
    orders = story.collector.newest("orders")
    assert {tuple(dict(each).values()): point.as_int for each, point in orders.items()} == {
        ("add",): 1,
        ("divide",): 1,
        ("wait",): 1,
    }
    durations = story.collector.points("mcp.client.operation.duration")
    exemplars = {each.span_id for point in durations for each in point.exemplars}
    assert {story.chain(tool)[1][1].span_id for tool in ("add", "divide", "wait")} <= exemplars


def test_a_call_that_fails_is_kept_though_no_order_is_sampled_and_the_picture_shows_it() -> None:
    printed, _ = tell("show_telemetry.py", OTEL_TRACES_SAMPLER_ARG="0")
    traces, _, metrics = printed.partition("\nTraces\n")[2].partition("\n\nMetrics\n")
    assert traces.splitlines() == [
        "tools/call wait (orders, client, error): error.type=timeout, mcp_manager.delivery=unknown, "
        "mcp_manager.after_the_fact=True"
    ]
    assert "mcp_manager.client.calls (orders) gen_ai.tool.name=wait, error.type=timeout: 1" in metrics.splitlines()
    assert re.search(
        r"^mcp\.client\.operation\.duration .*wait: 1, a call of the span 'tools/call wait'$", metrics, re.M
    )
