"""The export of metrics to a real collector: it finds the core's own counts, to the last call."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA
from support import faults
from support.calls import CALM, echo
from support.collector import Answer, Collector, attributes, metrics
from support.forking import in_child
from support.processes import unused_port
from support.scripted import ScriptedServer

from mcp_manager import CallError, ManagerConfig, McpManager, PyMcpManager, TelemetryConfig
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.telemetry import conventions as names
from mcp_manager.telemetry import metrics as exporting
from mcp_manager.telemetry import open_telemetry

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
