"""Tools are held to the output schemas they were listed with, and to no older ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo

from mcp_manager import CallToolResult, McpManager, ProtocolError, ServerState
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


def listing(schema: Any) -> faults.Result:
    return faults.Result({"tools": [{"name": "echo", "inputSchema": {}, "outputSchema": schema}, {"name": "plain"}]})


def returning(**members: Any) -> faults.Result:
    return faults.Result({"content": [], **members})


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.script_always("tools/list", listing(SCHEMA))
        yield server


@pytest.fixture
async def manager(server: ScriptedServer) -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        await manager.deploy("one", {"url": server.url, **CALM})
        yield manager


async def call(manager: McpManager, server: ScriptedServer, tool: str = "echo", **members: Any) -> CallToolResult:
    server.script("tools/call", returning(**members))
    return await manager.call_tool("one", tool)


async def test_a_result_is_held_to_what_the_tool_promises(manager: McpManager, server: ScriptedServer) -> None:
    await manager.list_tools("one")
    assert (await call(manager, server, structuredContent={"n": 1})).structured_content == {"n": 1}
    with pytest.raises(ProtocolError, match=r"'echo' does not match its output schema.*at /n: type") as caught:
        await call(manager, server, structuredContent={"n": "hunter2"})
    assert (caught.value.server_id, caught.value.delivery) == ("one", "answered")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ProtocolError, match="no structured content"):
        await call(manager, server)
    assert (await call(manager, server, isError=True)).is_error
    assert (await call(manager, server, "plain", structuredContent=3)).structured_content == 3
    assert len(server.requests_of("tools/list")) == 1
    assert manager.server("one").state is ServerState.HEALTHY


async def test_a_tool_that_was_never_listed_is_not_checked(manager: McpManager, server: ScriptedServer) -> None:
    assert (await call(manager, server, structuredContent=3)).structured_content == 3
    assert server.requests_of("tools/list") == []


async def test_the_catalogue_of_the_fleet_teaches_the_schemas_too(manager: McpManager, server: ScriptedServer) -> None:
    await manager.list_all_tools()
    server.script("tools/call", returning(structuredContent=3))
    with pytest.raises(ProtocolError, match="output schema"):
        await manager.call_fleet_tool("one__echo")


async def test_it_can_be_turned_off(server: ScriptedServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("one", {"url": server.url, "validate_output": False, **CALM})
        await manager.list_tools("one")
        assert (await call(manager, server, structuredContent=3)).structured_content == 3


async def test_a_change_of_the_tools_makes_the_schemas_unknown(server: ScriptedServer) -> None:
    told = asyncio.Event()

    async def listener(_: str, __: Any) -> None:
        told.set()

    async with McpManager(handlers={CHANGED["method"]: listener}) as manager:
        await manager.deploy("one", {"url": server.url, **CALM})
        await manager.list_tools("one")
        server.script("ping", faults.SseEvents(before=(CHANGED,)))
        await manager.ping("one")
        await told.wait()
        assert (await call(manager, server, structuredContent=3)).structured_content == 3


async def test_no_result_is_refused_for_the_schema_of_an_earlier_session(
    manager: McpManager, server: ScriptedServer
) -> None:
    await manager.list_tools("one")
    server.expire_sessions()
    await manager.execute_raw("one", echo("x"))
    server.script_always("tools/list", listing({"type": "integer"}))
    assert (await call(manager, server, structuredContent=3)).structured_content == 3
    assert len(server.requests_of("tools/list")) == 2
    with pytest.raises(ProtocolError, match="output schema"):
        await call(manager, server, structuredContent={"n": 1})
    assert len(server.requests_of("tools/list")) == 2


async def test_nobody_is_held_to_a_schema_that_cannot_be_used(manager: McpManager, server: ScriptedServer) -> None:
    server.script_always("tools/list", listing({"$ref": f"{server.url}/schema.json"}))
    await manager.list_tools("one")
    requests = len(server.requests)
    assert (await call(manager, server, structuredContent=3)).structured_content == 3
    assert len(server.requests) == requests + 1
    assert manager.server("one").faults == {"an output schema that cannot be used": 1}


async def test_what_goes_along_with_a_call_and_what_is_known_of_the_server(
    manager: McpManager, server: ScriptedServer
) -> None:
    await manager.call_tool("one", "echo", {"text": "x"}, meta={"a": 1}, on_progress=lambda *_: None)
    sent = server.requests_of("tools/call")[-1].params["_meta"]
    assert sent["a"] == 1 and "progressToken" in sent
    server.script("completion/complete", faults.Result({"completion": {"values": ["v"], "hasMore": True}}))
    completed = await manager.complete("one", {"type": "ref/prompt", "name": "p"}, "a", "v", context={"b": "1"})
    assert (completed.completion.values, completed.completion.has_more) == (["v"], True)
    assert server.requests_of("completion/complete")[-1].params["context"] == {"arguments": {"b": "1"}}
    server.script(
        "server/discover", faults.Result({"supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 5})
    )
    discovered = await manager.discover("one")
    assert (discovered.supported_versions, discovered.ttl_ms) == (["2026-07-28"], 5)
    identity = manager.server("one").identity
    assert identity is not None and identity.name
