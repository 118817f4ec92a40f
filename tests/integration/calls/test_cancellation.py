"""A caller gives up at any moment: nothing is left behind, and no reply reaches somebody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
import pytest
from support.calls import CALM, echo, eventually, text_of
from support.processes import scripted_stdio

from mcp_manager import McpManager
from mcp_manager.errors import CallError, ConnectionLostError, NotRunningError, ServerNotFoundError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

pytestmark = pytest.mark.both_loops

# A call takes fewer passes of the loop than this from its start to its answer, or to waiting for the network.
PASSES = 24


@pytest.fixture(params=["json", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[ScriptedServer]:
    with ScriptedServer(sse=request.param == "sse") as server:
        yield server


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        yield manager


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel a task that may just have ended, and insist that it ends at once."""
    task.cancel()
    async with asyncio.timeout(2):
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def assert_replies_find_their_callers(manager: McpManager, server_id: str, count: int = 8) -> None:
    """Call concurrently, each with a text of its own, and compare."""
    texts = [f"text {number}" for number in range(count)]
    replies = await asyncio.gather(*(manager.execute_raw(server_id, echo(text, text), timeout=5) for text in texts))
    assert [text_of(reply) for reply in replies] == texts


async def test_cancelling_after_any_number_of_passes(server: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("server", {"url": server.url, **CALM})
    for passes in range(PASSES):
        others = [asyncio.create_task(manager.execute_raw("server", echo(f"other {n}"), timeout=5)) for n in range(3)]
        victim = asyncio.create_task(manager.execute_raw("server", echo("victim"), timeout=5))
        for _ in range(passes):
            await asyncio.sleep(0)
        await cancel_and_wait(victim)
        assert [text_of(reply) for reply in await asyncio.gather(*others)] == [f"other {n}" for n in range(3)]
    await assert_replies_find_their_callers(manager, "server")
    assert len(server.requests_of("initialize")) == 1


async def test_cancelling_while_the_session_is_being_made(server: ScriptedServer, manager: McpManager) -> None:
    held = faults.Hold()
    server.script("initialize", held)
    await manager.deploy("server", {"url": server.url, **CALM, "connect": "lazy"})
    victim = asyncio.create_task(manager.execute_raw("server", echo("victim"), timeout=5))
    other = asyncio.create_task(manager.execute_raw("server", echo("other"), timeout=5))
    await server.wait_for("initialize")
    await cancel_and_wait(victim)
    assert not other.done()
    held.release()
    assert text_of(await other) == "other"
    assert len(server.requests_of("initialize")) == 1
    assert server.executed == ["other"]


async def test_cancelling_every_caller_while_the_session_is_being_made(
    server: ScriptedServer, manager: McpManager
) -> None:
    held = faults.Hold()
    server.script("initialize", held)
    await manager.deploy("server", {"url": server.url, **CALM, "connect": "lazy"})
    victims = [asyncio.create_task(manager.execute_raw("server", echo("victim"), timeout=5)) for _ in range(5)]
    await server.wait_for("initialize")
    for victim in victims:
        await cancel_and_wait(victim)
    held.release()
    await assert_replies_find_their_callers(manager, "server")
    assert "victim" not in server.executed


@pytest.mark.parametrize(
    "fault",
    [faults.Hold(), faults.NeverEndingHead(), faults.SseNeverEnds(), faults.SseComments()],
    ids=["held", "in-the-head", "in-the-stream", "in-the-comments"],
)
async def test_cancelling_while_the_server_has_the_request(
    fault: Any, server: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("server", {"url": server.url, **CALM})
    server.script("tools/call", fault)
    victim = asyncio.create_task(manager.execute_raw("server", echo("victim"), timeout=30))
    await server.wait_for("tools/call")
    await cancel_and_wait(victim)
    await server.wait_for("notifications/cancelled")
    [notice] = server.requests_of("notifications/cancelled")
    assert notice.params["requestId"] == server.requests_of("tools/call")[0].id
    await assert_replies_find_their_callers(manager, "server")
    # The connection of a given up call cannot be used again: its late reply would meet the next caller.
    given_up = server.requests_of("tools/call")[0].connection
    await server.wait_until(lambda: not server.is_open(given_up))
    assert len(server.requests_of("initialize")) == 1


async def test_a_late_reply_reaches_nobody(server: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("server", {"url": server.url, **CALM})
    held = [faults.Hold() for _ in range(4)]
    server.script("tools/call", *held)
    victims = [asyncio.create_task(manager.execute_raw("server", echo(f"late {n}"), timeout=30)) for n in range(4)]
    await server.wait_for("tools/call", 4)
    for victim in victims[:2]:
        await cancel_and_wait(victim)
    for hold in held:
        hold.release()
    assert sorted([text_of(await victim) for victim in victims[2:]]) == ["late 2", "late 3"]
    await assert_replies_find_their_callers(manager, "server")


async def test_cancelling_a_deployment(server: ScriptedServer, manager: McpManager) -> None:
    held = faults.Hold()
    server.script("initialize", held)
    deploying = asyncio.create_task(manager.deploy("server", {"url": server.url, **CALM}))
    await server.wait_for("initialize")
    await cancel_and_wait(deploying)
    assert manager.servers() == []
    with pytest.raises(ServerNotFoundError):
        await manager.execute_raw("server", echo("x"))
    await server.wait_until(lambda: server.open_connections == 0)
    await manager.deploy("server", {"url": server.url, **CALM})
    await assert_replies_find_their_callers(manager, "server")


async def test_undeploying_under_a_call(server: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("server", {"url": server.url, **CALM, "shutdown_grace_s": 0.1})
    server.script("tools/call", faults.Hold())
    call = asyncio.create_task(manager.execute_raw("server", echo("x"), timeout=30))
    await server.wait_for("tools/call")
    async with asyncio.timeout(2):
        await manager.undeploy("server")
        with pytest.raises((CallError, NotRunningError)) as failure:
            await call
    assert failure.value.delivery == "unknown"


async def test_stopping_under_calls(server: ScriptedServer) -> None:
    manager = McpManager()
    await manager.start()
    await manager.deploy("server", {"url": server.url, **CALM, "shutdown_grace_s": 0.1})
    server.script_always("tools/call", faults.Hold())
    calls = [asyncio.create_task(manager.execute_raw("server", echo("x"), timeout=30)) for _ in range(5)]
    await server.wait_for("tools/call", 5)
    async with asyncio.timeout(5):
        await manager.stop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, CallError | NotRunningError) for outcome in outcomes), outcomes
    await server.wait_until(lambda: server.open_connections == 0)


async def test_the_server_learns_of_a_call_given_up_just_before_its_session_ends(
    server: ScriptedServer, manager: McpManager
) -> None:
    server.script_always("tools/call", faults.Hold())
    for passes in range(5):
        await manager.deploy("server", {"url": server.url, **CALM})
        victim = asyncio.create_task(manager.execute_raw("server", echo("victim"), timeout=30))
        await server.wait_for("tools/call", passes + 1)
        victim.cancel()
        for _ in range(passes):
            await asyncio.sleep(0)
        await manager.undeploy("server")
        await server.wait_for("DELETE", passes + 1)
        told = server.requests_of("notifications/cancelled")
        assert [each.params["requestId"] for each in told] == [each.id for each in server.requests_of("tools/call")]


async def test_a_server_that_accepts_no_cancellation_cannot_hold_up_the_end(
    server: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("server", {"url": server.url, **CALM, "shutdown_grace_s": 0.4})
    server.script("tools/call", faults.Hold())
    server.script("notifications/cancelled", faults.Hold())
    victim = asyncio.create_task(manager.execute_raw("server", echo("victim"), timeout=30))
    await server.wait_for("tools/call")
    await cancel_and_wait(victim)
    await manager.undeploy("server")
    # Half of the time is left for taking leave.
    await server.wait_for("DELETE")


# stdio


async def test_cancelling_over_stdio(manager: McpManager) -> None:
    script = {"on": {"tools/call": [[{"do": "keep"}], [{"do": "keep"}], [{"do": "reply_kept"}]]}}
    await manager.deploy("child", scripted_stdio(script).config(**CALM))
    victim = asyncio.create_task(manager.execute_raw("child", echo("victim", "same id"), timeout=30))
    other = asyncio.create_task(manager.execute_raw("child", echo("other", "same id"), timeout=30))
    # A pipe is written in order: the answer to a ping says that both were read.
    await manager.ping("child")
    await cancel_and_wait(victim)
    assert text_of(await manager.execute_raw("child", echo("third", "same id"), timeout=5)) == "third"
    assert text_of(await other) == "other"
    await assert_replies_find_their_callers(manager, "child")


async def test_cancelling_over_stdio_after_any_number_of_passes(manager: McpManager) -> None:
    await manager.deploy("child", scripted_stdio().config(**CALM))
    for passes in range(PASSES):
        other = asyncio.create_task(manager.execute_raw("child", echo(f"other {passes}"), timeout=5))
        victim = asyncio.create_task(manager.execute_raw("child", echo("victim"), timeout=5))
        for _ in range(passes):
            await asyncio.sleep(0)
        await cancel_and_wait(victim)
        assert text_of(await other) == f"other {passes}"
    await assert_replies_find_their_callers(manager, "child")


async def test_cancelling_the_start_of_a_child_at_any_moment(manager: McpManager) -> None:
    before = set(psutil.Process().children(recursive=True))
    silent = scripted_stdio({"on": {"initialize": [[{"do": "nothing"}]]}}).config(**CALM)
    for passes in range(0, PASSES, 3):
        deploying = asyncio.create_task(manager.deploy("child", silent))
        for _ in range(passes):
            await asyncio.sleep(0)
        assert not deploying.done()
        await cancel_and_wait(deploying)
        assert manager.servers() == []
    await eventually(lambda: set(psutil.Process().children(recursive=True)) <= before, "the end of every child")


async def test_a_call_on_a_session_that_was_replaced_ends_with_its_server() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "shutdown_grace_s": 0.05})
            server.script("tools/call", faults.Hold())
            calling = asyncio.create_task(manager.execute_raw("a", echo("held"), timeout=600.0))
            await server.wait_for("tools/call")
            server.expire_sessions()
            await manager.ping("a")
            await manager.undeploy("a")
            with pytest.raises(ConnectionLostError) as caught:
                await asyncio.wait_for(calling, 15.0)
            assert caught.value.delivery == "unknown"
