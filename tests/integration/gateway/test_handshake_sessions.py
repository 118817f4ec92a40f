"""Sessions of clients of the handshake era, over real HTTP: whose they are, how they begin and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from support.session_clients import MovedServer, SessionClient, events_of

from mcp_manager.gateway.gateway import Gateway

ASKABLE = {"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": True}}


@pytest.fixture
async def server() -> AsyncIterator[MovedServer]:
    async with MovedServer().running() as server:
        yield server


@pytest.fixture
async def gateway(server: MovedServer) -> AsyncIterator[Gateway]:
    servers = {name: {"url": server.url, "protocol_version": "2025-11-25"} for name in ("a", "b")}
    async with Gateway({"servers": servers}, serve={"listen": "127.0.0.1:0"}) as gateway:
        yield gateway


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
def client(gateway: Gateway, http: aiohttp.ClientSession) -> Iterator[SessionClient]:
    client = SessionClient(http, f"{gateway.url}/servers/a/mcp")
    yield client
    client.close()


def held(name: str = "hold") -> dict[str, Any]:
    return {"name": name, "arguments": {}}


# The handshake


@pytest.mark.parametrize(
    "asked, agreed",
    [(each, each) for each in ("2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")]
    + [("2026-07-28", "2025-11-25"), ("1999-01-01", "2025-11-25")],
)
async def test_the_revision_is_agreed_on(client: SessionClient, asked: str, agreed: str) -> None:
    params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    response = await client.post("initialize", params)
    result = (await response.json())["result"]
    assert result["protocolVersion"] == agreed
    assert "tools" in result["capabilities"] and "name" in result["serverInfo"]


@pytest.mark.parametrize("params", [None, {}, [], {"protocolVersion": 7}, {"protocolVersion": "x", "capabilities": 1}])
async def test_a_malformed_initialize_is_refused(client: SessionClient, params: Any) -> None:
    refused = await client.request("initialize", params, 5)
    assert refused["id"] == 5 and refused["error"]["code"] == -32602


async def test_without_a_session_everything_else_is_refused(client: SessionClient) -> None:
    for method in ("tools/list", "ping", "notifications/initialized"):
        response = await client.post(method, request_id=3)
        assert response.status == 400
        assert (await response.json())["id"] == 3
    assert (await client.notify("notifications/initialized")).status == 400
    assert (await client.get()).status == 400 and (await client.end()).status == 400


async def test_a_revision_that_does_not_exist_is_refused(client: SessionClient) -> None:
    await client.begin()
    for revision, status in (("1999-01-01", 400), ("2026-07-28", 400), ("2025-11-25", 200)):
        client.revision = revision
        assert (await client.post("ping")).status == status


async def test_an_id_works_for_its_endpoint_only_and_no_longer_than_its_session(
    client: SessionClient, gateway: Gateway
) -> None:
    await client.begin()
    assert (await client.request("ping"))["result"] == {}
    here = client.url
    client.url = f"{gateway.url}/servers/b/mcp"
    assert (await client.post("ping")).status == 404 and (await client.end()).status == 404
    client.url = here
    refused = await client.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    assert refused["error"]["code"] == -32600
    assert (await client.end()).status == 200
    assert (await client.post("ping")).status == 404 and (await client.end()).status == 404
    assert (await client.get()).status == 404
    client.session_id = "forged"
    assert (await client.post("ping")).status == 404


async def test_the_end_of_a_session_ends_all_that_belongs_to_it(client: SessionClient, server: MovedServer) -> None:
    await client.begin(ASKABLE)
    standing = await client.listen()
    await standing.next()
    calling = asyncio.create_task(client.post("tools/call", held()))
    call = await server.call("hold")
    call.ask("roots/list", {})
    events = events_of(await calling)
    assert (await events.message())["method"] == "roots/list"
    assert (await client.end()).status == 200
    await server.until(lambda: call.session in server.ended and call.is_cut)
    assert await standing.rest() == []
    assert all(each.get("id") != call.message["id"] for each in await events.rest())


# Cancellation


async def test_a_cancelled_call_is_cancelled_upstream_once_and_not_answered(
    client: SessionClient, server: MovedServer
) -> None:
    await client.begin()
    calling = asyncio.create_task(client.post("tools/call", held(), "one"))
    call = await server.call("hold")
    for wrong in ({}, None, {"requestId": "two"}, {"requestId": 1}, []):
        assert (await client.notify("notifications/cancelled", wrong)).status == 202
    for _ in range(2):
        assert (await client.notify("notifications/cancelled", {"requestId": "one"})).status == 202
    response = await calling
    assert response.status == 202 and await response.read() == b""
    await server.until(lambda: "notifications/cancelled" in server.methods(call.session))
    assert (await client.request("ping"))["result"] == {}
    assert server.methods().count("notifications/cancelled") == 1


async def test_a_call_is_cancelled_by_its_own_session_only(
    client: SessionClient, gateway: Gateway, server: MovedServer
) -> None:
    await client.begin()
    other = await SessionClient(client.http, client.url).begin()
    calling = asyncio.create_task(client.post("tools/call", held(), 7))
    call = await server.call("hold")
    assert (await other.notify("notifications/cancelled", {"requestId": 7})).status == 202
    assert (await other.request("ping"))["result"] == {}
    call.reply("still here")
    reply = await (await calling).json()
    assert reply["id"] == 7 and reply["result"]["content"][0]["text"] == "still here"


async def test_notifications_reach_the_server_and_requests_without_an_id_do_not(
    client: SessionClient, server: MovedServer
) -> None:
    await client.begin()
    assert "result" in await client.request("tools/list")
    for method in ("tools/call", "tools/list", "initialize", "ping"):
        assert (await client.notify(method, held())).status == 202
    assert (await client.notify("notifications/own", {"x": 1})).status == 202
    await server.until(lambda: "notifications/own" in server.methods())
    assert server.methods().count("tools/list") == 1 and "tools/call" not in server.methods()


# Hostile messages


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": None, "method": "ping"},
        {"jsonrpc": "2.0", "id": "x" * 5_000, "method": "ping"},
        {"jsonrpc": "2.0", "id": 10**30, "method": "ping", "params": []},
        {"jsonrpc": "2.0", "id": 1.5, "method": "logging/setLevel", "params": []},
        {"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": {"a": [[]]}}},
        {"jsonrpc": "2.0", "id": 1, "method": "resources/unsubscribe", "params": {"uri": "never://subscribed"}},
        {"jsonrpc": "2.0", "id": "0.x", "error": {"code": -1, "message": ""}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": [1]},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": "x"},
        {"jsonrpc": "2.0", "id": 3, "method": ""},
        {"jsonrpc": "2.0"},
        "text",
        7,
        [[]],
    ],
)
async def test_a_hostile_message_gets_an_answer_and_the_session_goes_on(client: SessionClient, message: Any) -> None:
    await client.begin()
    response = await client.send(message)
    assert response.status in (200, 202, 400)
    await response.read()
    assert (await client.request("ping"))["result"] == {}


# Batches


@pytest.mark.parametrize("revision", ["2025-03-26", "2024-11-05"])
async def test_a_batch_is_answered_with_an_array(
    gateway: Gateway, http: aiohttp.ClientSession, server: MovedServer, revision: str
) -> None:
    client = await SessionClient(http, f"{gateway.url}/servers/a/mcp", revision).begin()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    response = await client.send([ping, note, {**ping, "id": 2, "method": "tools/list"}])
    replies = {each["id"]: each["result"] for each in await response.json()}
    assert replies[1] == {} and [each["name"] for each in replies[2]["tools"]] == ["hold"]
    response = await client.send([note])
    assert (response.status, await response.read()) == (202, b"")
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    assert (await client.send([ping, begin])).status == 400
    assert (await client.send([ping] * 200)).status == 400
    assert (await client.send([])).status == 400
    client.session_id = None
    assert (await client.send([ping])).status == 400


async def test_a_batch_becomes_a_stream_if_something_comes_before_the_replies(
    gateway: Gateway, http: aiohttp.ClientSession, server: MovedServer
) -> None:
    client = await SessionClient(http, f"{gateway.url}/servers/a/mcp", "2025-03-26").begin(ASKABLE)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": held()}
    calling = asyncio.create_task(client.send([call, {"jsonrpc": "2.0", "id": 2, "method": "ping"}]))
    moved = await server.call("hold")
    answer = moved.ask("roots/list", {})
    events = events_of(await calling)
    question = await events.message()
    assert (await client.answer(question["id"], {"roots": []})).status == 202
    assert (await answer)["result"] == {"roots": []}
    moved.reply()
    [replies] = await events.rest()
    assert {each["id"] for each in replies} == {1, 2}


async def test_later_revisions_refuse_batches(client: SessionClient) -> None:
    await client.begin()
    response = await client.send([{"jsonrpc": "2.0", "id": 1, "method": "ping"}])
    assert response.status == 400 and "batch" in json.dumps(await response.json())
