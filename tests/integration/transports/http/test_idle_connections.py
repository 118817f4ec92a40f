"""Idle connections of a server that is gone: closed at once, unless another server speaks to the same host."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.calls import CALM

from mcp_manager import McpManager
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.transports.http.connections import pool as http_pool

pytestmark = pytest.mark.both_loops


@pytest.fixture(autouse=True)
def _never_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pool, "_SWEEP_S", 3600.0)


def config(server: ScriptedServer, **settings: Any) -> dict[str, Any]:
    return {"url": server.url, "protocol_version": "2025-11-25", **CALM, **settings}


async def _called(manager: McpManager, server_id: str, times: int = 3) -> None:
    await asyncio.gather(*(manager.ping(server_id) for _ in range(times)))


async def test_who_leaves_takes_its_idle_connections_along() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", config(server))
            await _called(manager, "a")
            assert server.open_connections
            await manager.undeploy("a")
            await server.wait_until(lambda: server.open_connections == 0)


@pytest.mark.parametrize("sse", [False, True], ids=["JSON", "streams"])
async def test_connections_to_a_shared_host_stay_until_its_last_server_leaves(sse: bool) -> None:
    with ScriptedServer(sse=sse) as server:
        async with McpManager() as manager:
            for server_id in "ab":
                await manager.deploy(server_id, config(server))
                await _called(manager, server_id)
            made = server.peak_connections
            await manager.undeploy("a")
            assert server.open_connections
            await manager.ping("b")
            assert server.peak_connections == made
            await manager.undeploy("b")
            await server.wait_until(lambda: server.open_connections == 0)


async def test_who_moves_to_another_host_leaves_no_connections_behind() -> None:
    with ScriptedServer() as before, ScriptedServer() as after:
        async with McpManager() as manager:
            await manager.deploy("a", config(before))
            await _called(manager, "a")
            await manager.redeploy("a", config(after))
            await manager.ping("a")
            await before.wait_until(lambda: before.open_connections == 0)
            assert after.open_connections


async def test_a_server_that_is_scaled_to_nothing_keeps_no_connections() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", config(server))
            await _called(manager, "a")
            await manager.scale("a", 0)
            await server.wait_until(lambda: server.open_connections == 0)
            await manager.scale("a", 1)
            await manager.ping("a")
