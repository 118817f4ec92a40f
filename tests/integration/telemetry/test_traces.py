"""Traces of calls: which calls are traced, what their spans say, and what servers are told of them."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from support.calls import CALM, echo, text_of
from support.collector import Answer, Collector, attributes
from support.forking import in_child
from support.processes import HttpServerProcess, unused_port
from support.stateless_server import StatelessServer

from mcp_manager import CallError, ManagerConfig, McpManager, PyMcpManager, TelemetryConfig, TracesConfig
from mcp_manager.observe.log_format import JsonFormatter
from mcp_manager.runtime.current_trace import CURRENT_TRACE, CurrentTrace
from mcp_manager.telemetry import conventions as names
from mcp_manager.telemetry import spans as exporting
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
SAMPLED = f"00-{TRACE:032x}-{PARENT:016x}-01"
UNSAMPLED = f"00-{TRACE:032x}-{PARENT:016x}-00"
CANARY = "canary-7f3a91"
THREAD = "mcp_manager telemetry: spans"


def fleet(collector: Collector, *, propagate_baggage: bool = False, **traces: Any) -> ManagerConfig:
    return ManagerConfig(
        telemetry=TelemetryConfig(
            traces=TracesConfig(**{"ratio": 0.0, "slow": "off", **traces}),
            endpoint=collector.url,
            propagate_baggage=propagate_baggage,
        )
    )


def metas(server: Any, method: str = "tools/call") -> list[dict[str, Any]]:
    """The ``_meta`` of the requests that a server got, whose header fields must have the same trace context."""
    found = []
    for request in server.requests_of(method):
        meta = (request.params or {}).get("_meta", {})
        for name in ("traceparent", "tracestate", "baggage"):
            assert request.headers.get(name) == meta.get(name), name
        found.append(meta)
    return found


def spans(collector: Collector) -> list[Any]:
    return [span for span, _ in collector.spans]


def in_trace(sampled: bool, state: str = "") -> Any:
    """A context of OpenTelemetry in which an application's span is current."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else 0)
    parent = SpanContext(TRACE, PARENT, True, flags, TraceState.from_header([state]) if state else None)
    return trace.set_span_in_context(NonRecordingSpan(parent))


