"""The text of the metrics is what ``prometheus_client`` would write, whatever servers, methods and tools are called."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from support.examples import examples

from mcp_manager import ManagerConfig, McpManager, MetricsCollector, ServerConfig
from mcp_manager._core.readings import Exemplar, note_exemplar
from mcp_manager._core.records import READY
from mcp_manager.types import CallStatus, Outcome

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=20)
IDS = st.one_of(TEXT, st.sampled_from(['a"b', "a\\b", "a\\nb", "é", "{}", "a,b=c"]))
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20), st.sampled_from(["a\nb", 'x"', "\\"])
)
DURATIONS = st.one_of(st.integers(0, 10**7), st.integers(0, 3 * 10**11), st.integers(0, 10**17))
TRACES = st.none() | st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(1, 2**62))
Made = tuple[int, str, str | None, CallStatus, int, tuple[int, int, int] | None]
CALLS = st.lists(
    st.tuples(st.integers(0, 3), NAMES, st.none() | NAMES, st.sampled_from(CallStatus), DURATIONS, TRACES), max_size=25
)


def use(manager: McpManager, calls: list[Made], ids: list[str]) -> None:
    """Count calls as if they had been made, some of them traced."""
    router = manager._router
    for at, method, tool, status, took_ns, trace in calls:
        supervisor = manager._servers[ids[at % len(ids)]]
        for instance in supervisor.activate():
            assert instance.backend is not None
            router.set_availability(instance.backend, READY, 0)
        method = "tools/call" if tool is not None else method
        lease = router.pick(supervisor.server_id, method, 0, 0)
        router.name_tool(lease, tool)
        router.done(lease, Outcome.SUCCESS, status, took_ns)
        if trace is not None:
            trace_id, span_id, at_ns = trace
            note_exemplar(supervisor.record, method, Exemplar(trace_id, span_id, took_ns, at_ns), tool)


async def compare(ids: list[str], calls: list[Made]) -> None:
    config = ManagerConfig(
        servers={each: ServerConfig(url="http://127.0.0.1:1/", connect="lazy") for each in ids}, max_tool_series=5
    )
    async with McpManager(config) as manager:
        use(manager, calls, ids)
        registry = CollectorRegistry()
        registry.register(MetricsCollector(manager))
        text = manager.metrics_text()
        assert text == generate_latest(registry).decode()
        registry = CollectorRegistry()
        registry.register(MetricsCollector(manager, created=True))
        opened = manager.metrics_text(format="openmetrics")
        assert opened == generate_openmetrics(registry).decode()
        assert ("trace_id=" in opened) == any(trace is not None for *_, trace in calls)
        pieces = [piece async for piece in await manager.scrape_stream("application/openmetrics-text")]
        assert b"".join(pieces).decode() == opened
        samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
        shown = {each.labels["server_id"] for each in samples if "server_id" in each.labels}
        assert shown == {ids[at % len(ids)] for at, *_ in calls}
        assert sum(each.value for each in samples if each.name == "mcp_requests_total") == len(calls)
        by_tool = [each for each in samples if each.name == "mcp_tool_calls_total"]
        assert sum(each.value for each in by_tool) == sum(tool is not None for _, _, tool, *_ in calls)
        assert len({(each.labels["server_id"], each.labels["tool"]) for each in by_tool}) <= 5 + len(ids)
        assert sum(each.value for each in samples if each.name == "mcp_servers") == len(ids)


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(IDS, min_size=1, max_size=4, unique=True), CALLS)
def test_the_text_is_that_of_the_library(ids: list[str], calls: list[Made]) -> None:
    asyncio.run(compare(ids, calls))
