"""However making a session ends, once the server has given it an id: the server is told that nobody wants it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from support.calls import CALM

from mcp_manager import CallError, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer

LONG = {"connect_timeout_s": 60.0, "start_timeout_s": 60.0}
SHORT = {"connect_timeout_s": 0.3, "start_timeout_s": 0.3}


@dataclass(frozen=True)
class HeadAlone:
    """Begin an event stream as the answer, with all header fields, and never say anything on it."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        _, headers, _ = connection.server.answer(request)
        await connection.open_stream(headers)
        connection.server.news()
        await connection.hang()


# Where making a session has got to, and what holds it there.
STEPS: dict[str, tuple[str, Any]] = {
    "the reply to initialize is awaited": ("initialize", HeadAlone()),
    "the announcement is awaited": ("notifications/initialized", faults.Hold()),
    "the stream of the server is awaited": ("GET", faults.Hold()),
}


def config(server: ScriptedServer, **settings: Any) -> dict[str, Any]:
    return {"url": server.url, "protocol_version": "2025-11-25", **CALM, **LONG, "shutdown_grace_s": 0.5, **settings}


async def undeployed(manager: McpManager) -> None:
    await manager.undeploy("a")


async def stopped(manager: McpManager) -> None:
    await manager.stop()


async def stopped_in_a_hurry(manager: McpManager) -> None:
    stopping = asyncio.create_task(manager.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait({stopping})


async def undeployed_and_stopped(manager: McpManager) -> None:
    undeploying = asyncio.create_task(manager.undeploy("a"))
    await asyncio.sleep(0)
    await manager.stop()
    await undeploying


async def scaled_down(manager: McpManager) -> None:
    await manager.scale("a", 0)


async def caller_gone(manager: McpManager) -> None:
    for task in asyncio.all_tasks():
        if task.get_name() == "deploying":
            task.cancel()


WAYS = [undeployed, stopped, stopped_in_a_hurry, undeployed_and_stopped, scaled_down, caller_gone]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_who_gives_up_connecting_takes_leave(way: Callable[[McpManager], Awaitable[None]], step: str) -> None:
    with ScriptedServer() as server:
        method, fault = STEPS[step]
        server.script(method, fault)
        async with McpManager() as manager:
            deploying = asyncio.create_task(manager.deploy("a", config(server)), name="deploying")
            await server.wait_for(method)
            await server.wait_until(lambda: bool(server.live_sessions))
            if step == "the reply to initialize is awaited":
                # Until its head has come through.
                await asyncio.sleep(0.1)
            await way(manager)
            await server.wait_until(lambda: server.live_sessions == set())
            await asyncio.wait({deploying})
        assert [each.headers["mcp-session-id"] for each in server.requests_of("DELETE")] == ["session-1"]


@pytest.mark.parametrize("step", [each for each in STEPS if "stream of" not in each])
async def test_time_that_runs_out_ends_it_as_well(step: str) -> None:
    with ScriptedServer() as server:
        method, fault = STEPS[step]
        server.script(method, fault)
        async with McpManager() as manager:
            await manager.deploy("a", config(server, **SHORT))
            await server.wait_until(lambda: bool(server.requests_of("DELETE")))
            await server.wait_until(lambda: "session-1" not in server.live_sessions)


async def test_a_replacement_that_is_given_up_takes_leave() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", config(server))
            server.script("notifications/initialized", faults.Hold())
            replacing = asyncio.create_task(manager.redeploy("a", config(server, priority=7)))
            await server.wait_for("notifications/initialized", 2)
            replacing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await replacing
            await server.wait_until(lambda: server.live_sessions == {"session-1"})
            await manager.ping("a")


async def test_an_announcement_that_cannot_be_made_ends_it_as_well() -> None:
    with ScriptedServer() as server:
        server.script("notifications/initialized", faults.Reset(), times=2)
        async with McpManager() as manager:
            await manager.deploy("a", config(server))
            await server.wait_until(lambda: bool(server.requests_of("DELETE")))
            await server.wait_until(lambda: "session-1" not in server.live_sessions)


async def test_all_leave_at_once_of_servers_that_do_not_answer() -> None:
    many = 60
    with ScriptedServer() as server:
        held = faults.Hold()
        server.script_always("DELETE", held)
        manager = McpManager()
        await manager.start()
        await asyncio.gather(*(manager.deploy(f"s{each}", config(server)) for each in range(many)))
        assert len(server.live_sessions) == many
        # It waits for none of them longer than for all: each is asked while no other was answered.
        await manager.stop()
        assert len(server.requests_of("DELETE")) == many
        held.release()


async def test_a_call_of_a_server_that_is_removed_while_it_connects_learns_it() -> None:
    with ScriptedServer() as server:
        server.script("notifications/initialized", faults.Hold())
        async with McpManager() as manager:
            await manager.deploy("a", config(server, connect="lazy", shutdown_grace_s=30.0))
            calling = asyncio.create_task(manager.ping("a"))
            await server.wait_for("notifications/initialized")
            await manager.undeploy("a")
            with pytest.raises(CallError, match="being stopped") as caught:
                await calling
            assert caught.value.delivery == "not_sent"
            assert server.live_sessions == set()
