"""Waiting for readiness ends when there is readiness, whatever brought it about."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from support.calls import echo, eventually

from mcp_manager import CallError, McpManager, NotRunningError, ServerState
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

WAIT_S = 15.0
UNPROBED = {"enabled": False, "settle_s": 0.0, "unhealthy_interval_s": 0.05, "unhealthy_interval_max_s": 0.05}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as running:
        yield running


async def waiting(manager: McpManager) -> asyncio.Task[None]:
    """Wait in a task of its own, which has found nothing ready yet."""
    task = asyncio.create_task(manager.wait_ready(timeout=WAIT_S))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_lost_session_is_made_again_though_nothing_is_probed(
    manager: McpManager, server: ScriptedServer
) -> None:
    await manager.deploy("a", {"url": server.url, "health": UNPROBED})
    server.expire_sessions()
    server.script("initialize", faults.Status(500), times=3)
    with pytest.raises(CallError):
        await manager.execute_raw("a", echo("lost"))
    assert manager.server("a").ready == 0
    await manager.wait_ready(timeout=WAIT_S)
    assert manager.server("a").state is ServerState.HEALTHY


async def test_a_server_that_was_down_is_tried_again_though_nothing_is_probed(
    manager: McpManager, server: ScriptedServer
) -> None:
    server.script("initialize", faults.Status(500), times=4)
    await manager.deploy("a", {"url": server.url, "health": UNPROBED})
    assert manager.server("a").state is ServerState.UNHEALTHY
    await manager.wait_ready(timeout=WAIT_S)
    assert manager.server("a").state is ServerState.HEALTHY


async def test_nobody_is_tried_again_once_nobody_waits(manager: McpManager, server: ScriptedServer) -> None:
    server.script_always("initialize", faults.Status(500))
    await manager.deploy("a", {"url": server.url, "health": UNPROBED})
    with pytest.raises(TimeoutError):
        await manager.wait_ready(timeout=0.01)
    with ScriptedServer() as clock:
        await manager.deploy("clock", {"url": clock.url, "health": {"interval_s": 0.05}})
        await eventually(lambda: len(clock.requests_of("ping")) >= 4, "the turn that was asked for has passed")
        tried = len(server.requests_of("initialize"))
        await eventually(lambda: len(clock.requests_of("ping")) >= 12, "there was time for more of them")
    assert len(server.requests_of("initialize")) == tried


async def test_lazy_servers_are_connected_for_whoever_waits(manager: McpManager, server: ScriptedServer) -> None:
    for name in "abc":
        await manager.deploy(name, {"url": server.url, "connect": "lazy"})
    await manager.wait_ready(min=1, timeout=WAIT_S)
    assert [view.ready for view in manager.servers()] == [1, 0, 0]
    await manager.wait_ready(timeout=WAIT_S)
    assert [view.ready for view in manager.servers()] == [1, 1, 1]


async def test_one_lazy_server_after_the_other_is_tried_until_there_are_enough(
    manager: McpManager, server: ScriptedServer
) -> None:
    with ScriptedServer() as broken:
        broken.script_always("initialize", faults.Status(500))
        await manager.deploy("broken", {"url": broken.url, "connect": "lazy"})
        await manager.deploy("b", {"url": server.url, "connect": "lazy"})
        await manager.wait_ready(min=1, timeout=WAIT_S)
        assert [view.ready for view in manager.servers()] == [0, 1]


async def test_the_end_of_maintenance_is_noticed(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("a", {"url": server.url})
    await manager.set_maintenance("a", True)
    task = await waiting(manager)
    await manager.set_maintenance("a", False)
    await task


async def test_nothing_is_connected_in_maintenance(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("a", {"url": server.url, "connect": "lazy"})
    await manager.set_maintenance("a", True)
    with pytest.raises(TimeoutError):
        await manager.wait_ready(timeout=0.05)
    await manager.set_maintenance("a", False)
    await manager.wait_ready(timeout=WAIT_S)
    assert manager.server("a").ready == 1


async def test_probes_that_succeed_again_are_noticed(manager: McpManager, server: ScriptedServer) -> None:
    health = {"interval_s": 0.05, "unhealthy_interval_s": 0.05, "unhealthy_interval_max_s": 0.05}
    await manager.deploy("a", {"url": server.url, "health": health, "breaker": {"enabled": False}})
    server.script_always("ping", faults.Status(500))
    await eventually(lambda: manager.server("a").state is ServerState.UNHEALTHY, "probes fail")
    task = await waiting(manager)
    server.script_always("ping", None)
    await task


async def test_a_circuit_that_traffic_closes_is_noticed(manager: McpManager, server: ScriptedServer) -> None:
    breaker = {"open_s": 0.05, "consecutive_failures": 1, "jitter": 0.0}
    await manager.deploy("a", {"url": server.url, "health": UNPROBED, "breaker": breaker})
    server.script("tools/call", faults.Status(500))
    with pytest.raises(CallError):
        await manager.execute_raw("a", echo("fails"))
    task = await waiting(manager)
    async with asyncio.timeout(WAIT_S):
        while manager.server("a").circuit != "Closed":
            with contextlib.suppress(CallError):
                await manager.execute_raw("a", echo("again"))
            await asyncio.sleep(0)
    await task


async def test_whoever_waits_for_servers_that_never_come_learns_of_the_end() -> None:
    manager = McpManager()
    await manager.start()
    task = asyncio.create_task(manager.wait_ready(min=1))
    await asyncio.sleep(0)
    await manager.stop()
    with pytest.raises(NotRunningError):
        await asyncio.wait_for(task, WAIT_S)
