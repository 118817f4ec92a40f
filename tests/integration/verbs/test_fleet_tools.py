"""The catalogue of a fleet's tools: complete, kept while it holds, fetched once, and what cannot be had named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, eventually
from support.processes import scripted_stdio, sdk_stdio

from mcp_manager import ManagerConfig, McpManager, RpcError, Selector, ServerNotFoundError, ToolNotFoundError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def manager(server: ScriptedServer) -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        await manager.deploy("one", {"url": server.url, **CALM})
        await manager.deploy("two", {"url": server.url, **CALM})
        yield manager


async def test_every_tool_is_listed_under_a_name_that_calls_it(manager: McpManager, server: ScriptedServer) -> None:
    catalog = await manager.list_all_tools()
    assert [(tool.name, tool.server_id, tool.tool.name) for tool in catalog.tools] == [
        ("one__echo", "one", "echo"),
        ("two__echo", "two", "echo"),
    ]
    assert catalog.missing == {}
    assert catalog.tools[0].tool.input_schema["required"] == ["text"]
    assert (await manager.call_fleet_tool("two__echo", {"text": "by name"})).text == "by name"
    assert server.executed == ["by name"]


async def test_a_name_is_found_without_having_been_listed(manager: McpManager) -> None:
    assert (await manager.call_fleet_tool("one__echo", {"text": "unseen"})).text == "unseen"


async def test_what_was_listed_is_not_asked_for_again(manager: McpManager, server: ScriptedServer) -> None:
    first = await manager.list_all_tools()
    assert await manager.list_all_tools() == first
    assert len(server.requests_of("tools/list")) == 2
    assert len((await manager.list_all_tools(["one"])).tools) == 1
    assert len(server.requests_of("tools/list")) == 2
    await manager.list_tools("one")
    assert len(server.requests_of("tools/list")) == 3


async def test_news_of_a_change_have_the_list_fetched_again_and_reach_the_handler(server: ScriptedServer) -> None:
    told: list[tuple[str, Any]] = []

    async def listener(server_id: str, params: Any) -> None:
        told.append((server_id, params))

    async with McpManager(handlers={CHANGED["method"]: listener}) as manager:
        await manager.deploy("one", {"url": server.url, **CALM})
        await manager.list_all_tools()
        server.script("ping", faults.SseEvents(before=(CHANGED,)))
        await manager.ping("one")
        while not told:
            await asyncio.sleep(0)
        await manager.list_all_tools()
    assert told == [("one", {})]
    assert len(server.requests_of("tools/list")) == 2


async def test_a_new_session_has_the_list_fetched_again(manager: McpManager, server: ScriptedServer) -> None:
    await manager.list_all_tools(["one"])
    server.expire_sessions()
    await manager.execute_raw("one", echo("x"))
    await manager.list_all_tools(["one"])
    assert len(server.requests_of("tools/list")) == 2


async def test_a_new_configuration_has_the_list_fetched_again(manager: McpManager, server: ScriptedServer) -> None:
    await manager.list_all_tools(["one"])
    await manager.redeploy("one", {"url": server.url, "name": "other", **CALM})
    await manager.list_all_tools(["one"])
    assert len(server.requests_of("tools/list")) == 2


async def test_who_asks_at_once_waits_for_one_answer_and_may_leave_alone(
    manager: McpManager, server: ScriptedServer
) -> None:
    hold = faults.Hold()
    server.script("tools/list", hold)
    asking = [asyncio.create_task(manager.list_all_tools(["one"])) for _ in range(5)]
    await server.wait_for("tools/list")
    asking[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    hold.release()
    for catalog in await asyncio.gather(*asking[1:]):
        assert [tool.name for tool in catalog.tools] == ["one__echo"]
    assert len(server.requests_of("tools/list")) == 1


async def test_a_change_during_the_listing_makes_the_list_old(manager: McpManager, server: ScriptedServer) -> None:
    server.script("tools/list", faults.SseEvents(before=(CHANGED,)))
    await manager.list_all_tools(["one"])
    await manager.list_all_tools(["one"])
    assert len(server.requests_of("tools/list")) == 2


async def test_a_replacement_during_the_listing_is_listed_itself(manager: McpManager, server: ScriptedServer) -> None:
    hold = faults.Hold()
    server.script("tools/list", hold)
    listing = asyncio.create_task(manager.list_all_tools(["one"]))
    await server.wait_for("tools/list")
    with ScriptedServer() as other:
        other.script("tools/list", faults.Result({"tools": [{"name": "other", "inputSchema": {"type": "object"}}]}))
        before = manager._servers["one"].template
        replacing = asyncio.create_task(manager.redeploy("one", {"url": other.url, **CALM}))
        await eventually(lambda: manager._servers["one"].template is not before, "the replacement")
        # Not joined to what is being asked of the one before.
        assert [tool.name for tool in (await manager.list_all_tools(["one"])).tools] == ["one__other"]
        hold.release()
        assert [tool.name for tool in (await listing).tools] == ["one__echo"]
        await replacing
        assert [tool.name for tool in (await manager.list_all_tools(["one"])).tools] == ["one__other"]
        assert len(other.requests_of("tools/list")) == 1
        await manager.undeploy("one")


async def test_a_list_that_was_asked_of_the_server_before_is_not_kept(
    manager: McpManager, server: ScriptedServer
) -> None:
    hold = faults.Hold()
    server.script("tools/list", hold)
    listing = asyncio.create_task(manager.list_all_tools(["one"]))
    await server.wait_for("tools/list")
    before = manager._servers["one"].template
    replacing = asyncio.create_task(manager.redeploy("one", {"url": server.url, "name": "other", **CALM}))
    await eventually(lambda: manager._servers["one"].template is not before, "the replacement")
    hold.release()
    await asyncio.gather(listing, replacing)
    await manager.list_all_tools(["one"])
    assert len(server.requests_of("tools/list")) == 2


async def test_the_end_of_the_manager_during_a_listing_is_no_cancellation(server: ScriptedServer) -> None:
    server.script("tools/list", faults.Hold())
    async with McpManager() as manager:
        await manager.deploy("one", {"url": server.url, **CALM})
        listing = asyncio.create_task(manager.list_all_tools())
        await server.wait_for("tools/list")
    catalog = await listing
    assert catalog.tools == ()
    assert "stopped" in catalog.missing["one"]


async def test_each_caller_waits_as_long_as_it_said(manager: McpManager, server: ScriptedServer) -> None:
    hold = faults.Hold()
    server.script("tools/list", hold)
    short = asyncio.create_task(manager.list_all_tools(["one"], timeout=0.05))
    await server.wait_for("tools/list")
    patient = asyncio.create_task(manager.list_all_tools(["one"], timeout=30))
    assert "the listing goes on" in (await short).missing["one"]
    # The time that others have waited counts, and nobody asks the server a second time.
    async with asyncio.timeout(10):
        for _ in range(100):
            assert "one" in (await manager.list_all_tools(["one"], timeout=0.05)).missing
    hold.release()
    assert [tool.name for tool in (await patient).tools] == ["one__echo"]
    assert len(server.requests_of("tools/list")) == 1


async def test_the_names_of_a_server_go_with_it(manager: McpManager) -> None:
    await manager.list_all_tools()
    await manager.undeploy("one")
    assert set(manager._tools._routes) == {"two__echo"}


async def test_servers_that_cannot_be_asked_are_named_with_the_reason(
    manager: McpManager, server: ScriptedServer
) -> None:
    await manager.deploy("dead", {"url": "http://127.0.0.1:9/mcp", **CALM})
    server.script("tools/list", faults.Status(500), faults.RpcErrorReply(-32601, "no tools here"))
    catalog = await manager.list_all_tools()
    assert catalog.tools == ()
    assert set(catalog.missing) == {"dead", "one"}
    assert "cannot connect" in catalog.missing["dead"]
    assert "HTTP 500" in catalog.missing["one"]
    # A failure is not kept.
    assert [tool.name for tool in (await manager.list_all_tools(["one"])).tools] == ["one__echo"]


async def test_unknown_names_are_errors_that_name_the_nearest(manager: McpManager) -> None:
    with pytest.raises(ToolNotFoundError, match=r"one__ech not found \(did you mean one__echo\?\)"):
        await manager.call_fleet_tool("one__ech")
    with pytest.raises(ServerNotFoundError):
        await manager.list_all_tools(["nobody"])


async def test_an_error_of_a_tool_found_by_name_is_the_servers_own(manager: McpManager, server: ScriptedServer) -> None:
    server.script("tools/call", faults.RpcErrorReply(-32602, "bad arguments"))
    with pytest.raises(RpcError, match="bad arguments"):
        await manager.call_fleet_tool("one__echo", {})


async def test_tools_of_real_servers_over_pipes() -> None:
    async with McpManager() as manager:
        for name, command in (("sdk", sdk_stdio()), ("scripted", scripted_stdio())):
            await manager.deploy(name, command.config(**{**CALM, "connect_timeout_s": 30.0}))
        catalog = await manager.list_all_tools()
        assert catalog.missing == {}
        listed = {name: await manager.list_tools(name) for name in ("sdk", "scripted")}
        assert len(catalog.tools) == sum(map(len, listed.values())) > 1


async def test_a_server_that_does_not_answer_keeps_nobody_from_the_others(server: ScriptedServer) -> None:
    hold = faults.Hold()
    with ScriptedServer() as silent:
        silent.script_always("tools/list", hold)
        async with McpManager(ManagerConfig(list_timeout_s=0.05)) as manager, asyncio.timeout(20):
            await manager.deploy("one", {"url": server.url, **CALM})
            await manager.deploy("silent", {"url": silent.url, **CALM})
            assert (await manager.call_fleet_tool("one__echo", {"text": "x"})).text == "x"
            assert silent.requests_of("tools/list") == []
            for _ in range(20):
                catalog = await manager.list_all_tools()
                assert [tool.name for tool in catalog.tools] == ["one__echo"]
                assert "the listing goes on" in catalog.missing["silent"]
            assert (await manager.call_tool(Selector(tool="echo"), "echo", {"text": "y"})).text == "y"
            with pytest.raises(ToolNotFoundError, match="the tools of silent could not be listed"):
                await manager.call_fleet_tool("silent__echo", timeout=0.05)
            assert len(silent.requests_of("tools/list")) == 1
            hold.release()
            assert len((await manager.list_all_tools(timeout=15)).tools) == 2
            assert len(silent.requests_of("tools/list")) == 1
