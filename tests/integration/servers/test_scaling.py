"""How many instances a server has: asked for at any moment, by anybody, and never at the cost of a call."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
import pytest
from support.calls import CALM, echo, eventually, failure_of, text_of
from support.processes import scripted_stdio

from mcp_manager import ConnectionLostError, McpManager, OverloadedError, ScaleError, ServerExitedError, ServerState
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

DEMO = {"command": sys.executable, "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]}
NEVER_S = 3600.0


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        yield manager


def counts(manager: McpManager) -> tuple[int, int, int]:
    view = manager.server("a")
    return view.desired, view.ready, view.draining


async def settled(manager: McpManager, desired: int) -> None:
    await eventually(lambda: counts(manager) == (desired, desired, 0), f"{desired} instances and no other")


async def test_the_last_number_holds_however_many_ask_at_once(server: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **CALM})
    await asyncio.gather(*(manager.scale("a", number) for number in (5, 1, 3, 0, 4)))
    assert counts(manager)[:2] == (4, 4)
    await settled(manager, 4)
    await asyncio.gather(manager.scale("a", 4), manager.scale("a", 4))
    assert counts(manager) == (4, 4, 0)
    # One session an instance, and those that are gone were ended.
    assert len(server.live_sessions) == 4


async def test_what_is_wanted_is_shown_before_it_is_there(server: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **CALM})
    hold = faults.Hold()
    server.script_always("initialize", hold)
    scaling = asyncio.create_task(manager.scale("a", 3))
    await server.wait_for("initialize", 3)
    assert counts(manager) == (3, 1, 0)
    again = asyncio.create_task(manager.scale("a", 3))
    await manager.ping("a")
    assert not scaling.done()
    assert not again.done()
    hold.release()
    await again
    assert counts(manager) == (3, 3, 0)
    await scaling


async def test_a_new_instance_takes_no_call_before_it_has_a_session(
    server: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", {"url": server.url, **CALM})
    hold = faults.Hold()
    server.script_always("initialize", hold)
    scaling = asyncio.create_task(manager.scale("a", 8))
    await server.wait_for("initialize", 8)
    # None of these waits for a handshake.
    for number in range(40):
        await manager.execute_raw("a", echo(str(number)), timeout=5)
    assert {each.headers["mcp-session-id"] for each in server.requests_of("tools/call")} == {"session-1"}
    hold.release()
    await scaling


async def test_without_a_session_anywhere_a_call_waits_for_one(server: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **CALM, "instances": 0})
    assert manager.server("a").state is ServerState.STOPPED
    hold = faults.Hold()
    server.script_always("initialize", hold)
    scaling = asyncio.create_task(manager.scale("a", 2))
    await server.wait_for("initialize")
    call = asyncio.create_task(manager.execute_raw("a", echo("early")))
    await asyncio.sleep(0)
    hold.release()
    assert text_of(await call) == "early"
    await scaling


async def test_calls_under_way_outlast_shutdown_grace_when_their_instance_drains(
    server: ScriptedServer, manager: McpManager
) -> None:
    # Every instance must get a call, which two choices at random do not give it for certain.
    spread = {"balancing": {"policy": "round_robin"}}
    await manager.deploy("a", {"url": server.url, **CALM, **spread, "shutdown_grace_s": 0.0, "instances": 3})
    hold = faults.Hold()
    server.script_always("tools/call", hold)
    calls = [asyncio.create_task(manager.execute_raw("a", echo(str(number)), timeout=20)) for number in range(9)]
    await server.wait_for("tools/call", 9)
    await manager.scale("a", 0)
    assert counts(manager) == (0, 0, 3)
    error = await failure_of(manager, "a", echo("late"))
    assert (type(error), error.delivery) == (OverloadedError, "not_sent")
    hold.release()
    assert sorted(text_of(reply) for reply in await asyncio.gather(*calls)) == [str(number) for number in range(9)]
    await settled(manager, 0)
    assert sorted(server.executed) == [str(number) for number in range(9)]


@pytest.mark.parametrize("kind", ["http", "stdio"])
async def test_at_the_deadline_a_drain_ends_its_calls_and_says_what_is_known(
    kind: str, server: ScriptedServer, manager: McpManager
) -> None:
    config: dict[str, Any] = {"url": server.url} if kind == "http" else dict(DEMO)
    await manager.deploy("a", {**config, **CALM, "connect_timeout_s": 15.0, "drain_timeout_s": 0.05})
    if kind == "http":
        server.script_always("tools/call", faults.Hold())
    call = asyncio.create_task(manager.call_tool("a", "sleep", {"seconds": NEVER_S}))
    if kind == "http":
        await server.wait_for("tools/call")
    else:
        await manager.ping("a")
    await manager.scale("a", 0)
    with pytest.raises(ConnectionLostError) as caught:
        await call
    assert not isinstance(caught.value, ServerExitedError)
    assert (caught.value.delivery, caught.value.server_id) == ("unknown", "a")
    await settled(manager, 0)
    # The end is a polite one all the same.
    assert kind == "stdio" or len(server.requests_of("DELETE")) == 1


async def test_a_drain_under_way_yields_to_the_end_of_its_server(server: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **CALM, "shutdown_grace_s": 0.05, "drain_timeout_s": NEVER_S})
    server.script_always("tools/call", faults.Hold())
    call = asyncio.create_task(manager.execute_raw("a", echo("x")))
    await server.wait_for("tools/call")
    await manager.scale("a", 0)
    await manager.undeploy("a")
    with pytest.raises(ConnectionLostError):
        await call


async def test_a_call_on_a_draining_instance_gets_its_grace_when_the_server_is_removed(
    server: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", {"url": server.url, **CALM, "shutdown_grace_s": 20.0, "drain_timeout_s": NEVER_S})
    hold = faults.Hold()
    server.script_always("tools/call", hold)
    call = asyncio.create_task(manager.execute_raw("a", echo("x")))
    await server.wait_for("tools/call")
    await manager.scale("a", 0)
    removal = asyncio.create_task(manager.undeploy("a"))
    await eventually(lambda: not manager.servers(), "the removal")
    hold.release()
    assert text_of(await call) == "x"
    await removal


async def test_places_are_taken_from_the_first_also_while_others_drain(manager: McpManager) -> None:
    with ScriptedServer() as first, ScriptedServer() as second:
        await manager.deploy("a", {"url": [first.url, second.url], **CALM})
        hold = faults.Hold()
        for server in (first, second):
            server.script_always("tools/call", hold)
        calls = [asyncio.create_task(manager.execute_raw("a", echo(str(number)), timeout=20)) for number in range(8)]
        await eventually(lambda: min(len(s.requests_of("tools/call")) for s in (first, second)) > 0, "calls on both")
        await manager.scale("a", 1)
        await manager.scale("a", 2)
        with pytest.raises(ScaleError):
            await manager.scale("a", 3)
        assert counts(manager) == (2, 2, 1)
        # The second URL has a session of the new instance beside that of the draining one.
        assert (len(first.live_sessions), len(second.live_sessions)) == (1, 2)
        hold.release()
        await asyncio.gather(*calls)
        await settled(manager, 2)
        assert (len(first.live_sessions), len(second.live_sessions)) == (1, 1)


async def test_an_instance_is_not_taken_for_the_draining_one_in_whose_place_it_is(
    server: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", {"url": server.url, **CALM, "instances": 2})
    [supervisor] = manager._servers.values()
    before = {instance.number for instance in supervisor.instances}
    await manager.scale("a", 1)
    await manager.scale("a", 2)
    after = {instance.number for instance in supervisor.instances}
    assert len(before | after) == 3
    assert sorted(instance.index for instance in supervisor.instances) == [0, 1]
    await settled(manager, 2)


async def test_children_of_instances_that_are_gone_have_ended(manager: McpManager) -> None:
    await manager.deploy("a", {**DEMO, **CALM, "connect_timeout_s": 20.0, "instances": 3})
    pids = set(manager.server("a").pids)
    await manager.scale("a", 1)
    await settled(manager, 1)
    left = {child.pid for child in psutil.Process().children()} & pids
    assert left == set(manager.server("a").pids)
    await manager.scale("a", 0)
    await settled(manager, 0)
    assert not {child.pid for child in psutil.Process().children()} & pids


async def test_a_cancelled_scale_still_holds(server: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", {"url": server.url, **CALM})
    hold = faults.Hold()
    server.script_always("initialize", hold)
    scaling = asyncio.create_task(manager.scale("a", 3))
    await server.wait_for("initialize", 3)
    scaling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scaling
    hold.release()
    await settled(manager, 3)


async def test_an_instance_that_does_not_start_is_wanted_still(manager: McpManager, tmp_path: Any) -> None:
    program = scripted_stdio({"start": [{"do": "exit"}], "once": str(tmp_path / "once")})
    restart = {"initial_s": 0.05, "max_s": 0.1}
    await manager.deploy("a", program.config(**{**CALM, "connect_timeout_s": 15.0}, restart=restart))
    await manager.scale("a", 2)
    assert manager.server("a").desired == 2
    await settled(manager, 2)
