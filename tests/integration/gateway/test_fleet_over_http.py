"""The fleet, its views and its servers through a real gateway: servers of both eras, and clients of both eras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from mcp import Client, MCPError
from support.calls import CALM
from support.catalog_server import CatalogServer, tool
from support.processes import HttpServerProcess, fastmcp_stdio, sdk_http
from support.stateless_server import StatelessServer

from mcp_manager.gateway.gateway import Gateway

ERAS = pytest.mark.parametrize("mode", ["legacy", "auto"])
WIKI = {
    "tools": [tool("edit", description="Edit a page.", inputSchema={"type": "object", "$defs": {"a": {}}})],
    "prompts": [{"name": "greet"}],
    "resources": [{"uri": "wiki://home", "name": "home"}],
}


@pytest.fixture(scope="module")
def sdk() -> Iterator[HttpServerProcess]:
    with sdk_http() as process:
        yield process


@pytest.fixture
def wiki() -> Iterator[CatalogServer]:
    with CatalogServer(WIKI, instructions="Edit the wiki.") as server:
        yield server


@pytest.fixture
def notes() -> Iterator[StatelessServer]:
    lists: dict[str, Any] = {
        "tools/list": {"tools": [tool("note")], "ttlMs": 0, "cacheScope": "private", "resultType": "complete"},
        "tools/call": lambda params: {"content": [{"type": "text", "text": params["name"]}], "resultType": "complete"},
        "resources/list": {"resources": [{"uri": "note://1", "name": "n"}], "resultType": "complete"},
        "resources/templates/list": {"resourceTemplates": [], "resultType": "complete"},
        "prompts/list": {"prompts": [], "resultType": "complete"},
    }
    with StatelessServer(results=lists) as server:
        yield server


@pytest.fixture
async def gateway(sdk: HttpServerProcess, wiki: CatalogServer, notes: StatelessServer) -> AsyncIterator[Gateway]:
    servers = {
        "sdk": {"url": sdk.url, **CALM},
        "wiki": {"url": wiki.url, **CALM},
        "notes": {"url": notes.url, **CALM},
    }
    views = {"words": {"tools": ["sdk__echo", "notes__*"], "names": "short", "rename": {"sdk__echo": "say"}}}
    async with Gateway(
        {"servers": servers}, serve={"listen": "127.0.0.1:0", "list_changed_delay_s": 0.01}, views=views
    ) as gateway:
        yield gateway


@ERAS
async def test_the_fleet_is_one_server(gateway: Gateway, mode: str) -> None:
    async with Client(f"{gateway.url}/mcp", mode=mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        assert client.server_info.name == "mcp-manager"
        assert "Edit the wiki." in (client.instructions or "")
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert list(tools) == sorted(tools)
        assert {"sdk__echo", "wiki__edit", "notes__note"} <= set(tools)
        assert tools["wiki__edit"].input_schema == WIKI["tools"][0]["inputSchema"]
        for name, arguments, text in (
            ("sdk__echo", {"text": "hello"}, "hello"),
            ("wiki__edit", {}, "edit"),
            ("notes__note", {}, "note"),
        ):
            result = await client.call_tool(name, arguments)
            assert [each.text for each in result.content if each.type == "text"] == [text]
        uris = {str(each.uri) for each in (await client.list_resources()).resources}
        assert {"wiki://home", "note://1"} <= uris
        read = await client.read_resource("wiki://home")
        assert str(read.contents[0].uri) == "wiki://home"
        assert [each.name for each in (await client.list_prompts()).prompts if "greet" in each.name] == ["wiki__greet"]
        assert (await client.get_prompt("wiki__greet")).description == "greet"
        with pytest.raises(MCPError) as refused:
            await client.call_tool("wiki__edti", {})
        assert refused.value.error.code == -32602


@ERAS
async def test_a_view_shows_what_it_chooses(gateway: Gateway, mode: str) -> None:
    async with Client(f"{gateway.url}/mcp/words", mode=mode) as client:
        assert [each.name for each in (await client.list_tools()).tools] == ["note", "say"]
        assert (await client.call_tool("say", {"text": "x"})).content[0].text == "x"
        for hidden in ("sdk__echo", "echo", "sdk__add", "wiki__edit", "edit"):
            with pytest.raises(MCPError):
                await client.call_tool(hidden, {"text": "x"})
        with pytest.raises(MCPError):
            await client.read_resource("wiki://home")


@ERAS
async def test_one_server_is_as_it_is(gateway: Gateway, wiki: CatalogServer, mode: str) -> None:
    async with Client(f"{gateway.url}/servers/wiki/mcp", mode=mode) as client:
        assert (client.server_info.name, client.server_info.title) == ("catalog", "A catalogue")
        assert client.instructions == "Edit the wiki."
        assert [each.name for each in (await client.list_tools()).tools] == ["edit"]
        assert (await client.call_tool("edit", {})).content[0].text == "edit"


class Heard:
    """Keeps the notifications that a client gets."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self._came = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        self.methods.append(getattr(message, "method", ""))
        self._came.set()

    async def wait_for(self, method: str) -> None:
        while method not in self.methods:
            self._came.clear()
            await self._came.wait()


@pytest.mark.both_loops
async def test_a_server_that_comes_is_told_to_clients_of_both_eras(gateway: Gateway, wiki: CatalogServer) -> None:
    heard = Heard()
    async with (
        Client(f"{gateway.url}/mcp", mode="legacy", message_handler=heard) as old,
        Client(f"{gateway.url}/mcp", mode="auto") as new,
        new.listen(tools_list_changed=True) as changes,
    ):
        before = {each.name for each in (await old.list_tools()).tools}
        await new.list_tools()
        # A stream stands before it is known to: the next change reaches it.
        await gateway.manager.deploy("other", {"url": wiki.url, **CALM})
        await heard.wait_for("notifications/tools/list_changed")
        await anext(aiter(changes))
        for client in (old, new):
            after = {each.name for each in (await client.list_tools()).tools}
            assert after - before == {"other__edit"}


@pytest.mark.filterwarnings("ignore:resources/:mcp.shared.exceptions.MCPDeprecationWarning")
async def test_subscriptions_of_clients_of_both_eras_are_one(gateway: Gateway, wiki: CatalogServer) -> None:
    heard = Heard()
    async with (
        Client(f"{gateway.url}/mcp", mode="legacy", message_handler=heard) as old,
        Client(f"{gateway.url}/mcp", mode="auto") as new,
    ):
        await old.subscribe_resource("wiki://home")
        async with new.listen(resource_subscriptions=["wiki://home"]):
            assert len(wiki.requests_of("resources/subscribe")) == 1
        await old.unsubscribe_resource("wiki://home")
        await wiki.wait_for("resources/unsubscribe")
        assert len(wiki.requests_of("resources/unsubscribe")) == 1


async def test_programs_are_served() -> None:
    servers = {"fast": {**fastmcp_stdio().config(), **CALM}}
    async with (
        Gateway({"servers": servers}, serve={"listen": "127.0.0.1:0"}) as gateway,
        Client(f"{gateway.url}/mcp", mode="legacy") as client,
    ):
        assert (await client.call_tool("fast__echo", {"text": "x"})).content[0].text == "x"
        assert "fast__echo" in [each.name for each in (await client.list_tools()).tools]
