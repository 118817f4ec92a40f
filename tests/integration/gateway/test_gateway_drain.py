"""The end of a gateway: calls under way finish, streams end, and nothing is lost; and clients that leave before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.session_clients import MovedServer, SessionClient

from mcp_manager.gateway import Gateway

pytestmark = pytest.mark.both_loops

ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
async def server() -> AsyncIterator[MovedServer]:
    async with MovedServer().running() as server:
        yield server


@pytest.fixture
async def gateway(server: MovedServer) -> AsyncIterator[Gateway]:
    servers = {"s": {"url": server.url, "protocol_version": "2025-11-25"}}
    async with Gateway({"servers": servers}, serve={"listen": "127.0.0.1:0"}) as gateway:
        yield gateway


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=ACCEPT, timeout=aiohttp.ClientTimeout(total=10)) as http:
        yield http


def called(client: SessionClient, name: str) -> asyncio.Future[Any]:
    return asyncio.ensure_future(client.post("tools/call", {"name": name, "arguments": {}}))


async def test_calls_under_way_finish(gateway: Gateway, server: MovedServer, http: aiohttp.ClientSession) -> None:
    client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
    standing = await client.listen()
    async with http.get(f"{gateway.url}/ready") as response:
        assert response.status == 200
    posting = called(client, "slow")
    call = await server.call("slow")
    draining = asyncio.ensure_future(gateway.drain(10))
    # The stream tells its client when to come back, and ends.
    retries = [event.retry async for event in _rest(standing)]
    assert any(retry is not None for retry in retries)
    assert await gateway.reasons() == ["the gateway is shutting down"]
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as other, other.get(f"{gateway.url}/ready"):
            pass
    assert not draining.done()
    call.reply()
    response = await posting
    assert (await response.json())["result"]["content"][0]["text"] == "done"
    assert response.headers["Connection"] == "close"
    assert await draining
    client.close()


async def _rest(reader: Any) -> AsyncIterator[Any]:
    while (event := await reader.next()) is not None:
        yield event


async def test_readiness_is_refused_on_a_connection_that_is_open(gateway: Gateway, server: MovedServer) -> None:
    async with aiohttp.ClientSession(headers=ACCEPT, connector=aiohttp.TCPConnector(limit=1)) as http:
        async with http.get(f"{gateway.url}/ready") as response:
            assert response.status == 200
        await gateway.drain(0)
        async with http.get(f"{gateway.url}/ready") as response:
            assert response.status == 503
            assert (await response.json())["reasons"] == ["the gateway is shutting down"]
            assert response.headers["Connection"] == "close"


async def test_no_call_is_lost_under_load(gateway: Gateway, server: MovedServer) -> None:
    """Many clients call all the time; a call that is accepted is answered, and the others were never sent."""
    outcomes = {"answered": 0, "refused": 0}
    started = asyncio.Event()

    async def one(number: int) -> None:
        # No retries, and no connection is used again: what is counted is what the gateway did.
        async with aiohttp.ClientSession(headers=ACCEPT, connector=aiohttp.TCPConnector(force_close=True)) as http:
            client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
            while True:
                try:
                    reply = await (await client.post("tools/list")).json()
                except aiohttp.ClientConnectorError:
                    outcomes["refused"] += 1
                    return
                assert "result" in reply
                outcomes["answered"] += 1
                if outcomes["answered"] > 40:
                    started.set()

    clients = [asyncio.ensure_future(one(number)) for number in range(8)]
    async with asyncio.timeout(10):
        await started.wait()
        assert await gateway.drain(10)
        await gateway.stop()
        await asyncio.gather(*clients)
    assert outcomes["refused"] == 8


async def test_what_takes_too_long_is_cancelled_and_told(
    gateway: Gateway, server: MovedServer, http: aiohttp.ClientSession
) -> None:
    client = await SessionClient(http, f"{gateway.url}/servers/s/mcp").begin()
    posting = called(client, "endless")
    await server.call("endless")
    assert not await gateway.drain(0.01)
    await gateway.stop()
    reply = await (await posting).json()
    assert (reply["id"], reply["error"]["data"]) == (1, {"source": "gateway", "delivery": "unknown"})
    client.close()


async def test_a_client_of_the_stateless_era_that_leaves_cancels(gateway: Gateway, server: MovedServer) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": "slow", "arguments": {}, "_meta": meta}
    fields = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "slow"}
    async with aiohttp.ClientSession(headers=ACCEPT) as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        posting = asyncio.ensure_future(http.post(f"{gateway.url}/servers/s/mcp", json=body, headers=fields))
        await server.call("slow")
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
    async with asyncio.timeout(10):
        await server.until(lambda: "notifications/cancelled" in server.methods())
        while gateway._reception.under_way:
            await asyncio.sleep(0.01)


async def test_stop_is_idempotent_and_may_come_first(server: MovedServer) -> None:
    gateway = Gateway({}, serve={"listen": "127.0.0.1:0"})
    await gateway.stop()
    await gateway.stop()
    async with Gateway({}, serve={"listen": "127.0.0.1:0"}) as other:
        await asyncio.gather(other.stop(), other.stop())
