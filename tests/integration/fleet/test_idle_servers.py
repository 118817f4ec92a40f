"""The end of the last call of a server is told at once, whoever waits for it."""

from __future__ import annotations

import asyncio

import pytest
from support.calls import CALM, echo, text_of

from mcp_manager import McpManager
from mcp_manager.fleet.idle import server_idle
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

_TURNS = 10
"""Turns of the loop in which what was told is known; a clock that is looked at takes more."""


async def turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def test_a_server_is_idle_with_the_end_of_its_last_call() -> None:
    first, second = faults.Hold(), faults.Hold()
    with ScriptedServer() as server:
        async with McpManager() as manager:
            spread = {"balancing": {"policy": "round_robin"}}
            await manager.deploy("a", {"url": server.url, **CALM, **spread, "instances": 2})
            supervisor = manager._servers["a"]
            # Nothing is under way.
            await server_idle(supervisor)
            server.script("tools/call", first, second)
            calls = [asyncio.create_task(manager.execute_raw("a", echo(str(number)))) for number in range(2)]
            await server.wait_for("tools/call", 2)
            backends = [each.backend for each in supervisor.instances]
            assert [each.inflight for each in backends if each is not None] == [1, 1]
            waiting, gives_up = (asyncio.create_task(server_idle(supervisor)) for _ in range(2))
            await turns()
            # Who gives up takes nothing from the others.
            gives_up.cancel()
            first.release()
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            await turns()
            assert not waiting.done()
            second.release()
            await asyncio.wait(calls)
            await turns()
            assert waiting.done()
            assert sorted(text_of(call.result()) for call in calls) == ["0", "1"]
            # Later calls tell nobody.
            assert all(each is not None and each.on_idle is None for each in backends)
            with pytest.raises(asyncio.CancelledError):
                await gives_up


async def test_the_calls_of_instances_that_drain_are_waited_for_as_well() -> None:
    hold = faults.Hold()
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            server.script("tools/call", hold)
            call = asyncio.create_task(manager.execute_raw("a", echo("x")))
            await server.wait_for("tools/call")
            await manager.scale("a", 0)
            waiting = asyncio.create_task(server_idle(manager._servers["a"]))
            await turns()
            assert not waiting.done()
            hold.release()
            assert text_of(await call) == "x"
            await waiting