@pytest.fixture(params=["handshake", "stateless"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with ScriptedServer() if request.param == "handshake" else StatelessServer() as server:
        yield server


@pytest.mark.both_loops
async def test_a_traced_call_has_a_span_and_the_server_is_told_of_it(server: Any) -> None:
    with Collector() as collector:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert (await manager.call_tool("a", "echo", {"text": "y"}, meta={"mine": 1})).text == "y"
        first, second = spans(collector)
        for span, meta in zip((first, second), metas(server), strict=True):
            assert meta["traceparent"] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
            assert span.name == "tools/call echo"
            assert span.kind == Span.SPAN_KIND_CLIENT
            assert span.parent_span_id == b""
            assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10**10
            assert span.status.code == Status.STATUS_CODE_UNSET
            told = attributes(span)
            assert told[names.METHOD] == "tools/call"
            assert told[names.TOOL] == "echo"
            assert told[names.OPERATION] == "execute_tool"
            assert told[names.SERVER] == "a"
            assert told[names.TRANSPORT] == "tcp"
            assert told[names.ADDRESS] == "127.0.0.1"
            assert told[names.PROTOCOL_VERSION] in ("2025-11-25", "2026-07-28")
            assert (told[names.INSTANCE], told[names.ATTEMPTS], told[names.DELIVERY]) == (0, 1, "answered")
            assert not told.keys() & {names.TOOL_ARGUMENTS, names.TOOL_RESULT, names.ERROR_TYPE}
        assert first.trace_id != second.trace_id
        assert metas(server)[1]["mine"] == 1
        assert attributes(collector.spans[0][1])["service.name"] == "mcp-manager"
        assert not [thread for thread in threading.enumerate() if thread.name == THREAD]


async def test_the_trace_of_the_application_goes_on(server: Any) -> None:
    with Collector() as collector:
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            token = context.attach(in_trace(True, "vendor=1"))
            try:
                await manager.execute_raw("a", echo("x"))
            finally:
                context.detach(token)
        (span,) = spans(collector)
        assert (int.from_bytes(span.trace_id), int.from_bytes(span.parent_span_id)) == (TRACE, PARENT)
        (meta,) = metas(server)
        assert meta["traceparent"] == f"00-{TRACE:032x}-{span.span_id.hex()}-01"
        assert meta["tracestate"] == "vendor=1"
        assert "baggage" not in meta


async def test_a_trace_that_is_not_recorded_is_passed_on_and_makes_no_span(server: Any) -> None:
    with Collector() as collector:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            token = context.attach(in_trace(False))
            try:
                await manager.execute_raw("a", echo("x"))
            finally:
                context.detach(token)
        assert spans(collector) == []
        (meta,) = metas(server)
        version, trace_id, span_id, flags = meta["traceparent"].split("-")
        assert (version, trace_id, flags) == ("00", f"{TRACE:032x}", "00")
        assert span_id not in (f"{PARENT:016x}", "0" * 16)


async def test_without_a_trace_nothing_is_added_to_requests(server: Any) -> None:
    with Collector() as collector:
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(5):
                await manager.execute_raw("a", echo("x"))
        assert spans(collector) == []
        assert all("traceparent" not in meta for meta in metas(server))


async def test_the_callback_gives_the_trace_and_ratio_may_decide_in_its_place(server: Any) -> None:
    given = {"traceparent": UNSAMPLED, "tracestate": "vendor=2"}
    with Collector() as collector:
        config = fleet(collector, ratio=1.0, parent=False)
        async with McpManager(config, trace_context=lambda: given) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
            given["traceparent"] = "nonsense"
            await manager.execute_raw("a", echo("x"))
        first, second = spans(collector)
        assert (int.from_bytes(first.trace_id), int.from_bytes(first.parent_span_id)) == (TRACE, PARENT)
        assert metas(server)[0]["tracestate"] == first.trace_state == "vendor=2"
        assert second.parent_span_id == b""


async def test_a_trace_that_is_written_into_the_request_goes_on() -> None:
    request = {"method": "tools/call", "params": {"name": "echo", "_meta": {"traceparent": SAMPLED, "mine": 1}}}
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", json.dumps(request).encode())
        (span,) = spans(collector)
        assert (int.from_bytes(span.trace_id), int.from_bytes(span.parent_span_id)) == (TRACE, PARENT)
        assert metas(server) == [{"traceparent": f"00-{TRACE:032x}-{span.span_id.hex()}-01", "mine": 1}]


@pytest.mark.parametrize("propagate_baggage", [False, True])
async def test_baggage_is_passed_on_only_if_that_is_configured(propagate_baggage: bool) -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, propagate_baggage=propagate_baggage)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            token = context.attach(baggage.set_baggage("user", "7", in_trace(True)))
            try:
                await manager.execute_raw("a", echo("x"))
            finally:
                context.detach(token)
        (meta,) = metas(server)
        assert meta.get("baggage") == ("user=7" if propagate_baggage else None)


async def test_about_the_configured_share_of_calls_is_traced() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=0.2)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(500):
                await manager.execute_raw("a", echo("x"))
        # Six standard deviations on either side.
        assert 46 < len(spans(collector)) < 154
        traced = {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in spans(collector)}
        assert {meta["traceparent"] for meta in metas(server) if meta} == traced


