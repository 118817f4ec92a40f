"""Requests that are answered without a task, or forwarded by compiled code: clients see what they see of tasks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from support.session_clients import HeldCall, MovedServer, SessionClient, events_of

from mcp_manager.gateway.gateway import Gateway

Held = tuple[asyncio.Task[aiohttp.ClientResponse], HeldCall]

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
FIELDS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "hold",
}


@pytest.fixture(params=["forwarded", "sent", "task"])
def way(request: pytest.FixtureRequest) -> str:
    """Who answers: compiled code, a callback, or a task."""
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["json", "events"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[MovedServer]:
    async with MovedServer().running() as server:
        server.replies_json = request.param
        yield server


@pytest.fixture
async def gateway(server: MovedServer, way: str) -> AsyncIterator[Gateway]:
    async with Gateway({"servers": {"s": {"url": server.url}}}, serve={"listen": "127.0.0.1:0"}) as gateway:
        gateway._reception.sent.is_enabled = way != "task"
        if way != "forwarded":
            gateway._reception.learner = None
        await gateway.manager.wait_ready()
        # Afterwards there is a connection that is idle.
        calling = asyncio.create_task(gateway.manager.call("s", "tools/call", {"name": "hold"}))
        (await server.call("hold")).reply()
        await calling
        yield gateway
        assert gateway._reception.under_way == 0 and len(gateway._sessions.calls) == 0
        assert not gateway._keep_alives.waiting


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        yield http


Post = Callable[[], asyncio.Task[aiohttp.ClientResponse]]


async def held(gateway: Gateway, server: MovedServer, way: str, post: Post, again: Post | None = None) -> Held:
    """Send a call, and return it with what the server has got, after a check of who answers it.

    ``again`` sends a call like it: compiled code takes only calls that repeat what is known.
    """
    reception, path = gateway._reception, gateway._direct.path
    for _ in range(20 if way == "forwarded" else 0):
        before, posting = path.forwarded, (again or post)()
        call = await server.call("hold")
        call.reply()
        await (await posting).read()
        if path.forwarded > before:
            break
    before, posting = path.forwarded, post()
    call = await server.call("hold")
    assert path.forwarded == before + (way == "forwarded")
    if server.replies_json:
        assert len(reception.sent) == (way != "task")
    assert reception.under_way == 1
    return posting, call


async def test_a_handshake_client_sees_no_difference(
    gateway: Gateway, server: MovedServer, http: aiohttp.ClientSession, way: str
) -> None:
    reception = gateway._reception
    client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()

    def post(request_id: object = None) -> asyncio.Task[aiohttp.ClientResponse]:
        return asyncio.create_task(client.post("tools/call", {"name": "hold"}, request_id))

    async def begun(request_id: object = None) -> Held:
        return await held(gateway, server, way, lambda: post(request_id), post)

    posting, call = await begun("one")
    call.reply("first")
    reply = await (await posting).json()
    assert (reply["id"], reply["result"]["content"][0]["text"]) == ("one", "first")

    posting, call = await begun("two")
    call.outgoing.put_nowait({"jsonrpc": "2.0", "id": call.message["id"], "error": {"code": -32050, "message": "no"}})
    assert (await (await posting).json())["error"] == {"code": -32050, "message": "no"}

    if not server.replies_json:
        posting, call = await begun()
        call.send("notifications/message", {"level": "info", "data": "seen"})
        events = events_of(await posting)
        assert (await events.message())["params"]["data"] == "seen"
        # The client has not declared that it can be asked this.
        assert "error" in await call.ask("roots/list", {})
        call.reply("asked")
        assert [each["result"]["content"][0]["text"] for each in await events.rest()] == ["asked"]

    # The client cancels
    posting, call = await begun("three")
    assert (await client.notify("notifications/cancelled", {"requestId": "three"})).status == 202
    assert (await posting).status == 202
    await server.until(lambda: "notifications/cancelled" in server.methods())

    # Silence, and a client that is gone: the call goes on.
    posting, call = await begun("four")
    for waiting in list(gateway._keep_alives.waiting):
        waiting.keep_alive()
    (await posting).close()
    call.reply()

    # The session ends.
    posting, call = await begun("five")
    assert (await client.end()).status == 200
    assert (await posting).status == 202
    assert await reception.wait_idle(10)


async def test_a_stateless_client_sees_no_difference(
    gateway: Gateway, server: MovedServer, http: aiohttp.ClientSession, way: str
) -> None:
    reception = gateway._reception
    url = f"{gateway.url}/servers/s/mcp"

    def post(request_id: object) -> asyncio.Task[aiohttp.ClientResponse]:
        params: dict[str, Any] = {"name": "hold", "_meta": META}
        message = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}
        return asyncio.create_task(http.post(url, data=json.dumps(message), headers=FIELDS))  # type: ignore[arg-type]

    async def begun(request_id: object) -> Held:
        return await held(gateway, server, way, lambda: post(request_id), lambda: post("again"))

    # The first call learns which header fields there are to check.
    posting = post(0)
    (await server.call("hold")).reply()
    await (await posting).json()

    posting, call = await begun("one")
    call.reply("first")
    reply = await (await posting).json()
    assert (reply["id"], reply["result"]["content"][0]["text"]) == ("one", "first")
    assert reply["result"]["resultType"] == "complete" and "_meta" in reply["result"]

    posting, call = await begun("two")
    if not server.replies_json:
        assert "error" in await call.ask("roots/list", {})
    call.outgoing.put_nowait({"jsonrpc": "2.0", "id": call.message["id"], "error": {"code": -32602, "message": ""}})
    response = await posting
    # A server that was refused what it asked for has failed for that reason.
    code = -32602 if server.replies_json else -32021
    assert (response.status, (await response.json())["error"]["code"]) == (400, code)

    # The client goes, which cancels the call.
    posting, call = await begun("three")
    posting.cancel()
    await asyncio.wait({posting})
    await server.until(lambda: "notifications/cancelled" in server.methods())
    assert await reception.wait_idle(10)
    assert {key[2] for key in reception.traffic.requests} == {200, 400}


@pytest.mark.parametrize("drains", [True, False])
async def test_the_end_of_the_gateway_waits_for_calls_or_cancels_them(
    gateway: Gateway, server: MovedServer, http: aiohttp.ClientSession, way: str, drains: bool
) -> None:
    client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
    posting, call = await held(
        gateway, server, way, lambda: asyncio.create_task(client.post("tools/call", {"name": "hold"}))
    )
    if drains:
        draining = asyncio.create_task(gateway.drain(10))
        await asyncio.sleep(0)
        call.reply()
        assert (await (await posting).json())["result"]["isError"] is False
        assert await draining
    else:
        await gateway.stop()
        assert (await posting).status == 503
    client.close()
