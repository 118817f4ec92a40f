"""The health of a fleet adds up at every moment, agrees with that of its servers, and costs nothing where nothing is used."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from support.calls import SWIFT, echo, eventually, text_of

from mcp_manager import McpManager, ServerState
from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer


def agree(manager: McpManager) -> None:
    """Compare what is counted with what is shown of each server."""
    counted = manager.health()
    parts = counted.healthy_servers + counted.degraded_servers + counted.unhealthy_servers
    assert parts == counted.total_servers
    shown = Counter(view.state for view in manager.servers())
    counted = manager.health()
    assert counted.total_servers == shown.total()
    assert counted.healthy_servers == shown[ServerState.HEALTHY]
    assert counted.unhealthy_servers == shown[ServerState.UNHEALTHY]


async def test_the_counts_add_up_while_servers_come_fail_and_go() -> None:
    async with McpManager() as manager:
        with ScriptedServer() as server, ScriptedServer() as broken:
            broken.script_always("initialize", faults.Status(500))
            deploying = asyncio.gather(
                *(manager.deploy(f"good{number}", {"url": server.url, **SWIFT}) for number in range(5)),
                *(manager.deploy(f"bad{number}", {"url": broken.url, **SWIFT}) for number in range(3)),
                *(manager.deploy(f"lazy{number}", {"url": server.url, "connect": "lazy"}) for number in range(4)),
            )
            while not deploying.done():
                agree(manager)
                await asyncio.sleep(0)
            counts = manager.health()
            assert (counts.total_servers, counts.healthy_servers, counts.unhealthy_servers) == (12, 5, 3)
            broken.script_always("initialize", None)
            await eventually(lambda: manager.health().healthy_servers == 8, "the broken ones are seen to recover")
            undeploying = asyncio.gather(*(manager.undeploy(view.id) for view in manager.servers()))
            while not undeploying.done():
                agree(manager)
                await asyncio.sleep(0)
            assert manager.health().total_servers == 0


async def test_maintenance_stays_until_its_operator_ends_it() -> None:
    async with McpManager() as manager:
        with ScriptedServer() as server:
            await manager.deploy("a", {"url": server.url})
            await manager.set_maintenance("a", True)
            assert manager.health().healthy_servers == 0
            await manager.scale("a", 2)
            await manager.redeploy("a", {"url": server.url, "name": "new"})
            assert (manager.server("a").name, manager.server("a").state) == ("new", ServerState.MAINTENANCE)
            await manager.set_maintenance("a", False)
            assert text_of(await manager.execute_raw("a", echo("back"))) == "back"


async def test_a_lazy_server_is_made_by_its_first_call_and_replaced_as_any_other() -> None:
    async with McpManager() as manager:
        with ScriptedServer() as server:
            lazy = ServerConfig(url=server.url, connect="lazy")
            await manager.apply(ManagerConfig(servers={"a": lazy, "b": lazy, "c": lazy}))
            assert not server.requests
            assert text_of(await manager.execute_raw("a", echo("first"))) == "first"
            assert manager.server("a").state is ServerState.HEALTHY
            assert manager.server("b").state is ServerState.INITIALIZING
            await manager.redeploy("b", {"url": server.url})
            assert manager.server("b").state is ServerState.HEALTHY
            await manager.scale("c", 0)
            assert manager.server("c").state is ServerState.STOPPED
            await manager.scale("c", 2)
            assert len(await manager.list_tools("c")) > 0
            assert manager.server("c").desired == 2
            agree(manager)


@pytest.mark.both_loops
async def test_turns_that_are_due_at_once_are_taken_on_every_loop() -> None:
    loop = asyncio.get_running_loop()
    async with McpManager() as manager:
        with ScriptedServer() as server:
            for server_id in ("a", "b"):
                await manager.deploy(server_id, {"url": server.url, **SWIFT})
            for instances in (2, 3) * 5:
                # In the millisecond in which a tick of the wheel begins, what comes next is due now: what uvloop gives
                # for that is no timer, and the second server meets it.
                while round(loop.time() * 1000) % 10:
                    pass
                await asyncio.gather(manager.scale("a", instances), manager.scale("b", instances))
