"""Clients of the handshake era that are not ours: the official SDK over HTTP; and connections that are sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client
from support.session_clients import MovedServer

from mcp_manager._core.jsonrpc import scan
from mcp_manager.gateway.channels import EventStream
from mcp_manager.gateway.client import ANONYMOUS
from mcp_manager.gateway.gateway import Gateway

ASKABLE = {"sampling": {}, "elicitation": {"form": {}}, "roots": {"listChanged": True}}


@pytest.fixture
async def server() -> AsyncIterator[MovedServer]:
    async with MovedServer().running() as server:
        yield server


@pytest.fixture
async def gateway(server: MovedServer) -> AsyncIterator[Gateway]:
    servers = {"a": {"url": server.url, "protocol_version": "2025-11-25"}}
    async with Gateway({"servers": servers}, serve={"listen": "127.0.0.1:0"}) as gateway:
        yield gateway


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_the_official_client_is_asked_reported_to_and_notified(gateway: Gateway, server: MovedServer) -> None:
    seen: dict[str, Any] = {}
    changed = asyncio.Event()

    async def sample(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="sampled"), model="m"
        )

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async def roots(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///home")])

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        seen["log"] = params.data

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen["progress"] = (done, total)

    async def message(received: Any) -> None:
        if isinstance(received, types.ToolListChangedNotification):
            changed.set()

    async with (
        streamable_http_client(f"{gateway.url}/servers/a/mcp") as streams,
        ClientSession(
            *streams[:2],
            sampling_callback=sample,
            elicitation_callback=elicit,
            list_roots_callback=roots,
            logging_callback=log,
            message_handler=message,
        ) as client,
    ):
        begun = await client.initialize()
        assert begun.protocol_version == "2025-11-25"
        assert [tool.name for tool in (await client.list_tools()).tools] == ["hold"]
        await client.set_logging_level("info")
        calling = asyncio.create_task(client.call_tool("hold", {}, progress_callback=progress))
        call = await server.call("hold")
        token = call.message["params"]["_meta"]["progressToken"]
        call.send("notifications/progress", {"progressToken": token, "progress": 1, "total": 2})
        call.send("notifications/message", {"level": "info", "data": "logged"})
        sampled = await call.ask("sampling/createMessage", {"messages": [], "maxTokens": 5})
        assert sampled["result"]["content"]["text"] == "sampled"
        elicited = await call.ask(
            "elicitation/create", {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
        )
        assert elicited["result"]["content"] == {"name": "Ada"}
        listed = await call.ask("roots/list", {})
        assert listed["result"]["roots"][0]["uri"] == "file:///home"
        call.reply("done")
        result = await calling
        assert isinstance(result, types.CallToolResult) and result.content[0].text == "done"
        assert seen == {"log": "logged", "progress": (1.0, 2.0)}
        await server.until(lambda: call.session in server.standing)
        server.standing[call.session].put_nowait({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        async with asyncio.timeout(10):
            await changed.wait()
    await server.until(lambda: call.session in server.ended)


class Pipe:
    """The two ends of a connection that carries everything, as over stdio."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.on_gone: Callable[[], None] | None = None
        self.on_quiet: Callable[[], object] | None = None

    can_send = True
    sender = None
    usage = None

    def send(self, message: bytes) -> None:
        self.sent.put_nowait(json.loads(message))

    def open_events(self, fields: bytes = b"") -> EventStream | None:
        return None

    def finish(self, message: bytes, status: int = 200, fields: bytes = b"") -> None:
        self.send(message)

    def accept(self) -> None:
        pass

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await self.sent.get()


def encoded(**message: Any) -> Any:
    return scan(json.dumps({"jsonrpc": "2.0", **message}).encode())


async def test_a_connection_is_a_session(gateway: Gateway, server: MovedServer) -> None:
    pipe = Pipe()
    endpoint = gateway._endpoints.find("/servers/a/mcp")
    assert endpoint is not None
    connection = gateway._eras.handshake.connect(endpoint, ANONYMOUS, pipe.send)
    await connection.take(encoded(id=1, method="tools/list"), pipe)
    assert (await pipe.next())["error"]["code"] == -32600
    await connection.take(encoded(id=2, method="ping"), pipe)
    assert (await pipe.next())["result"] == {}
    await connection.take(encoded(method="notifications/initialized"), pipe)
    params = {"protocolVersion": "2025-06-18", "capabilities": ASKABLE}
    await connection.take(encoded(id=3, method="initialize", params=params), pipe)
    assert (await pipe.next())["result"]["protocolVersion"] == "2025-06-18"
    await connection.take(encoded(id=4, method="initialize", params=params), pipe)
    assert (await pipe.next())["error"]["code"] == -32600
    request = encoded(id=5, method="tools/call", params={"name": "hold", "arguments": {}})
    calling = asyncio.create_task(connection.take(request, pipe))
    call = await server.call("hold")
    call.send("notifications/message", {"level": "info", "data": 1})
    assert (await pipe.next())["method"] == "notifications/message"
    asked = call.ask("roots/list", {})
    question = await pipe.next()
    await connection.take(encoded(id=question["id"], result={"roots": []}), pipe)
    assert (await asked)["result"] == {"roots": []}
    await server.until(lambda: call.session in server.standing)
    server.standing[call.session].put_nowait({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    assert (await pipe.next())["method"] == "notifications/tools/list_changed"
    await connection.aclose()
    await connection.aclose()
    await calling
    await server.until(lambda: call.session in server.ended and call.is_cut)
    assert pipe.sent.empty()
    assert len(gateway._sessions) == 0 and len(gateway._sessions.calls) == 0
