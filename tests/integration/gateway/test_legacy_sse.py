"""HTTP+SSE of 2024-11-05: the official client, our own, and what a scripted client may do wrong."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import pytest
from mcp import ClientSession, types
from mcp.client.sse import sse_client
from support.calls import eventually
from support.processes import PROGRAMS, sdk_stdio

from mcp_manager import Handlers, McpManager
from mcp_manager.gateway.gateway import Gateway

ELICIT = "elicitation/create"
QUESTION = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
FLEET = {"servers": {"a": {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"]}}}


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    settings = {"listen": "127.0.0.1:0", "legacy_sse": True, "keepalive_s": 0.1, "max_request_bytes": 10_000}
    async with Gateway(FLEET, serve=settings) as gateway:
        yield gateway


class SseClient:
    """A scripted client with one stream."""

    def __init__(self, gateway: Gateway, path: str = "/servers/a/sse") -> None:
        self.url = gateway.url
        self._path = path
        self._http = aiohttp.ClientSession()
        self._response: aiohttp.ClientResponse | None = None
        self.endpoint = ""

    async def __aenter__(self) -> Self:
        self._response = await self._http.get(self.url + self._path)
        assert self._response.status == 200
        assert self._response.content_type == "text/event-stream"
        name, self.endpoint = await self.event()
        assert name == "endpoint"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Close all connections."""
        if self._response is not None:
            self._response.close()
        await self._http.close()

    async def event(self) -> tuple[str, str]:
        """Return the name and the data of the next event; ``comment`` for a comment."""
        assert self._response is not None
        lines = []
        async with asyncio.timeout(20):
            while (line := (await self._response.content.readline()).decode().rstrip("\n")) or not lines:
                lines.append(line)
        if lines[0].startswith(":"):
            return "comment", ""
        fields = dict(each.split(": ", 1) for each in lines)
        return fields["event"], fields["data"]

    async def receive(self) -> Any:
        """Return the next message."""
        while (event := await self.event())[0] == "comment":
            pass
        return json.loads(event[1])

    async def post(self, body: Any, url: str | None = None, **headers: str) -> tuple[int, bytes]:
        """Send a body, and return status and body of the response."""
        data = body if isinstance(body, bytes) else json.dumps({"jsonrpc": "2.0", **body}).encode()
        headers = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        async with self._http.post(self.url + (url or self.endpoint), data=data, headers=headers) as response:
            return response.status, await response.read()

    async def initialize(self, capabilities: dict[str, Any] | None = None) -> Any:
        """Begin the session."""
        info = {"name": "client", "version": "1"}
        params = {"protocolVersion": "2024-11-05", "capabilities": capabilities or {}, "clientInfo": info}
        assert await self.post({"id": 0, "method": "initialize", "params": params}) == (202, b"Accepted")
        result = (await self.receive())["result"]
        await self.post({"method": "notifications/initialized"})
        return result

    async def call(self, request_id: Any, tool: str, **arguments: Any) -> None:
        """Call a tool."""
        status, _ = await self.post(
            {"id": request_id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        )
        assert status == 202


async def test_the_official_client_calls_and_is_asked(gateway: Gateway) -> None:
    await gateway.manager.deploy("b", sdk_stdio().config())

    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async with sse_client(f"{gateway.url}/servers/b/sse") as (read, write):
        async with ClientSession(read, write, elicitation_callback=answer) as session:
            await session.initialize()
            result = await session.call_tool("elicit", {})
            assert result.structured_content == {"result": "Ada"}


async def test_our_own_client_calls_and_is_asked(gateway: Gateway) -> None:
    handlers = Handlers(elicitation=lambda server_id, request: request.accept({"name": "Grace"}))
    async with McpManager(handlers=handlers) as manager:
        await manager.deploy("g", {"url": f"{gateway.url}/servers/a/sse", "transport": "sse"})
        result = await manager.call_tool("g", "ask", {"method": ELICIT, "params": QUESTION})
        assert result.structured_content["answer"]["result"]["content"] == {"name": "Grace"}


async def test_the_whole_fleet_has_a_stream(gateway: Gateway) -> None:
    async with SseClient(gateway, "/sse") as client:
        assert (await client.initialize())["protocolVersion"] == "2024-11-05"
        await client.post({"id": "p", "method": "ping"})
        assert await client.receive() == {"jsonrpc": "2.0", "id": "p", "result": {}}


async def test_quiet_streams_are_kept_alive(gateway: Gateway) -> None:
    async with SseClient(gateway) as client:
        assert await client.event() == ("comment", "")


async def test_sessions_are_apart_and_cannot_be_guessed(gateway: Gateway) -> None:
    async with SseClient(gateway) as one, SseClient(gateway) as other:
        assert one.endpoint != other.endpoint
        assert len(one.endpoint.partition("session=")[2]) >= 43
        await one.initialize()
        await other.post({"id": 1, "method": "tools/list"})
        # The session of the other client has not begun.
        assert (await other.receive())["error"]["code"] == -32600
        for url in ("/messages", "/messages?session=", "/messages?session=x"):
            assert (await one.post({"id": 1, "method": "ping"}, url))[0] == 404


async def test_wrong_posts_are_refused_and_change_nothing(gateway: Gateway) -> None:
    async with SseClient(gateway) as client:
        await client.initialize()
        assert (await client.post(b"no json"))[0] == 400
        assert (await client.post(b"{" + b" " * 20_000 + b"}"))[0] == 413
        assert (await client.post({"id": 1, "method": "ping"}, Content_Type="text/plain"))[0] == 415
        assert (await client.post({"id": 1, "method": "ping"}, Origin="https://evil.example"))[0] == 403
        async with aiohttp.ClientSession() as http:
            for verb, path in (("GET", client.endpoint), ("POST", "/servers/a/sse"), ("DELETE", "/servers/a/sse")):
                async with http.request(verb, client.url + path) as response:
                    assert response.status == 405
            async with http.get(f"{client.url}/servers/unknown/sse") as response:
                assert response.status == 404
        await client.post({"id": "p", "method": "ping"})
        assert (await client.receive())["id"] == "p"


async def test_the_end_of_the_stream_ends_the_session(gateway: Gateway) -> None:
    async with SseClient(gateway) as client:
        await client.initialize()
        await client.call(1, "nothing")
        endpoint = client.endpoint
    assert gateway._legacy_sse is not None
    await eventually(lambda: not len(gateway._legacy_sse or ()), "the session ended")
    request = b'{"method":"tools/call","params":{"name":"received"}}'

    async def received() -> list[Any]:
        reply = json.loads(await gateway.manager.execute_raw("a", request))
        return [each.get("method") for each in reply["result"]["structuredContent"]["received"]]

    while "notifications/cancelled" not in await received():
        pass
    assert (await received()).count("notifications/cancelled") == 1
    async with SseClient(gateway) as other:
        assert (await other.post({"id": 1, "method": "ping"}, endpoint))[0] == 404


async def test_a_cancelled_call_is_cancelled_once(gateway: Gateway) -> None:
    async with SseClient(gateway) as client:
        await client.initialize()
        await client.call("c", "nothing")
        for _ in range(2):
            await client.post({"method": "notifications/cancelled", "params": {"requestId": "c"}})
        await client.call("r", "received")
        received = (await client.receive())["result"]["structuredContent"]["received"]
        assert [each.get("method") for each in received].count("notifications/cancelled") == 1


async def test_the_gateway_ends_its_streams() -> None:
    settings = {"listen": "127.0.0.1:0", "legacy_sse": True}
    gateway = Gateway(FLEET, serve=settings)
    await gateway.start()
    try:
        async with SseClient(gateway) as client:
            await client.initialize()
            await gateway.drain(1.0)
            assert client._response is not None
            assert await client._response.content.read() == b""
    finally:
        await gateway.stop()


async def test_it_is_off_by_default() -> None:
    async with Gateway(FLEET, serve={"listen": "127.0.0.1:0"}) as gateway, aiohttp.ClientSession() as http:
        async with http.get(f"{gateway.url}/servers/a/sse") as response:
            assert response.status == 404
