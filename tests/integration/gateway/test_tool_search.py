"""Tools that are found by a search, and called through ``call_tool`` as they are by their own names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from support.calls import CALM
from support.catalog_server import CatalogServer, tool
from support.era_server import EraServer
from support.questioning import QuestioningServer, Reply, StatelessClient
from support.session_clients import HeldCall, MovedServer, SessionClient, events_of

from mcp_manager.config.serve import ViewConfig
from mcp_manager.gateway import Gateway
from mcp_manager.gateway.endpoints.kinds import TOOLS
from mcp_manager.gateway.list_changes import LIST_CHANGES
from mcp_manager.gateway.tool_search.meta_tools import META_TOOLS
from mcp_manager.protocol.methods import PROMPTS_CHANGED, TOOLS_CHANGED
from mcp_manager.testing import faults

SERVE = {"listen": "127.0.0.1:0", "keepalive_s": 30.0, "list_changed_delay_s": 0.01}
META_NAMES = sorted(META_TOOLS)
ASKABLE: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "roots": {}}
ANN = {"action": "accept", "content": {"name": "Ann"}}
FIND = tool(
    "find_customer",
    title="Find a customer",
    description="Look up customers by name or e-mail.\nSecond line.",
    inputSchema={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"text": {"type": "string"}},
        "type": "object",
        "properties": {"email": {"$ref": "#/$defs/text"}, "maxResults": {"type": "number", "maximum": 1e2}},
        "required": ["email"],
    },
    _meta={"example.com/own": {"b": 1, "a": 2}},
)
CRM = [FIND, tool("search_tools", description="Search the tools of the workshop."), tool("delete_customer")]
WIKI = [tool("edit_page", description="Change a page of the wiki."), tool("create_page")]


class World:
    """A gateway in front of servers of all kinds, and a client of each era at each of its endpoints."""

    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.http = http
        self.held: MovedServer
        self.old: QuestioningServer
        self.new: EraServer
        self.wiki: CatalogServer

    async def handshake(self, path: str = "/mcp/all", **capabilities: Any) -> SessionClient:
        return await SessionClient(self.http, self.gateway.url + path).begin(capabilities)

    def stateless(self, path: str = "/mcp/all", **capabilities: Any) -> StatelessClient:
        return StatelessClient(self.http, self.gateway.url + path, **capabilities)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    views = {
        "all": {"discovery": "search", "hot": ["wiki__edit*"]},
        "short": {"servers": ["crm", "wiki"], "names": "short", "discovery": "search"},
        "told": {"discovery": "search", "instructions": "Be kind.", "servers": ["crm"]},
    }
    async with AsyncExitStack() as stack:
        crm = stack.enter_context(CatalogServer({"tools": CRM}, instructions="Customers.\nAsk before deleting."))
        wiki = stack.enter_context(CatalogServer({"tools": WIKI}))
        wiki.capabilities["tools"]["listChanged"] = True
        new = stack.enter_context(EraServer())
        held = await stack.enter_async_context(MovedServer().running())
        old = await stack.enter_async_context(QuestioningServer())
        urls = {"crm": crm.url, "held": held.url, "new": new.url, "old": old.url, "wiki": wiki.url}
        servers = {name: {"url": url, **CALM} for name, url in urls.items()}
        gateway = await stack.enter_async_context(Gateway({"servers": servers}, serve=SERVE, views=views))
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)))
        await gateway.manager.wait_ready()
        world = World(gateway, http)
        world.held, world.old, world.new, world.wiki = held, old, new, wiki
        yield world
        assert gateway._reception.under_way == 0


async def called(client: SessionClient, name: str, arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = (await client.request("tools/call", {"name": name, "arguments": arguments}))["result"]
    return result


async def tools_of(client: SessionClient) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in (await client.request("tools/list"))["result"]["tools"]}


def text_of(result: dict[str, Any]) -> str:
    (content,) = result["content"]
    assert content["type"] == "text"
    return str(content["text"])


def wrapped(name: str, arguments: Any = None) -> dict[str, Any]:
    return {"name": "call_tool", "arguments": {"name": name, **({} if arguments is None else {"arguments": arguments})}}


async def test_tools_are_found_and_described(world: World) -> None:
    ana = await world.handshake()
    assert list(await tools_of(ana)) == sorted([*META_NAMES, "wiki__edit_page"])
    assert [each["name"] for each in (await world.stateless().send("tools/list")).result["tools"]] == sorted(
        [*META_NAMES, "wiki__edit_page"]
    )

    found = await called(ana, "search_tools", {"query": "look up a customer's e-mail"})
    best = found["structuredContent"]["tools"][0]
    assert best == {
        "name": "crm__find_customer",
        "server": "crm",
        "description": "Look up customers by name or e-mail.",
        "parameters": ["email", "maxResults"],
        "required": ["email"],
    }
    assert "crm__find_customer (server: crm)" in text_of(found) and "email*, maxResults" in text_of(found)
    of_2026 = await world.stateless().call("search_tools", arguments={"query": "look up a customer's e-mail"})
    assert of_2026.result["structuredContent"] == found["structuredContent"]
    assert of_2026.result["resultType"] == "complete"
    one = await called(ana, "search_tools", {"query": "CUSTOMER", "limit": "1"})
    assert len(one["structuredContent"]["tools"]) == 1

    # What has no words finds nothing, and what looks like syntax means nothing.
    for query in ('" OR "', "name:x* NEAR(", "\u0000'; DROP TABLE tools", "\U0001f600" * 3_000):
        assert "structuredContent" in await called(ana, "search_tools", {"query": query})
    servers = (await called(ana, "search_tools", {"query": " "}))["structuredContent"]["servers"]
    assert servers[0] == {"name": "crm", "description": "Customers.", "tools": 3}

    full = {name: entry for name, entry in (await tools_of(await world.handshake("/mcp"))).items()}
    described = await ana.post(
        "tools/call", {"name": "describe_tools", "arguments": {"names": ["crm__find_customer", "crm__find_custmer"]}}
    )
    body = await described.read()
    own = json.dumps({**FIND, "name": "crm__find_customer"}).encode()
    assert own in body
    content = json.loads(body)["result"]["structuredContent"]
    assert content["tools"] == [full["crm__find_customer"]]
    assert content["unknown"][0]["name"] == "crm__find_custmer"
    assert content["unknown"][0]["near"][0] == "crm__find_customer"
    nothing = await called(ana, "describe_tools", {"names": "no such"})
    assert nothing["isError"] and nothing["_meta"] == {"mcp-manager/source": "gateway"}


async def test_instructions_say_how_to_find_tools(world: World) -> None:
    instructions = (await world.handshake()).initialized["result"]["instructions"]
    assert "search_tools" in instructions and "- crm: Customers.\n" in instructions and "Ask before" not in instructions
    told = (await world.stateless("/mcp/told").send("server/discover")).result["instructions"]
    assert told.startswith("Be kind.") and "search_tools" in told and "crm" not in told


async def test_names_of_the_tools_that_find_others_are_theirs(world: World) -> None:
    ana = await world.handshake("/mcp/short")
    assert list(await tools_of(ana)) == META_NAMES
    found = (await called(ana, "search_tools", {"query": "workshop"}))["structuredContent"]["tools"]
    assert [each["name"] for each in found] == ["crm__search_tools"]
    assert text_of(await called(ana, "call_tool", {"name": "crm__search_tools"})) == "search_tools"
    assert text_of(await called(ana, "edit_page", {})) == "edit_page"


WRONG = [
    ({"name": "crm__find_custmer", "arguments": {}}, "did you mean crm__find_customer"),
    ({"name": "edit page", "arguments": {}}, "did you mean wiki__edit_page"),
    ({"name": "\u4e16", "arguments": {}}, "find tools with search_tools"),
    ({"name": "call_tool", "arguments": {}}, "cannot call itself"),
    ({"name": "wiki__edit_page", "page": "x"}, "put what is beside the name into arguments"),
    ({"name": 7}, "the name is missing"),
    ({"name": "wiki__edit_page", "arguments": [1]}, "the arguments are no object"),
    ("nothing", "call_tool takes"),
    (None, "call_tool takes"),
]


async def test_a_wrong_call_tells_the_model_what_to_do(world: World) -> None:
    client = world.stateless()
    for arguments, told in WRONG:
        reply = await client.send("tools/call", {"name": "call_tool", "arguments": arguments})
        assert reply.status == 200 and reply.result["isError"], arguments
        assert told in text_of(reply.result)
        assert reply.result["_meta"]["mcp-manager/source"] == "gateway"
    for name, arguments in (("search_tools", {"query": 7}), ("search_tools", [1]), ("describe_tools", {})):
        assert f"{name} takes" in text_of((await client.call(name, arguments=arguments)).result)
    assert (await client.call("search_tools", arguments={}, task={"ttl": 1})).error["code"] == -32601
    # What a name means that is in no list, its server says.
    assert (await client.call("crm__find_custmer")).error["code"] == -32602


async def test_a_call_is_that_of_the_tool_itself(world: World) -> None:
    ana, plain = await world.handshake(), {"name": "crm__find_customer", "arguments": {"email": "\u00e9", "n": 1e2}}
    direct = await (await ana.post("tools/call", plain, "x")).read()
    again = wrapped("crm__find_customer", plain["arguments"])
    assert await (await ana.post("tools/call", again, "x")).read() == direct
    # Models write the arguments as text at times, or leave them out.
    as_text = wrapped("crm__find_customer", json.dumps(plain["arguments"]))
    assert await (await ana.post("tools/call", as_text, "x")).read() == direct
    for params in (wrapped("old__plain"), wrapped("old__plain", None), {**wrapped("old__plain"), "_meta": {"a": 1}}):
        await ana.request("tools/call", params)
    assert [each["name"] for each in world.old.called] == ["plain"] * 3
    assert all(each["arguments"] == {} for each in world.old.called)
    assert world.old.called[-1]["_meta"]["a"] == 1
    # The tools that find others can be called so, too.
    inner = await called(ana, "call_tool", {"name": "search_tools", "arguments": {"query": "customer", "limit": 1}})
    assert inner["structuredContent"]["total"] > 10

    # 2026-07-28: the header fields of the call are made anew from what is called.
    ben = world.stateless()
    reply = await ben.send("tools/call", wrapped("new__query", {"region": " eu\u00e9", "text": "hi"}))
    assert text_of(reply.result) == "hi"
    assert world.new.requests_of("tools/call")[-1].headers["mcp-name"] == "query"
    wrong = await ben.send("tools/call", wrapped("new__query"), {"Mcp-Name": "new__query"})
    assert (wrong.status, wrong.error["code"]) == (400, -32020)


async def called_at(world: World, client: SessionClient, params: dict[str, Any]) -> tuple[Any, HeldCall]:
    posting = asyncio.create_task(client.post("tools/call", params, "held"))
    return posting, await world.held.call("hold")


async def test_progress_errors_and_cancellation_are_those_of_the_tool(world: World) -> None:
    ana = await world.handshake()
    await tools_of(ana)
    params = {**wrapped("held__hold", {"a": 1}), "_meta": {"progressToken": "p"}}
    posting, call = await called_at(world, ana, params)
    token = call.message["params"]["_meta"]["progressToken"]
    call.send("notifications/progress", {"progressToken": token, "progress": 1})
    events = events_of(await posting)
    assert (await events.message())["params"] == {"progressToken": "p", "progress": 1}
    call.reply("done")
    assert text_of((await events.message())["result"]) == "done"

    # An error of the server is passed on as it is.
    posting, call = await called_at(world, ana, params)
    call.outgoing.put_nowait({"jsonrpc": "2.0", "id": call.message["id"], "error": {"code": -32050, "message": "no"}})
    assert (await (await posting).json())["error"] == {"code": -32050, "message": "no"}

    posting, call = await called_at(world, ana, params)
    await ana.notify("notifications/cancelled", {"requestId": "held"})
    await world.held.until(lambda: "notifications/cancelled" in world.held.methods())
    await posting


async def test_servers_ask_during_a_call(world: World) -> None:
    ana = await world.handshake(**ASKABLE)
    events = events_of(await ana.post("tools/call", wrapped("old__ask")))
    question = await events.message()
    assert question["method"] == "elicitation/create"
    await ana.answer(question["id"], ANN)
    assert (await events.message())["result"]["structuredContent"] == {"answers": [ANN]}
    ana.close()

    ben = world.stateless(**ASKABLE)
    for name, seen in (("old__ask", {"answers": [ANN]}), ("new__ask", None)):
        asked = await ben.send("tools/call", wrapped(name))
        assert asked.result["resultType"] == "input_required"
        (key,) = asked.result["inputRequests"]
        state = {"requestState": asked.result["requestState"], "inputResponses": {key: ANN}}
        # A state is worth nothing for another tool, on whatever server that is.
        for other in (wrapped(f"{name[:3]}__plain"), wrapped("crm__find_customer"), {"name": name, "arguments": {}}):
            assert (await ben.send("tools/call", {**other, **state})).error["code"] == -32602
        done = await ben.send("tools/call", {**wrapped(name), **state})
        assert done.result["resultType"] == "complete"
        assert done.result.get("structuredContent") == seen
    refused: Reply = await world.stateless().send("tools/call", wrapped("old__ask"))
    assert refused.error["code"] == -32021


async def test_listeners_are_told_of_changes_of_what_is_listed(world: World) -> None:
    ana, ben = await world.handshake(), await world.handshake("/mcp")
    assert "wiki__edit_page" in await tools_of(ana)
    of_view, of_fleet = await ana.listen(), await ben.listen()

    async def change(*tools: dict[str, Any]) -> None:
        world.wiki.lists["tools"] = [*WIKI, *tools]
        world.gateway._news.changed("wiki", TOOLS_CHANGED)
        assert (await of_fleet.message())["method"] == TOOLS_CHANGED

    async def found_books() -> list[str]:
        found = await called(ana, "search_tools", {"query": "book"})
        return [each["name"] for each in found["structuredContent"]["tools"]]

    world.wiki.lists["tools"] = [*WIKI, tool("edit_book")]
    world.wiki.script("ping", faults.SseEvents(before=[{"jsonrpc": "2.0", "method": TOOLS_CHANGED}]))
    await world.gateway.manager.ping("wiki")
    assert (await of_view.message())["method"] == (await of_fleet.message())["method"] == TOOLS_CHANGED
    assert "wiki__edit_book" in await tools_of(ana)
    assert await found_books() == ["wiki__edit_book"]
    # What only a search finds is found at once, and nobody who lists is told.
    await change(tool("edit_book"), tool("create_book"))
    assert sorted(await found_books()) == ["wiki__create_book", "wiki__edit_book"]
    world.gateway._news.changed("wiki", PROMPTS_CHANGED)
    assert (await of_view.message())["method"] == PROMPTS_CHANGED
    assert (await of_fleet.message())["method"] == PROMPTS_CHANGED
    await change(tool("edit_book", description="Two."))
    assert (await of_view.message())["method"] == TOOLS_CHANGED
    assert (await tools_of(ana))["wiki__edit_book"]["description"] == "Two."
    ana.close()
    ben.close()


async def test_listeners_are_told_that_a_view_shows_something_else(world: World) -> None:
    ana = await world.handshake()
    await tools_of(ana)
    stream = await ana.listen()
    endpoint = world.gateway._endpoints.views["all"]
    searching = {"discovery": "search", "servers": ["crm"]}
    for config, shown in (
        ({"servers": ["crm"]}, "crm__find_customer"),
        (searching, "call_tool"),
        (searching | {"hot": ["*"]}, "crm__find_customer"),
    ):
        views = world.gateway._endpoints._view_configs | {"all": ViewConfig(**config)}
        world.gateway._endpoints.replace_views(views)
        # Somebody lists before anybody is told.
        await endpoint.listed(TOOLS)
        assert {(await stream.message())["method"] for _ in LIST_CHANGES} == set(LIST_CHANGES)
        assert shown in await tools_of(ana)
    ana.close()