async def test_failed_calls_are_traced_after_the_fact() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, content_bytes=100)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("fine"))
            server.script("tools/call", faults.Status(500))
            with pytest.raises(CallError):
                await manager.execute_raw("a", echo("x"))
            await manager.execute_raw("a", b'{"method":"no/such"}')
            hold = faults.Hold()
            server.script("tools/call", hold)
            with pytest.raises(CallError):
                await manager.call_tool("a", "echo", {"text": "x"}, key="k", timeout=0.05)
            hold.release()
        broken, refused, late = spans(collector)
        told = attributes(broken)
        assert broken.name == "tools/call echo"
        assert told[names.AFTERWARDS] is True
        assert (told[names.ERROR_TYPE], told[names.DELIVERY]) == ("protocol_error", "unknown")
        assert broken.status.code == Status.STATUS_CODE_ERROR
        assert broken.status.message
        told = attributes(refused)
        assert refused.name == "no/such"
        assert told[names.ERROR_TYPE] == told[names.STATUS_CODE] == "-32601"
        assert refused.status.code == Status.STATUS_CODE_ERROR
        assert attributes(late)[names.ERROR_TYPE] == "timeout"


async def test_a_call_that_fails_in_a_task_of_a_traced_call_has_a_span_of_its_own() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            # As in a task that a traced call has started, in the callback for its progress, say.
            token = CURRENT_TRACE.set(CurrentTrace(TRACE, PARENT, 1, []))
            try:
                await manager.execute_raw("a", b'{"method":"no/such"}')
            finally:
                CURRENT_TRACE.reset(token)
        (span,) = spans(collector)
        assert span.name == "no/such"


async def test_no_more_traces_are_made_after_the_fact_than_allowed() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, tail_per_s=3)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(50):
                await manager.execute_raw("a", b'{"method":"no/such"}')
        assert 3 <= len(spans(collector)) < 20


async def test_slow_calls_are_traced_after_the_fact() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, slow="p99", errors=False)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(100):
                await manager.execute_raw("a", echo("x"))
            # What is slow is measured again only now and then.
            manager._dispatcher.path.measure_again()
            await manager.execute_raw("a", echo("x"))
            hold = faults.Hold()
            server.script("tools/call", hold)
            asyncio.get_running_loop().call_later(0.4, hold.release)
            await manager.execute_raw("a", echo("slow"))
        last = spans(collector)[-1]
        assert last.end_time_unix_nano - last.start_time_unix_nano > 0.3e9
        assert attributes(last)[names.AFTERWARDS] is True
        assert last.name == "tools/call echo"
        assert last.status.code == Status.STATUS_CODE_UNSET


async def test_a_call_that_fails_within_a_trace_that_is_not_recorded_links_to_it() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector), trace_context=lambda: {"traceparent": UNSAMPLED}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", b'{"method":"no/such"}')
        (span,) = spans(collector)
        (link,) = span.links
        assert (int.from_bytes(link.trace_id), int.from_bytes(link.span_id)) == (TRACE, PARENT)
        assert int.from_bytes(span.trace_id) != TRACE


async def test_retries_are_events_of_the_span() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            retry = {"attempts": 2, "backoff_s": 0.01}
            await manager.deploy("a", {"url": server.url, **CALM, "retry": retry})
            server.script("tools/list", faults.Status(503))
            await manager.list_tools("a")
        (span,) = spans(collector)
        (event,) = span.events
        assert event.name == "retry"
        assert attributes(event)[names.ERROR_TYPE].endswith("Error")
        assert span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano
        assert attributes(span)[names.ATTEMPTS] == 2
        first, second = metas(server, "tools/list")
        assert first["traceparent"] == second["traceparent"]


async def test_a_tool_that_reports_an_error_makes_its_span_an_error(tmp_path: Path) -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            server.script("tools/call", faults.Result({"content": [], "isError": True}))
            assert (await manager.call_tool("a", "echo", {"text": "x"})).is_error
        (span,) = spans(collector)
        assert attributes(span)[names.ERROR_TYPE] == "tool_error"
        assert span.status.code == Status.STATUS_CODE_ERROR


