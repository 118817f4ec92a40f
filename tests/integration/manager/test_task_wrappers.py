"""Callers whose tasks are not plain ones: scopes of anyio, task groups, factories of their own, several loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from support.calls import CALM, deployed, echo, text_of

from mcp_manager import ConnectionLostError, McpManager
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import ScriptedServer

HEDGED = {"hedge": {"enabled": True, "min_samples": 1, "min_delay_s": 0.0, "max_share": 1.0}, "instances": 2}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


async def cancelled_by_scope(work: Callable[[], Any], begun: Callable[[], Any]) -> None:
    """Run work in a scope of anyio, which cancels again in every turn of the loop until the work has ended."""
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await begun()
        group.cancel_scope.cancel()


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("settings", "attempts"),
    [({}, 1), (HEDGED, 2), ({"balancing": {"affinity": "soft"}}, 1)],
    ids=["plain", "hedged", "key"],
)
async def test_a_call_in_a_scope_that_is_cancelled_leaves_nothing(
    server: ScriptedServer, settings: dict[str, Any], attempts: int
) -> None:
    async with deployed(server, **settings) as manager:

        async def call() -> None:
            await manager.request("a", "tools/list", key="k" if "balancing" in settings else None)

        await call()
        server.script_always("tools/list", Hold())
        await cancelled_by_scope(call, lambda: server.wait_for("tools/list", 1 + attempts))
        await server.wait_for("notifications/cancelled", attempts)
        assert text_of(await manager.execute_raw("a", echo("after"))) == "after"


@pytest.mark.both_loops
@pytest.mark.parametrize("change", ["deploy", "scale", "redeploy"])
async def test_a_change_in_a_scope_that_is_cancelled_leaves_the_fleet_as_it_was(
    server: ScriptedServer, change: str
) -> None:
    with ScriptedServer() as slow:
        slow.script_always("initialize", Hold())
        config = {"url": slow.url, **CALM, "connect_timeout_s": 30.0}
        async with deployed(server) as manager:
            works: dict[str, Callable[[], Any]] = {
                "deploy": lambda: manager.deploy("b", config),
                "scale": lambda: manager.scale("a", 3),
                "redeploy": lambda: manager.redeploy("a", {**config, "instances": 2}),
            }
            if change == "scale":
                server.script_always("initialize", Hold())
            awaited = server if change == "scale" else slow
            count = len(awaited.requests_of("initialize"))
            await cancelled_by_scope(works[change], lambda: awaited.wait_for("initialize", count + 1))
            assert [each.id for each in manager.servers()] == ["a"]
            assert text_of(await manager.execute_raw("a", echo("after"))) == "after"


async def test_stopping_in_a_scope_that_is_cancelled_leaves_nothing(server: ScriptedServer) -> None:
    manager = McpManager()
    await manager.start()
    await manager.deploy("a", {"url": server.url, **CALM, "shutdown_grace_s": 30.0})
    server.script_always("tools/call", Hold())
    call = asyncio.ensure_future(manager.execute_raw("a", echo("x")))
    await server.wait_for("tools/call")
    with anyio.move_on_after(0.05):
        await manager.stop()
    await manager.stop()
    with pytest.raises(ConnectionLostError):
        await call


def test_managers_of_several_loops_live_side_by_side(server: ScriptedServer) -> None:
    both = threading.Barrier(2, timeout=20)
    answers: dict[int, str] = {}

    async def live(number: int) -> None:
        async with deployed(server) as manager:
            await asyncio.to_thread(both.wait)
            answers[number] = text_of(await manager.execute_raw("a", echo(str(number))))
            await asyncio.to_thread(both.wait)

    threads = [threading.Thread(target=asyncio.run, args=(live(each),)) for each in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {0: "0", 1: "1"}


def test_one_thread_runs_a_manager_on_one_loop_after_another(server: ScriptedServer) -> None:
    async def live() -> str:
        async with deployed(server) as manager:
            return text_of(await manager.execute_raw("a", echo("x")))

    assert [asyncio.run(live()) for _ in range(2)] == ["x", "x"]
