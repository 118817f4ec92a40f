"""Telemetry together with other parts: failures, tool rules, callers, and servers that come and go."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any

import msgspec
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from support.calls import CALM, echo, eventually
from support.collector import Collector, attributes

from mcp_manager import (
    Caller,
    DeadlineExceededError,
    ManagerConfig,
    McpManager,
    OverloadedError,
    RpcError,
    TelemetryConfig,
    ToolNotAllowedError,
    TracesConfig,
)
from mcp_manager._core.http_message import Request
from mcp_manager.calls.call import Call, Where
from mcp_manager.telemetry import conventions as names
from mcp_manager.telemetry import dispatcher as dispatching
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

TOKEN, OWN = "canary-caller-91b2", "canary-own-55aa"


def traced(collector: Collector, **traces: Any) -> ManagerConfig:
    settings = {"ratio": 0.0, "slow": "off", **traces}
    return ManagerConfig(telemetry=TelemetryConfig(traces=TracesConfig(**settings), endpoint=collector.url))


def in_flight(manager: McpManager) -> int:
    return manager._router.server_counts("a", 0).inflight


@pytest.mark.both_loops
async def test_calls_that_time_out_or_are_cancelled_end_as_without_traces() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(traced(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "limits": {"max_concurrent": 2}})
            await manager.execute_raw("a", echo("x"))
            for _ in range(3):
                server.script("tools/call", faults.Hold())
                with pytest.raises(DeadlineExceededError):
                    await manager.execute_raw("a", echo("x"), timeout=0.1)
            assert in_flight(manager) == 0
            for number in range(3):
                server.script("tools/call", faults.Hold())
                call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=30))
                await server.wait_for("tools/call", 5 + number)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            assert in_flight(manager) == 0


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_forbidden_call_has_a_span_whatever_its_way(key: str | None) -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(traced(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "tools": {"deny": ["echo"]}})
            with pytest.raises(ToolNotAllowedError):
                await manager.execute_raw("a", echo("x"), key=key)
            assert await manager.list_tools("a") == []
        (span,) = [span for span, _ in collector.spans]
        assert attributes(span)[names.ERROR_TYPE] == "ToolNotAllowedError"


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_the_credentials_of_a_caller_are_masked_in_spans(ratio: float) -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(traced(collector, ratio=ratio, content_bytes=1000)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "auth": {"type": "bearer", "token": OWN}})
            caller = manager.for_caller(Caller("alice", auth=TOKEN))
            server.script("tools/call", faults.RpcErrorReply(-32603, f"oops {TOKEN} {OWN}"))
            with pytest.raises(RpcError):
                await caller.call_tool("a", "echo", {"text": f"mine is {TOKEN}"})
        told = "".join(str(span) for span, _ in collector.spans)
        assert "oops" in told
        assert TOKEN not in told
        assert OWN not in told


@pytest.mark.parametrize("is_broken", [False, True])
async def test_a_slow_call_that_succeeded_does_not_fail_because_it_is_looked_at(
    is_broken: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deep: list[Any] = []
    for _ in range(800):
        deep = [deep]
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(traced(collector, slow="p99", errors=False)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(100):
                await manager.execute_raw("a", echo("x"))
            manager._dispatcher.path.measure_again()
            await manager.execute_raw("a", echo("x"))
            if is_broken:
                monkeypatch.setattr(dispatching, "scan", lambda *_, **__: 1 / 0)
            hold = faults.Hold()
            server.script("tools/call", hold)
            asyncio.get_running_loop().call_later(0.4, hold.release)
            assert (await manager.call_tool("a", "echo", {"text": "slow", "deep": deep})).text == "slow"
            await manager.call_tool("a", "echo", {"text": "fast"})
        if is_broken:
            assert "a span could not be made" in caplog.text
            assert caplog.records[0].exc_info is not None
        else:
            slow = [span for span, _ in collector.spans if span.end_time_unix_nano - span.start_time_unix_nano > 0.3e9]
            assert [span.name for span in slow] == ["tools/call echo"]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_caller_for_whom_there_is_no_session_gets_the_error_of_the_call(ratio: float) -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(traced(collector, ratio=ratio, content_bytes=1000)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "max_caller_sessions": 1})
            hold = faults.Hold()
            server.script("tools/call", hold)
            held = asyncio.create_task(manager.for_caller(Caller("alice")).call_tool("a", "echo", {"text": "x"}))
            await server.wait_for("tools/call")
            # As a call is repeated after a visit of a URL, while which its session was ended.
            request = Request(b'"tools/call"', b'{"name":"echo","arguments":{"text":"%b"}}' % TOKEN.encode())
            now_ns = time.monotonic_ns()
            caller = Caller("bob", auth=TOKEN)
            call = Call(
                manager._supervisor_of("a"), "tools/call", request, now_ns, now_ns + 10**10, Where(key="bob"),
                caller=caller,
            )  # fmt: skip
            with pytest.raises(OverloadedError, match="caller"):
                await manager._dispatcher.make(call)
            assert sum(manager._dispatcher.errors.of("a").values()) == 1
            hold.release()
            await held
        assert len([span for span, _ in collector.spans if names.ERROR_TYPE in attributes(span)]) == 1
        assert TOKEN not in str(collector.spans)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_baggage_that_cannot_be_sent_costs_no_call(ratio: float, caplog: pytest.LogCaptureFixture) -> None:
    parent = SpanContext(1, 2, True, TraceFlags(TraceFlags.SAMPLED if ratio else 0))
    in_trace = trace.set_span_in_context(NonRecordingSpan(parent))
    with Collector() as collector, ScriptedServer() as server:
        config = traced(collector)
        telemetry = msgspec.structs.replace(config.telemetry, propagate_baggage=True)
        async with McpManager(msgspec.structs.replace(config, telemetry=telemetry)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for value in ("\udc80", "v" * 4_080):
                token = context.attach(baggage.set_baggage("a", value, baggage.set_baggage("b", value, in_trace)))
                try:
                    await manager.execute_raw("a", echo("x"))
                finally:
                    context.detach(token)
        unwritable, long = server.requests_of("tools/call")
        for request in (unwritable, long):
            assert request.headers["traceparent"] == request.params["_meta"]["traceparent"]
            assert "baggage" not in request.headers
        assert "baggage" not in unwritable.params["_meta"]
        assert len(long.params["_meta"]["baggage"]) > 8_160
        assert "baggage cannot be written" in caplog.text


def totals(collector: Collector, temporality: str) -> int:
    """How many calls of tools all points tell of together, of whatever server they are."""
    found: defaultdict[tuple[int, str], int] = defaultdict(int)
    for point in collector.points(names.CALLS.name):
        if attributes(point).get(names.METHOD) == "tools/call":
            series = point.start_time_unix_nano, attributes(point)[names.TOOL]
            found[series] = point.as_int if temporality == "cumulative" else found[series] + point.as_int
    return sum(found.values())


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("is_replaced", [False, True])
async def test_counts_of_a_server_that_drains_are_exported_once(temporality: str, is_replaced: bool) -> None:
    with Collector() as collector, ScriptedServer() as server:
        telemetry = TelemetryConfig(
            metrics=True,
            endpoint=collector.url,
            interval_s=0.05,
            temporality=temporality,  # type: ignore[arg-type]
        )
        config = {"url": server.url, **CALM, "shutdown_grace_s": 30}
        async with McpManager(ManagerConfig(telemetry=telemetry)) as manager:
            await manager.deploy("a", config)
            for _ in range(20):
                await manager.execute_raw("a", echo("x"))
            await collector.wait_until(lambda: totals(collector, temporality) == 20)
            hold = faults.Hold()
            server.script("tools/call", hold)
            slow = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=30))
            await server.wait_for("tools/call", 21)
            before = len(collector.bodies)
            removal = asyncio.create_task(manager.undeploy("a"))
            while len(collector.bodies) < before + 2:
                await asyncio.sleep(0.01)
            if is_replaced:
                await manager.deploy("a", config)
                for _ in range(8):
                    await manager.execute_raw("a", echo("x"))
            hold.release()
            await asyncio.gather(slow, removal)
        assert totals(collector, temporality) == (29 if is_replaced else 21)


@pytest.mark.parametrize("max_tool_series", [0, 1_000])
@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
async def test_counts_of_a_server_that_is_removed_while_it_is_read_are_exported_once(
    temporality: str, max_tool_series: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as collector, ScriptedServer() as server:
        telemetry = TelemetryConfig(
            metrics=True,
            endpoint=collector.url,
            interval_s=3600,
            temporality=temporality,  # type: ignore[arg-type]
        )
        config = ManagerConfig(telemetry=telemetry, max_tool_series=max_tool_series)
        async with McpManager(config) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(7):
                await manager.execute_raw("a", echo("x"))
            exporter, sources = manager._telemetry._metrics, manager._telemetry._sources
            assert exporter is not None
            assert sources is not None
            listed = sources.servers()
            await manager.undeploy("a")
            with monkeypatch.context() as patch:
                # The list of servers was made before.
                patch.setattr(sources, "servers", lambda: listed)
                await exporter._export(None)
            await exporter._export(None)
        counts: defaultdict[tuple[object, int], int] = defaultdict(int)
        for point in collector.points(names.CALLS.name):
            told = attributes(point)
            if told.get(names.METHOD) == "tools/call":
                series = told.get(names.TOOL), point.start_time_unix_nano
                counts[series] = point.as_int if temporality == "cumulative" else counts[series] + point.as_int
        assert sum(counts.values()) == 7


@pytest.mark.parametrize("max_tool_series", [0, 1_000])
async def test_a_server_that_still_ends_when_the_manager_stops_is_exported_once(max_tool_series: int) -> None:
    with Collector() as collector, ScriptedServer() as server:
        telemetry = TelemetryConfig(metrics=True, endpoint=collector.url, interval_s=3600, temporality="delta")
        async with McpManager(ManagerConfig(telemetry=telemetry, max_tool_series=max_tool_series)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(3):
                await manager.execute_raw("a", echo("x"))
            server.script("tools/call", faults.Hold())
            held = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=30))
            await server.wait_for("tools/call", 4)
            removal = asyncio.create_task(manager.undeploy("a"))
            await eventually(lambda: not manager._fleet.servers, "the beginning of the removal")
        await asyncio.gather(held, removal, return_exceptions=True)
        counts: defaultdict[str | None, int] = defaultdict(int)
        for point in collector.points(names.CALLS.name):
            told = attributes(point)
            if told.get(names.METHOD) == "tools/call":
                counts[told.get(names.ERROR_TYPE)] += point.as_int
        assert counts[None] == 3
        assert sum(counts.values()) == 4