async def test_arguments_and_results_are_recorded_on_request_and_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0, content_bytes=40)) as manager:
            settings = {"url": server.url, "auth": {"type": "bearer", "token": CANARY}, **CALM}
            await manager.deploy("a", settings)
            await manager.call_tool("a", "echo", {"text": f"{CANARY} " + "x" * 100})
            server.script("tools/call", faults.Status(500, body=f"bad token {CANARY}".encode()))
            with pytest.raises(CallError):
                await manager.call_tool("a", "echo", {"text": "y"})
        first, _ = spans(collector)
        told = attributes(first)
        assert told[names.TOOL_ARGUMENTS] == ('{"text":"*** ' + "x" * 100)[:40]
        assert len(told[names.TOOL_RESULT]) == 40
    assert not any(CANARY.encode() in body for body in collector.bodies)
    assert CANARY not in caplog.text


async def test_the_provider_of_the_application_makes_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(exporting, "provider_of_application", lambda: provider)
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            with provider.get_tracer("application").start_as_current_span("outer") as outer:
                await manager.execute_raw("a", echo("x"))
            await manager.execute_raw("a", b'{"method":"no/such"}')
        # Not twice.
        assert collector.attempts == 0
        call, _, failed = kept.get_finished_spans()
        assert call.parent is not None
        assert call.context is not None
        assert call.parent.span_id == outer.get_span_context().span_id
        assert call.instrumentation_scope is not None
        assert call.instrumentation_scope.schema_url == names.SCHEMA_URL
        assert metas(server)[0]["traceparent"] == f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-01"
        assert failed.attributes is not None
        assert failed.attributes[names.ERROR_TYPE] == "-32601"
        assert not failed.status.is_ok


class Broken(SpanProcessor):
    """Fails wherever it is called."""

    def on_start(self, span: object, parent_context: object = None) -> None:
        raise RuntimeError("no span")

    def on_end(self, span: object) -> None:
        raise RuntimeError("no end")


async def test_a_tracer_of_the_application_that_fails_costs_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(Broken())
    monkeypatch.setattr(exporting, "provider_of_application", lambda: provider)
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"


async def test_the_sampler_of_the_application_may_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    monkeypatch.setattr(exporting, "provider_of_application", lambda: provider)
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
        assert metas(server) == [{}]


