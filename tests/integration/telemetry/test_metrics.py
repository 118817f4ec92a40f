"""The export of metrics to a real collector: it finds the core's own counts, to the last call."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA
from support.calls import CALM, echo
from support.collector import Answer, Collector, attributes, metrics
from support.forking import in_child
from support.processes import unused_port

from mcp_manager import CallError, ManagerConfig, McpManager, PyMcpManager, TelemetryConfig, TracesConfig
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.telemetry import conventions as names
from mcp_manager.telemetry import metrics as exporting
from mcp_manager.telemetry import open_telemetry
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

SOON_S = 0.1
CANARY = "canary-7f3a91"
THREAD = "mcp_manager telemetry: metrics"


def fleet(collector: Collector, **settings: Any) -> ManagerConfig:
    return ManagerConfig(
        telemetry=TelemetryConfig(**{"metrics": True, "endpoint": collector.url, "interval_s": 600.0, **settings})
    )


def counted(collector: Collector, **labels: Any) -> dict[str | None, int]:
    """The calls by error, of the latest point of each series that has these attributes."""
    found: dict[str | None, int] = {}
    for series, point in collector.newest(names.CALLS.name).items():
        told = dict(series)
        if labels.items() <= told.items():
            error = told.get(names.ERROR_TYPE)
            found[error] = found.get(error, 0) + point.as_int
    return found


def durations(collector: Collector) -> dict[str, Any]:
    """The latest histogram by method."""
    return {dict(series)[names.METHOD]: point for series, point in collector.newest(names.DURATION.name).items()}


def by_tool(points: Iterable[Any]) -> dict[tuple[str, str | None], int]:
    """The sums of points of tool calls, by tool and error."""
    found: dict[tuple[str, str | None], int] = {}
    for point in points:
        told = attributes(point)
        if told.get(names.METHOD) == "tools/call":
            assert told[names.OPERATION] == "execute_tool"
            key = told[names.TOOL], told.get(names.ERROR_TYPE)
            found[key] = found.get(key, 0) + (point.as_int if hasattr(point, "as_int") else point.count)
    return found


async def called(manager: McpManager, tool: str) -> None:
    await manager.execute_raw("a", b'{"method":"tools/call","params":{"name":"%b"}}' % tool.encode())


@pytest.mark.parametrize("buckets", ["exponential", "semconv"])
async def test_every_tool_has_series_of_its_own_and_no_call_is_in_two(buckets: str) -> None:
    with Collector() as collector, ScriptedServer() as server:
        settings = msgspec.structs.replace(fleet(collector, buckets=buckets), max_tool_series=3)
        async with McpManager(settings) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            # The first two lose their places.
            for number in (0, 0, 1, 2, 2, 2, 3, 4):
                await called(manager, f"tool-{number}")
            await manager.execute_raw("a", b'{"method":"tools/call","params":{}}')
            server.script("tools/call", faults.Status(500))
            with pytest.raises(CallError):
                await called(manager, "tool-3")
            (counts,) = [each for each in manager._router.server_counts("a", 0).methods if each.method == "tools/call"]
        points = collector.points(names.DURATION.name)
        assert by_tool(points) == {
            ("tool-2", None): 3,
            ("tool-3", None): 2,
            ("tool-4", None): 1,
            ("_other", None): 4,
        }
        assert sum(by_tool(points).values()) == counts.count == 10
        assert sum(point.sum for point in points) == pytest.approx(counts.sum_s)
        for point in points:
            held = point.zero_count + sum(point.positive.bucket_counts) if buckets == "exponential" else None
            assert held is None or held == point.count
        found = by_tool(collector.points(names.CALLS.name))
        assert found[("tool-3", "protocol_error")] == 1
        assert sum(found.values()) == 10


async def test_without_a_table_of_tools_their_calls_are_together() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(msgspec.structs.replace(fleet(collector), max_tool_series=0)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await called(manager, "echo")
        (point,) = collector.points(names.DURATION.name)
        assert point.count == 1
        assert names.TOOL not in attributes(point)


async def test_deltas_count_no_call_twice_when_tools_lose_their_places() -> None:
    with Collector() as collector, ScriptedServer() as server:
        settings = fleet(collector, interval_s=SOON_S, temporality="delta")
        made = 0
        async with McpManager(msgspec.structs.replace(settings, max_tool_series=2)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for number in (1, 2, 3, 1, 2, 1, 1, 3):
                for _ in range(number + 1):
                    await called(manager, f"tool-{number}")
                made += number + 1
                await collector.wait_until(
                    lambda made=made: sum(by_tool(collector.points(names.CALLS.name)).values()) >= made
                )
        assert sum(by_tool(collector.points(names.CALLS.name)).values()) == made
        points = collector.points(names.DURATION.name)
        assert sum(point.count for point in points) == made
        assert sum(point.zero_count + sum(point.positive.bucket_counts) for point in points) == made
        assert {tool for tool, _ in by_tool(points)} >= {"tool-1", "tool-2", "tool-3"}


async def test_a_tool_that_gets_a_place_again_has_a_new_start_time() -> None:
    with Collector() as collector, ScriptedServer() as server:
        settings = msgspec.structs.replace(fleet(collector), max_tool_series=1)
        async with McpManager(settings) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            exporter = manager._telemetry._metrics
            assert exporter is not None
            for tool in ("one", "one", "two", "one", "one"):
                await called(manager, tool)
                await exporter._export(None)
        for family in (names.CALLS.name, names.DURATION.name):
            points = [each for each in collector.points(family) if attributes(each).get(names.TOOL) == "one"]
            counts = [point.as_int if hasattr(point, "as_int") else point.count for point in points]
            starts = [point.start_time_unix_nano for point in points]
            # The last one is of the end.
            assert counts == [1, 2, 1, 2, 2]
            assert starts[0] == starts[1] < starts[2] == starts[3] == starts[4]
            assert points[1].time_unix_nano <= starts[2]


@pytest.mark.parametrize("buckets", ["exponential", "semconv"])
async def test_exemplars_of_traced_calls_are_exported_once(buckets: str) -> None:
    with Collector() as collector, ScriptedServer() as server:
        config = fleet(collector, buckets=buckets, interval_s=SOON_S, traces=TracesConfig(ratio=1.0, slow="off"))
        async with McpManager(config) as manager:
            await manager.deploy("a", {"url": server.url, "auth": {"type": "bearer", "token": CANARY}, **CALM})
            await called(manager, "echo")
            await manager.execute_raw("a", b'{"method":"no/such"}')
            server.script("tools/call", faults.Status(500, body=CANARY.encode()))
            with pytest.raises(CallError):
                await manager.call_tool("a", "other", {"text": CANARY})
            took = sorted(each.total_s for each in manager._call_log.records())
            at = len(collector.arrived)
            await collector.wait_until(lambda: len(collector.arrived) >= at + 3)
        spans = {span.span_id: span for span, _ in collector.spans}
        assert len(spans) == 3
        exemplars = [
            (attributes(point)[names.METHOD], attributes(point).get(names.TOOL), each)
            for point in collector.points(names.DURATION.name)
            for each in point.exemplars
        ]
        assert sorted(each.span_id for *_, each in exemplars) == sorted(spans)
        assert sorted(each.as_double for *_, each in exemplars) == pytest.approx(took)
        assert not any(CANARY.encode() in body for body in collector.bodies)
        for method, tool, each in exemplars:
            span = spans[each.span_id]
            assert each.trace_id == span.trace_id
            assert attributes(span)[names.METHOD] == method
            assert attributes(span).get(names.TOOL) == tool
            assert not each.filtered_attributes
            assert span.start_time_unix_nano <= each.time_unix_nano <= span.end_time_unix_nano


async def test_calls_that_are_not_traced_leave_no_exemplar() -> None:
    with Collector() as collector, ScriptedServer() as server:
        config = fleet(collector, traces=TracesConfig(ratio=0.0, slow="off", errors=False))
        async with McpManager(config) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await called(manager, "echo")
            await manager.execute_raw("a", b'{"method":"no/such"}')
        assert not [each for point in collector.points(names.DURATION.name) for each in point.exemplars]


async def test_retries_of_a_server_are_not_counted_for_the_one_that_replaces_it() -> None:
    with Collector() as collector, ScriptedServer() as server:
        settings = {"url": server.url, **CALM, "retry": {"attempts": 2, "backoff_s": 0.01}, "shutdown_grace_s": 30}
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", settings)
            server.script("tools/list", faults.Status(503))
            await manager.list_tools("a")
            hold = faults.Hold()
            server.script("tools/call", hold)
            slow = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=30))
            await server.wait_for("tools/call", 1)
            removal = asyncio.create_task(manager.undeploy("a"))
            while manager.servers():
                await asyncio.sleep(0)
            # The first one has not ended yet.
            await manager.deploy("a", settings)
            hold.release()
            await asyncio.gather(slow, removal)
            assert manager._supervisor_of("a").recoveries is None
        assert sum(point.as_int for point in collector.points(names.RETRIES.name)) == 1


@pytest.mark.both_loops
async def test_a_collector_finds_the_counts_of_the_core_to_the_last_call() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for number in range(20):
                await manager.execute_raw("a", echo(str(number)))
            await manager.execute_raw("a", b'{"method":"no/such"}')
            server.script("tools/call", faults.Status(500))
            with pytest.raises(CallError):
                await manager.execute_raw("a", echo("fails"))
            record = manager._router.server_counts("a", 0)
        (last,) = collector.arrived
        assert counted(collector, **{names.METHOD: "tools/call"}) == {None: 20, "protocol_error": 1}
        assert counted(collector, **{names.METHOD: "no/such"}) == {"rpc_error": 1}
        shown = durations(collector)
        assert {each.method: each.count for each in record.methods} == {
            method: point.count for method, point in shown.items()
        }
        for each in record.methods:
            point = shown[each.method]
            assert point.sum == pytest.approx(each.sum_s)
            assert point.zero_count + sum(point.positive.bucket_counts) == each.count
            # Powers of two are bounds of both.
            scale = 2**point.scale
            for bound, count in each.buckets:
                below = [
                    number
                    for index, number in enumerate(point.positive.bucket_counts, point.positive.offset)
                    if 2.0 ** ((index + 1) / scale) <= bound
                ]
                assert point.zero_count + sum(below) == count
        scope = last.message.resource_metrics[0].scope_metrics[0]
        assert scope.schema_url == names.SCHEMA_URL
        assert scope.scope.name == "mcp_manager"
        resource = attributes(last.message.resource_metrics[0].resource)
        assert resource["service.name"] == "mcp-manager"
        assert {"service.instance.id", "service.version"} <= resource.keys()
        known = {family.name: family for family in names.FAMILIES}
        assert {metric.name for metric in metrics(last.message)} <= known.keys()
        assert all(metric.unit == known[metric.name].unit for metric in metrics(last.message))
        told = dict(next(iter(collector.newest(names.DURATION.name))))
        assert told[names.SERVER] == "a"
        assert told[names.TRANSPORT] == "tcp"
        assert (told[names.ADDRESS], told[names.PORT]) == ("127.0.0.1", server.port)


async def test_exports_repeat_and_name_the_same_beginning() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, interval_s=SOON_S)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
            await collector.wait_until(lambda: len(collector.points(names.DURATION.name)) >= 2)
            await manager.execute_raw("a", echo("x"))
        points = collector.points(names.DURATION.name)
        assert len({point.start_time_unix_nano for point in points}) == 1
        times = [point.time_unix_nano for point in points]
        assert times == sorted(set(times))
        assert points[0].start_time_unix_nano < times[0]
        assert [point.count for point in points] == sorted(point.count for point in points)
        assert points[-1].count == 2
        assert not [thread for thread in threading.enumerate() if thread.name == THREAD]


async def test_deltas_add_up_to_the_calls() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, interval_s=SOON_S, temporality="delta")) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for number in range(3):
                for _ in range(4):
                    await manager.execute_raw("a", echo("x"))
                await collector.wait_until(
                    lambda number=number: (
                        sum(point.count for point in collector.points(names.DURATION.name)) == 4 * (number + 1)
                    )
                )
            await manager.execute_raw("a", echo("x"))
        points = collector.points(names.DURATION.name)
        assert sum(point.count for point in points) == 13
        assert sum(sum(point.positive.bucket_counts) for point in points) == 13
        assert sum(point.as_int for point in collector.points(names.CALLS.name)) == 13
        for before, after in itertools.pairwise(points):
            assert before.time_unix_nano == after.start_time_unix_nano
        temporality = {
            metric.sum.aggregation_temporality
            for each in collector.arrived
            for metric in metrics(each.message)
            if metric.name == names.CALLS.name
        }
        assert temporality == {AGGREGATION_TEMPORALITY_DELTA}


async def test_the_last_counts_of_a_server_that_is_removed_are_exported() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector)) as manager:
            for calls in (3, 2):
                await manager.deploy("a", {"url": server.url, **CALM})
                for _ in range(calls):
                    await manager.execute_raw("a", echo("x"))
                await manager.undeploy("a")
        first, second = collector.points(names.DURATION.name)
        assert (first.count, second.count) == (3, 2)
        assert first.time_unix_nano <= second.start_time_unix_nano


async def test_levels_tell_the_state_of_the_fleet() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, interval_s=SOON_S)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.deploy("lazy", {"url": server.url, "connect": "lazy"})
            hold = faults.Hold()
            server.script("tools/call", hold)
            call = asyncio.create_task(manager.execute_raw("a", echo("x")))
            await server.wait_for("tools/call", 1)
            at = len(collector.arrived)
            await collector.wait_until(lambda: len(collector.arrived) >= at + 2)
            newest = collector.arrived[-1]
            hold.release()
            await call

        def level(name: str, **labels: str) -> list[float]:
            return [
                point.as_int
                for point in collector.points(name, newest)
                if {key: value for key, value in attributes(point).items() if key in labels} == labels
            ]

        assert level(names.ACTIVE.name, **{names.SERVER: "a"}) == [1]
        assert level(names.INSTANCES.name, **{names.SERVER: "a", names.STATE: "ready"}) == [1]
        # A lazy server that was never used has no series of its own.
        assert level(names.ACTIVE.name, **{names.SERVER: "lazy"}) == []
        assert sum(level(names.SERVERS.name)) == 2


async def test_a_collector_that_is_gone_costs_no_call_and_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = TelemetryConfig(metrics=True, endpoint=f"http://127.0.0.1:{unused_port()}", interval_s=SOON_S)
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig(telemetry=telemetry)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(20):
                await manager.execute_raw("a", echo("x"))
    reports = [each for each in caplog.records if each.name == exporting.__name__]
    assert len(reports) == 1
    assert "could not be exported" in reports[0].getMessage()


async def test_a_collector_that_does_not_answer_holds_up_the_end_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcp_manager.telemetry.pipeline._LAST_EXPORT_S", 0.3)
    never = threading.Event()
    with Collector() as collector, ScriptedServer() as server:
        collector.always(lambda size: Answer(hold=never))
        async with McpManager(fleet(collector, interval_s=SOON_S)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            while not collector.bodies:
                # The first export hangs, and calls go on.
                await manager.execute_raw("a", echo("x"))
        assert not [thread for thread in threading.enumerate() if thread.name == THREAD]
        assert collector.arrived == []
        never.set()


async def test_a_request_that_is_too_large_is_sent_in_parts() -> None:
    with Collector() as collector, ScriptedServer() as server:
        collector.always(lambda size: Answer(413 if size > 1500 else 200))
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for method in ("tools/call", *(f"other/{number}" for number in range(9))):
                await manager.execute_raw("a", b'{"method":"%s","params":{"name":"echo"}}' % method.encode())
        assert len(collector.arrived) > 5
        assert sum(counted(collector).values()) == 10
        assert len(durations(collector)) == 10


async def test_a_busy_collector_is_asked_again_when_it_said() -> None:
    with Collector() as collector, ScriptedServer() as server:
        collector.script(Answer(429, {"Retry-After": "0"}), Answer(503, {"Retry-After": "0"}))
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
        assert collector.attempts == 3
        assert counted(collector) == {None: 1}


async def test_what_a_collector_refuses_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with Collector() as collector, ScriptedServer() as server:
        collector.script(Answer(400), Answer(rejected=2))
        async with McpManager(fleet(collector, interval_s=SOON_S)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await collector.wait_until(lambda: collector.attempts >= 3)
        lost = collector.points(names.LOST_POINTS.name)[-1].as_int
        assert lost > 2
        results = {
            dict(series)[names.RESULT]: point.as_int for series, point in collector.newest(names.EXPORTS.name).items()
        }
        assert results["refused"] == 1
        assert results["accepted"] >= 1
    assert "HTTP 400" in caplog.text


async def test_compression_headers_and_resource_come_from_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector, ScriptedServer() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{CANARY}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "agents")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=7")
        async with McpManager(ManagerConfig(telemetry=TelemetryConfig(metrics=True))) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
        (last,) = collector.arrived
        assert last.headers["Content-Encoding"] == "gzip"
        assert last.headers["Authorization"] == f"Bearer {CANARY}"
        resource = attributes(last.message.resource_metrics[0].resource)
        assert resource["service.name"] == "agents"
        assert resource["service.version"] == "7"
        assert resource["deployment.environment.name"] == "test"


async def test_no_secret_is_in_what_is_exported_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Collector() as collector, ScriptedServer() as server:
        collector.script(Answer(500))
        settings = {
            "url": f"{server.url}?key={CANARY}",
            "auth": {"type": "bearer", "token": CANARY},
            "headers": {"X-Secret": CANARY},
            **CALM,
        }
        async with McpManager(fleet(collector, interval_s=SOON_S)) as manager:
            await manager.deploy("a", settings)
            await manager.execute_raw("a", echo(CANARY))
            await collector.wait_until(lambda: bool(collector.points(names.DURATION.name)))
    assert collector.bodies
    assert not any(CANARY.encode() in body for body in collector.bodies)
    assert CANARY not in caplog.text


async def test_the_number_of_series_is_bounded_whatever_callers_ask_for() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for number in range(300):
                await manager.execute_raw("a", b'{"method":"made/up-%d"}' % number)
        assert len(durations(collector)) == 65
        assert durations(collector)["other"].count == 300 - 64
        assert sum(counted(collector).values()) == 300


def test_a_manager_with_a_thread_exports_what_its_file_says(tmp_path: Path) -> None:
    with Collector() as collector, ScriptedServer() as server:
        file = tmp_path / "fleet.toml"
        file.write_text(
            f"[manager.telemetry]\nmetrics = true\nendpoint = {collector.url!r}\ntraces = {{ ratio = 0 }}\n"
        )
        with PyMcpManager(str(file)) as manager:
            manager.deploy_server("a", {"url": server.url, **CALM})
            manager.execute("a", echo("x").decode())
        assert counted(collector) == {None: 1}
        assert not [thread for thread in threading.enumerate() if thread.name == THREAD]


async def test_a_forked_child_exports_nothing() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
            told = in_child(lambda: [each.name for each in threading.enumerate()])
            assert THREAD not in told
            assert manager.is_running
        assert len(collector.arrived) == 1


async def test_a_manager_that_exports_nothing_has_the_usual_call_path_and_no_thread() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            assert type(manager._dispatcher) is Dispatcher
            assert not [thread for thread in threading.enumerate() if thread.name == THREAD]


async def test_variables_turn_the_export_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, interval_s=SOON_S)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
        assert collector.attempts == 0


async def test_fixed_buckets_on_request() -> None:
    with Collector() as collector, ScriptedServer() as server:
        async with McpManager(fleet(collector, buckets="semconv")) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
        (point,) = collector.points(names.DURATION.name)
        assert tuple(point.explicit_bounds) == names.SEMCONV_BOUNDS_S
        assert sum(point.bucket_counts) == point.count == 1


def test_the_thread_ends_with_the_loop_of_a_manager_that_nobody_stopped() -> None:
    with Collector() as collector, ScriptedServer() as server:

        async def leave() -> None:
            manager = McpManager(fleet(collector))
            await manager.start()
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))

        asyncio.run(leave())
        assert not [thread for thread in threading.enumerate() if thread.name == THREAD]
        assert counted(collector) == {None: 1}


def test_the_thread_does_not_keep_a_dropped_manager() -> None:
    with Collector() as collector, ScriptedServer():
        threads: list[threading.Thread] = []

        async def drop() -> None:
            telemetry = open_telemetry(fleet(collector).telemetry)
            manager = McpManager()
            parts = manager._router, manager._servers, (manager._dispatcher, manager._call_log), manager._monitor.tally
            telemetry.start(*parts, manager._lag)
            (thread,) = (each for each in threading.enumerate() if each.name == THREAD)
            threads.append(thread)

        asyncio.run(drop())
        gc.collect()
        (thread,) = threads
        thread.join(5.0)
        assert not thread.is_alive()
