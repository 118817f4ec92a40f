"""What only reads state answers anywhere: on every thread and loop, whether or not the manager's own is free, and always."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM
from support.processes import scripted_stdio

from mcp_manager import ManagerConfig, McpManager, PyMcpManager, ServerNotFoundError, load_manager_config
from mcp_manager.testing.scripted import ScriptedServer

PING = '{"method":"ping"}'
LIMIT_S = 30.0


def readings(manager: McpManager) -> list[Any]:
    """All of what can be read, in a form to compare: the server's state comes first."""
    manager.metrics_text()
    records = [each.method for each in manager.flight_records()]
    snapshot = manager.snapshot()
    return [
        manager.server("a").state,
        manager.server_state("a"),
        [each.id for each in manager.servers()],
        manager.health(),
        [(each.id, each.state, each.ready) for each in snapshot.servers],
        records,
    ]


def documented_readings(manager: PyMcpManager) -> list[Any]:
    """What the documented methods tell of one server."""
    assert 'server_id="a"' in manager.export_prometheus_metrics()
    health = manager.get_health_status()
    return [
        manager.get_server_state("a"),
        [(each.id, each.state) for each in manager.list_servers()],
        (health.total_servers, health.healthy_servers),
        [each.id for each in manager.snapshot().servers],
    ]


DOCUMENTED = ["Healthy", [("a", "Healthy")], (1, 1), ["a"]]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as started:
        yield started


def elsewhere(read: Callable[[], Any]) -> list[Any]:
    """Read on another thread, and on another loop, while this thread does nothing but wait."""

    async def on_a_loop() -> Any:
        return read()

    with ThreadPoolExecutor(1) as threads:
        return [threads.submit(each).result(LIMIT_S) for each in (read, lambda: asyncio.run(on_a_loop()))]


@pytest.mark.both_loops
async def test_a_manager_is_read_on_its_loop_and_while_that_is_blocked(server: ScriptedServer) -> None:
    async with McpManager(ManagerConfig()) as manager:
        await manager.deploy("a", {"url": server.url, **CALM})
        await manager.ping("a")
        here = readings(manager)
        assert here[0] == "Healthy"
        assert here[4] == [("a", "Healthy", 1)]
        assert here[5][-1] == "ping"
        assert elsewhere(lambda: readings(manager)) == [here, here]


@pytest.mark.both_loops
async def test_the_documented_readings_on_the_loop_of_the_manager_and_elsewhere(server: ScriptedServer) -> None:
    async with PyMcpManager() as manager:
        await manager.deploy_server_async("a", json.dumps({"url": server.url, **CALM}))
        assert documented_readings(manager) == DOCUMENTED
        assert await manager.get_server_state_async("a") == "Healthy"
        assert [each.id for each in await manager.list_servers_async()] == ["a"]
        assert elsewhere(lambda: documented_readings(manager)) == [DOCUMENTED, DOCUMENTED]


def test_the_documented_readings_while_the_managers_own_thread_is_blocked(server: ScriptedServer) -> None:
    with PyMcpManager() as manager:
        manager.deploy_server("a", json.dumps({"url": server.url, **CALM}))
        assert documented_readings(manager) == DOCUMENTED
        blocked, over = threading.Event(), threading.Event()

        def block() -> None:
            blocked.set()
            over.wait(LIMIT_S)

        assert manager._loop is not None
        manager._loop.call_soon_threadsafe(block)
        try:
            assert blocked.wait(LIMIT_S)
            assert documented_readings(manager) == DOCUMENTED
            assert asyncio.run(manager.get_health_status_async()).healthy_servers == 1
            assert not over.is_set()
        finally:
            over.set()


def test_a_fleet_that_does_not_run_is_empty_and_its_servers_are_stopped(tmp_path: Path, server: ScriptedServer) -> None:
    file = tmp_path / "fleet.json"
    file.write_text(json.dumps({"servers": {"a": {"url": server.url, **CALM}}}))

    def look(manager: PyMcpManager, *stopped: str) -> None:
        assert manager.list_servers() == []
        health = manager.get_health_status()
        counts = health.total_servers, health.healthy_servers, health.degraded_servers, health.unhealthy_servers
        assert counts == (0, 0, 0, 0)
        assert "server_id=" not in manager.export_prometheus_metrics()
        assert manager.snapshot().servers == ()
        assert [manager.get_server_state(each) for each in stopped] == ["Stopped"] * len(stopped)
        for unknown in ("nobody", None, []):
            with pytest.raises(ServerNotFoundError):
                manager.get_server_state(unknown)  # type: ignore[arg-type]

    manager = PyMcpManager(file)
    look(manager, "a")
    manager.start()
    manager.deploy_server("b", json.dumps({"url": server.url, **CALM}))
    assert manager.get_server_state("a") == "Healthy"
    manager.stop()
    look(manager, "a", "b")

    plain = McpManager(load_manager_config(file))
    assert (plain.servers(), plain.health().total_servers, plain.server_state("a")) == ([], 0, "Stopped")


def test_a_manager_whose_loop_does_not_run_shows_what_was_last(server: ScriptedServer) -> None:
    loop = asyncio.new_event_loop()
    manager = PyMcpManager()
    try:
        loop.run_until_complete(manager.start_async())
        loop.run_until_complete(manager.deploy_server_async("a", json.dumps({"url": server.url, **CALM})))
        assert documented_readings(manager) == DOCUMENTED
        loop.run_until_complete(manager.stop_async())
    finally:
        loop.close()


def test_reading_while_servers_come_scale_and_go(server: ScriptedServer) -> None:
    over = threading.Event()
    errors: list[BaseException] = []
    rounds = [0, 0, 0]

    def read(number: int, manager: PyMcpManager) -> None:
        try:
            while not over.is_set():
                health = manager.get_health_status()
                counts = (health.healthy_servers, health.degraded_servers, health.unhealthy_servers)
                assert sum(counts) == health.total_servers
                assert min(counts) >= 0
                for each in manager.list_servers():
                    assert each.state in ("Healthy", "Degraded", "Initializing", "Stopped")
                for shown in manager.snapshot().servers:
                    assert shown.ready <= len(shown.instances) or shown.draining
                manager.export_prometheus_metrics()
                try:
                    manager.get_server_state("s1")
                except ServerNotFoundError as error:
                    assert error.server_id == "s1"
                rounds[number] += 1
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with PyMcpManager() as manager:
            manager.deploy_server("program", json.dumps(scripted_stdio().config(**CALM)))
            threads = [threading.Thread(target=read, args=(number, manager)) for number in range(3)]
            for thread in threads:
                thread.start()
            turn = 0
            while turn < 6 or (min(rounds) < 6 and not errors):
                for name in ("s0", "s1"):
                    manager.deploy_server(name, json.dumps({"url": server.url, **CALM}))
                    manager.execute(name, PING)
                manager.scale_server("s0", 1 + turn % 3)
                for name in ("s0", "s1"):
                    manager.undeploy_server(name)
                turn += 1
            over.set()
            for thread in threads:
                thread.join(LIMIT_S)
    finally:
        over.set()
        sys.setswitchinterval(interval)
    assert errors == []