class OnlyAfterTheFact(Sampler):
    """Refuses all spans but those that are made after the fact."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        attributes = kwargs.get("attributes", args[4] if len(args) > 4 else None)
        return (ALWAYS_ON if names.AFTERWARDS in attributes else ALWAYS_OFF).should_sample(*args, **kwargs)

    def get_description(self) -> str:
        return "OnlyAfterTheFact"


async def test_the_sampler_of_the_application_knows_what_is_made_after_the_fact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=OnlyAfterTheFact(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(exporting, "provider_of_application", lambda: provider)
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
            await manager.execute_raw("a", b'{"method":"no/such"}')
    (failed,) = kept.get_finished_spans()
    assert failed.name == "no/such"
    assert failed.attributes is not None
    assert failed.attributes[names.AFTERWARDS] is True


@pytest.mark.parametrize("kind", ["sdk", "fastmcp"])
async def test_the_spans_of_a_real_server_are_children_of_the_call(kind: str) -> None:
    program = str(Path(__file__).parents[2] / "support" / "programs" / "tracing_stdio.py")
    command = {"command": sys.executable, "args": ["-P", program, *(["--fastmcp"] if kind == "fastmcp" else [])]}
    with Collector() as collector:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {**command, **CALM, "connect_timeout_s": 30.0})
            trace_id, parent_id, is_remote = (await manager.call_tool("a", "spans", {}, timeout=30)).text.split()
        (span,) = spans(collector)
        assert attributes(span)[names.TRANSPORT] == "pipe"
        assert trace_id == span.trace_id.hex()
        # FastMCP adds a span of its own between the SDK's and the tool.
        assert kind == "fastmcp" or (parent_id, is_remote) == (span.span_id.hex(), "True")


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize("kind", ["sdk", "fastmcp"])
async def test_the_call_is_the_only_parent_of_what_a_real_server_traces(kind: str, revision: str) -> None:
    with (
        Collector() as collector,
        HttpServerProcess("tracing_http.py", *(["--fastmcp"] * (kind == "fastmcp"))) as server,
    ):
        async with McpManager(fleet(collector)) as manager:
            settings = {"url": server.url, "protocol_version": revision, **CALM, "connect_timeout_s": 30.0}
            await manager.deploy("a", settings)
            await manager.call_tool("a", "spans", {}, timeout=30)
            token = context.attach(in_trace(True))
            try:
                told = (await manager.call_tool("a", "spans", {}, timeout=30)).text
            finally:
                context.detach(token)
        (span,) = spans(collector)
    made = [line.split() for line in told.splitlines()]
    ours = [each for each in made if each[1] == f"{TRACE:032x}"]
    ids = {own: parent for _, _, own, parent in ours}
    assert [parent for name, _, _, parent in ours if name == "POST"] == [span.span_id.hex()]
    # The tool's own span, which comes last: every path from it leads to the call.
    at = ours[-1][2]
    while at in ids:
        at = ids[at]
    # FastMCP ends a span between the two only after the tool.
    assert at == span.span_id.hex() or kind == "fastmcp"
    assert ours[-1] == made[-1]


async def test_a_trace_is_in_the_header_fields_whatever_way_a_request_takes() -> None:
    for lanes in (True, False):
        with Collector() as collector, ScriptedServer() as server, StatelessServer() as modern:
            config = msgspec.structs.replace(fleet(collector, ratio=1.0), http_lanes=lanes)
            async with McpManager(config) as manager:
                for number, each in enumerate((server, modern)):
                    await manager.deploy(f"s{number}", {"url": each.url, **CALM})
                    for params in (b"", b',"params":{ }', b',"params":{"a":{}}') if each is server else ():
                        await manager.execute_raw(f"s{number}", b'{"method":"tools/call"%b}' % params)
                    await manager.execute_raw(f"s{number}", echo("x"))
                    await manager.execute_raw(f"s{number}", b'{"method":"no/such","params":{}}')
                    await manager.list_tools(f"s{number}")
                    await manager.ping(f"s{number}")
        for each in (server, modern):
            assert all(meta["traceparent"].endswith("-01") for meta in metas(each)), metas(each)
            for method in ("tools/list", "no/such"):
                assert [meta["traceparent"][:3] for meta in metas(each, method)] == ["00-"]
        assert [meta["traceparent"][:3] for meta in metas(server, "ping")] == ["00-"]


async def test_a_refusal_of_a_traced_request_is_read_as_that_of_any_other() -> None:
    refusal = faults.Status(400, body=b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}')
    errors = []
    with Collector() as collector, ScriptedServer() as server:
        for ratio in (0.0, 1.0):
            async with McpManager(fleet(collector, ratio=ratio)) as manager:
                await manager.deploy("a", {"url": server.url, **CALM})
                server.script("tools/call", refusal)
                with pytest.raises(CallError) as raised:
                    await manager.execute_raw("a", echo("x"))
                errors.append((type(raised.value), raised.value.delivery, str(raised.value)))
    assert errors[0] == errors[1]


async def test_a_trace_state_that_would_be_a_header_of_its_own_is_not_sent_as_one() -> None:
    given = {"traceparent": SAMPLED, "tracestate": "a=1\r\nX-Bad: 1"}
    with ScriptedServer() as server:
        async with McpManager(trace_context=lambda: given) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
        (request,) = server.requests_of("tools/call")
        assert request.headers["traceparent"] == SAMPLED
        assert not {"tracestate", "x-bad"} & request.headers.keys()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_log_records_of_a_traced_call_name_its_span(ratio: float, caplog: pytest.LogCaptureFixture) -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=ratio)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            server.script("tools/call", faults.Status(500))
            with pytest.raises(CallError):
                await manager.execute_raw("a", echo("x"))
        (span,) = spans(collector)
        about = [each for each in caplog.records if getattr(each, "event", "") in ("fault", "flight_records")]
        assert len(about) == 2
        for each in about:
            line = json.loads(JsonFormatter().format(each))
            told = {"trace_id": span.trace_id.hex(), "span_id": span.span_id.hex()} if ratio else {}
            assert {name: value for name, value in line.items() if name in ("trace_id", "span_id")} == told


async def test_calls_in_every_way_are_traced() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"), key="k")
            await manager.call_tool("a", "echo", {"text": "x"}, on_progress=lambda *_: None)
            await manager.list_tools("a")
            await manager.ping("a")
            await manager.scale("a", 2)
            await manager.list_tools("a")
        found = [span.name for span in spans(collector)]
        assert found == ["tools/call echo", "tools/call echo", "tools/list", "ping", "tools/list"]


async def test_a_collector_that_is_gone_costs_no_call(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = TelemetryConfig(traces=TracesConfig(ratio=1.0), endpoint=f"http://127.0.0.1:{unused_port()}")
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig(telemetry=telemetry)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(3):
                await manager.execute_raw("a", echo("x"))
    assert "spans could not be exported" in caplog.text


async def test_a_queue_that_is_full_drops_spans_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "5")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    released = threading.Event()
    with Collector() as collector, ScriptedServer() as server:
        # Spans wait until their fate is known.
        collector.script(Answer(hold=released))
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(8):
                await manager.execute_raw("a", echo("x"))
            exporter: Any = manager._telemetry._spans
            assert exporter.lost == 3
            released.set()
        assert len(spans(collector)) == 5


async def test_a_forked_child_has_no_thread_that_exports() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
            assert THREAD not in in_child(lambda: [each.name for each in threading.enumerate()])
        assert len(spans(collector)) == 1


async def test_a_cancelled_call_ends_its_span() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            hold = faults.Hold()
            server.script("tools/call", hold)
            call = asyncio.create_task(manager.execute_raw("a", echo("x")))
            await server.wait_for("tools/call", 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            hold.release()
        (span,) = spans(collector)
        assert attributes(span)[names.ERROR_TYPE] == "cancelled"


async def test_cached_lists_are_found_by_traced_calls_as_well() -> None:
    with Collector() as collector, StatelessServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            listed = {"tools": [], "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private"}
            server.script("tools/list", faults.Result(listed))
            for _ in range(3):
                assert await manager.list_tools("a") == []
            assert len(server.requests_of("tools/list")) == 1
        assert len(spans(collector)) == 3


async def test_a_last_good_result_is_found_whatever_trace_it_came_from() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, ratio=1.0)) as manager:
            fallback = {"stale_s": 60.0}
            await manager.deploy("a", {"url": server.url, **CALM, "fallback": fallback})
            tools = await manager.list_tools("a")
            server.script("tools/list", faults.Status(500))
            assert await manager.list_tools("a") == tools


def test_the_trace_of_a_calling_thread_goes_on(tmp_path: Path) -> None:
    with Collector() as collector, ScriptedServer() as server:
        file = tmp_path / "fleet.toml"
        file.write_text(f"[manager.telemetry]\ntraces = {{ ratio = 0 }}\nendpoint = {collector.url!r}\n")
        with PyMcpManager(str(file)) as manager:
            manager.deploy_server("a", {"url": server.url, **CALM})
            token = context.attach(in_trace(True))
            try:
                manager.execute("a", echo("x").decode())
            finally:
                context.detach(token)
        (span,) = spans(collector)
        assert int.from_bytes(span.parent_span_id) == PARENT
