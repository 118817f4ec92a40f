"""What 2026-07-28 servers say holds is not asked for again, whichever way it is asked for."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.calls import CALM, eventually
from support.stateless_server import StatelessServer

from mcp_manager import McpManager
from mcp_manager.errors import RpcError
from mcp_manager.testing.faults import RpcErrorReply
from mcp_manager.testing.scripted import ScriptedServer

HOUR = 3_600_000


class NumberedServer(StatelessServer):
    """Answers every list and read with a number of its own, and the same hint."""

    def __init__(self, ttl_ms: int = HOUR, **options: Any) -> None:
        super().__init__(**options)
        self.ttl_ms = ttl_ms
        self.numbers = itertools.count(1)
        self.results |= {
            "tools/list": lambda params: self._hinted(tools=[self._tool()]),
            "prompts/list": lambda params: self._hinted(prompts=[{"name": f"prompt-{next(self.numbers)}"}]),
            "resources/read": lambda params: self._hinted(
                contents=[{"uri": params["uri"], "text": str(next(self.numbers))}]
            ),
        }

    def _hinted(self, **members: Any) -> dict[str, Any]:
        return {"resultType": "complete", "ttlMs": self.ttl_ms, "cacheScope": "private", **members}

    def _tool(self) -> dict[str, Any]:
        return {"name": f"tool-{next(self.numbers)}", "inputSchema": {"type": "object"}}


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as running:
        yield running


async def text_of(manager: McpManager, uri: str) -> str:
    result = await manager.read_resource("a", uri)
    text = result.contents[0].text
    assert text is not None
    return text


async def test_a_result_is_asked_for_once_whichever_way(manager: McpManager) -> None:
    with NumberedServer() as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        first = await manager.request("a", "tools/list")
        assert [tool.name for tool in await manager.list_tools("a")] == [first["tools"][0]["name"]]
        raw = json.loads(await manager.execute_raw("a", b'{"id":"mine","method":"tools/list"}'))
        assert raw == {"jsonrpc": "2.0", "id": "mine", "result": first}
        assert await text_of(manager, "x") == await text_of(manager, "x") != await text_of(manager, "y")
        assert len(server.requests_of("tools/list")) == 1
        assert len(server.requests_of("resources/read")) == 2


async def test_a_server_without_hints_is_always_asked(manager: McpManager) -> None:
    with NumberedServer(ttl_ms=0) as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        for _ in range(3):
            await manager.list_tools("a")
            await text_of(manager, "x")
        assert len(server.requests_of("tools/list")) == len(server.requests_of("resources/read")) == 3


async def test_caching_can_be_turned_off(manager: McpManager) -> None:
    with NumberedServer() as server:
        await manager.deploy("a", {"url": server.url, **CALM, "cache": False})
        for _ in range(2):
            await text_of(manager, "x")
        assert len(server.requests_of("resources/read")) == 2


async def test_what_is_kept_can_be_forgotten(manager: McpManager) -> None:
    with NumberedServer() as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        before = await text_of(manager, "x")
        manager.drop_cached("a")
        assert await text_of(manager, "x") != before


async def test_servers_and_their_replacements_share_nothing(manager: McpManager) -> None:
    with NumberedServer() as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        await manager.deploy("b", {"url": server.url, **CALM, "headers": {"X-User": "b"}})
        await text_of(manager, "x")
        await manager.read_resource("b", "x")
        await manager.redeploy("a", {"url": server.url, **CALM, "headers": {"X-User": "a"}})
        await text_of(manager, "x")
        assert len(server.requests_of("resources/read")) == 3


async def test_a_change_ends_what_is_kept(manager: McpManager) -> None:
    with NumberedServer() as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        await manager.subscribe("a", "x")
        before = await text_of(manager, "x")
        server.tell("notifications/resources/updated", {"uri": "x"})
        cache = manager._servers["a"].template.knowledge.cache
        await eventually(lambda: len(cache) == 0, "the resource was forgotten")
        assert await text_of(manager, "x") != before


async def test_a_stream_with_a_gap_ends_all_that_is_kept(manager: McpManager) -> None:
    with NumberedServer() as server:
        await manager.deploy("a", {"url": server.url, **CALM, "restart": {"initial_s": 0.01, "max_s": 0.02}})
        await manager.subscribe("a", "x")
        await text_of(manager, "y")
        await manager.request("a", "prompts/list")
        old = server.streams[0]
        server.drop(old)
        await server.wait_until(lambda: len(server.streams) == 1 and server.streams[0] is not old)
        cache = manager._servers["a"].template.knowledge.cache
        await eventually(lambda: len(cache) == 0, "everything was forgotten")


async def test_a_ping_is_never_answered_from_what_is_kept(manager: McpManager) -> None:
    with StatelessServer() as server:
        server.results["server/discover"] = {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {},
            "ttlMs": HOUR,
            "cacheScope": "public",
        }
        await manager.deploy("a", {"url": server.url, **CALM})
        await manager.request("a", "server/discover")
        asked = len(server.requests_of("server/discover"))
        await manager.request("a", "server/discover")
        assert len(server.requests_of("server/discover")) == asked
        for _ in range(2):
            await manager.ping("a")
        assert len(server.requests_of("server/discover")) == asked + 2


async def test_answers_in_rounds_are_not_kept(manager: McpManager) -> None:
    asked = {"k": {"method": "roots/list", "params": {}}}

    def read(params: dict[str, Any]) -> dict[str, Any]:
        if "inputResponses" not in params:
            return {"resultType": "input_required", "inputRequests": asked}
        return {"resultType": "complete", "ttlMs": HOUR, "contents": []}

    async def roots(server_id: str, params: Any) -> Any:
        return {"roots": []}

    with StatelessServer(results={"resources/read": read}) as server:
        async with McpManager(handlers={"roots/list": roots}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for _ in range(2):
                await manager.read_resource("a", "x")
        assert len(server.requests_of("resources/read")) == 4


async def test_a_bad_cursor_drops_the_pages(manager: McpManager) -> None:
    with NumberedServer() as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        await manager.request("a", "tools/list")
        server.script("tools/list", RpcErrorReply(-32602, "no such cursor"))
        with pytest.raises(RpcError):
            await manager.request("a", "tools/list", {"cursor": "old"})
        await manager.request("a", "tools/list")
        assert len(server.requests_of("tools/list")) == 3


async def test_errors_are_not_kept(manager: McpManager) -> None:
    with NumberedServer() as server:
        server.script("resources/read", RpcErrorReply(-32602))
        await manager.deploy("a", {"url": server.url, **CALM})
        with pytest.raises(RpcError):
            await text_of(manager, "x")
        assert await text_of(manager, "x") == "1"


async def test_the_catalogue_of_tools_holds_as_long_as_the_server_says(manager: McpManager) -> None:
    with NumberedServer(ttl_ms=0, capabilities={"tools": {}}) as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        # Without hints, as with earlier revisions: five minutes.
        assert await manager.list_all_tools() == await manager.list_all_tools()
        assert len(server.requests_of("tools/list")) == 1
    with NumberedServer(ttl_ms=1, capabilities={"tools": {}}) as server:
        await manager.redeploy("a", {"url": server.url, **CALM})
        first = await manager.list_all_tools()
        cache = manager._servers["a"].template.knowledge.cache
        await eventually(lambda: cache.fresh_until("tools/list") == 0, "the list expired")
        assert await manager.list_all_tools() != first


async def test_handshake_servers_are_never_cached(manager: McpManager) -> None:
    class Hinting(ScriptedServer):
        def _result(self, request: Any) -> dict[str, Any]:
            reply = super()._result(request)
            if request.method == "tools/list":
                reply["result"]["ttlMs"] = HOUR
            return reply

    with Hinting() as server:
        await manager.deploy("a", {"url": server.url, **CALM})
        for _ in range(2):
            await manager.list_tools("a")
        assert len(server.requests_of("tools/list")) == 2
