"""The gateway on standard input and output: frames, both eras, cancellation, questions and every kind of end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.calls import eventually
from support.gateway_pipes import PipeClient, stateless_meta
from support.processes import PROGRAMS

from mcp_manager import McpManager
from mcp_manager.gateway.forwarding import SHARED_CAPABILITIES

ELICIT = "elicitation/create"
QUESTION = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
ASKED: dict[str, Any] = {"elicitation": {"form": {}}}


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    """A manager whose server ``a`` is a program of 2025-11-25."""
    async with McpManager(shared_capabilities=SHARED_CAPABILITIES) as manager:
        await manager.deploy("a", {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"]})
        yield manager


async def received(client: PipeClient) -> list[Any]:
    """Return what the server has received."""
    client.call("received", "received")
    reply = await client.receive()
    messages: list[Any] = reply["result"]["structuredContent"]["received"]
    return messages


def methods(messages: list[Any]) -> list[Any]:
    return [each.get("method") for each in messages]


async def test_a_client_of_each_era_is_served_on_one_pipe(manager: McpManager) -> None:
    async with PipeClient(manager) as client:
        result = await client.initialize()
        assert result["protocolVersion"] == "2025-11-25"
        client.send({"id": "p", "method": "ping"})
        assert await client.receive() == {"jsonrpc": "2.0", "id": "p", "result": {}}
        client.call(1, "level")
        assert (await client.receive())["result"]["structuredContent"] == {"level": None}
        client.call(2, "level", stateless_meta())
        reply = await client.receive()
        assert (reply["id"], reply["result"]["resultType"]) == (2, "complete")


@pytest.mark.parametrize(
    ("line", "request_id", "code"),
    [
        (b"no json", None, -32700),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "x"', None, -32700),
        (b'\xff\xfe{"id":1}', None, -32700),
        (b'{"jsonrpc": "2.0"}', None, -32600),
        (b"17", None, -32600),
        (b"[]", None, -32600),
        (b'{"jsonrpc": "2.0", "id": 9, "method": "tools/list"}', 9, -32600),
        (b'[{"jsonrpc": "2.0", "id": 9, "method": "ping"}]', None, -32600),
        (b"[" * 900, None, -32700),
        (b'{"x": "' + b"y" * 2000 + b'"}', None, -32600),
    ],
)
async def test_a_bad_line_costs_one_error(manager: McpManager, line: bytes, request_id: Any, code: int) -> None:
    async with PipeClient(manager, max_request_bytes=1000) as client:
        client.write(line + b"\n\r\n\n")
        refusal = await client.receive()
        assert (refusal["id"], refusal["error"]["code"]) == (request_id, code)
        assert refusal["error"]["data"] == {"source": "gateway"}
        client.send({"id": "p", "method": "ping"})
        assert (await client.receive())["id"] == "p"


async def test_lines_may_come_in_any_pieces(manager: McpManager) -> None:
    async with PipeClient(manager) as client:
        for byte in b'{"jsonrpc":"2.0","id":1,"method":"ping"}\r\n{"jsonrpc":"2.0","id":2,"method":"ping"}':
            client.write(bytes([byte]))
        assert (await client.receive())["id"] == 1
        client.end_input()
        # The end of the input ends the last line.
        assert (await client.receive())["id"] == 2
        assert await client.receive() is None


async def test_messages_that_come_at_once_wait_for_the_handshake(manager: McpManager) -> None:
    info = {"name": "client", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    async with PipeClient(manager) as client:
        client.send(
            {"id": 0, "method": "initialize", "params": params},
            {"method": "notifications/initialized"},
            {"id": 1, "method": "tools/call", "params": {"name": "level", "arguments": {}}},
        )
        client.end_input()
        assert [(await client.receive())["id"] for _ in range(2)] == [0, 1]
        assert await client.receive() is None


async def test_a_batch_is_answered_with_a_batch(manager: McpManager) -> None:
    async with PipeClient(manager) as client:
        await client.initialize(revision="2025-03-26")
        batch = [{"jsonrpc": "2.0", "id": each, "method": "ping"} for each in (1, 2)]
        client.write(json.dumps(batch).encode() + b"\n")
        assert sorted(each["id"] for each in await client.receive()) == [1, 2]


async def test_a_question_is_asked_and_answered_on_the_same_pipe(manager: McpManager) -> None:
    async with PipeClient(manager) as client:
        await client.initialize(ASKED)
        client.call(1, "ask", method=ELICIT, params=QUESTION)
        question = await client.receive()
        assert (question["method"], question["params"]["message"]) == (ELICIT, "Who?")
        answer = {"action": "accept", "content": {"name": "Ada"}}
        client.send({"id": question["id"], "result": answer})
        reply = await client.receive()
        assert reply["result"]["structuredContent"]["answer"]["result"] == answer


@pytest.mark.parametrize(
    ("method", "missing"), [(ELICIT, "elicitation"), ("sampling/createMessage", "sampling"), ("roots/list", "roots")]
)
async def test_a_client_that_cannot_do_it_refuses(manager: McpManager, method: str, missing: str) -> None:
    async with PipeClient(manager) as client:
        await client.initialize()
        client.call(1, "ask", method=method, params=QUESTION)
        error = (await client.receive())["result"]["structuredContent"]["answer"]["error"]
        assert error["code"] == -32602
        assert missing in error["message"]


@pytest.mark.parametrize("era", ["handshake", "stateless"])
async def test_a_cancelled_request_is_cancelled_at_the_server_once(manager: McpManager, era: str) -> None:
    async with PipeClient(manager) as client:
        meta = None if era == "handshake" else stateless_meta()
        await client.initialize()
        client.call("c", "nothing", meta)
        while "nothing" not in [each.get("params", {}).get("name") for each in await received(client)]:
            pass
        for _ in range(2):
            client.send({"method": "notifications/cancelled", "params": {"requestId": "c"}})
        # The late reply of the server to the cancelled request is dropped.
        client.call(2, "answer_late")
        assert (await client.receive())["id"] == 2
        assert methods(await received(client)).count("notifications/cancelled") == 1


async def test_the_end_of_the_input_lets_requests_finish(manager: McpManager) -> None:
    async with PipeClient(manager) as client:
        await client.initialize()
        client.call(1, "level")
        client.end_input()
        assert (await client.receive())["id"] == 1
        assert await client.receive() is None
        assert client.serving is not None
        await client.serving


async def test_requests_that_go_on_too_long_are_cancelled_at_the_end(manager: McpManager) -> None:
    async with PipeClient(manager, drain_timeout_s=0.05) as client:
        await client.initialize()
        client.call(1, "nothing")
        client.end_input()
        assert await client.receive() is None
    reply = json.loads(await manager.execute_raw("a", b'{"method":"tools/call","params":{"name":"received"}}'))
    assert methods(reply["result"]["structuredContent"]["received"]).count("notifications/cancelled") == 1


async def test_a_client_that_is_gone_ends_everything(manager: McpManager) -> None:
    async with PipeClient(manager) as client:
        await client.initialize()
        client.call(1, "nothing")
        client.stop_reading()
        assert client.serving is not None
        await asyncio.wait_for(client.serving, 10)


async def test_stopping_ends_at_once(manager: McpManager) -> None:
    async with PipeClient(manager, drain_timeout_s=1000.0) as client:
        await client.initialize()
        client.call(1, "nothing")
        client.server.stop()
        assert client.serving is not None
        await asyncio.wait_for(client.serving, 10)
        assert await client.receive() is None


async def test_a_client_that_does_not_read_stops_the_reading_and_not_the_loop(manager: McpManager) -> None:
    async with PipeClient(manager) as client:
        await client.initialize()
        client.pause_reading()
        # The replies are as long as the requests, because of their ids.
        ping = json.dumps({"jsonrpc": "2.0", "id": "i" * 50_000, "method": "ping"}).encode() + b"\n"
        writing = asyncio.ensure_future(asyncio.to_thread(client.write, ping * 80))
        await eventually(lambda: client.unsent_bytes > 1 << 20, "the gateway keeps as much as it may")
        assert json.loads(await manager.execute_raw("a", b'{"id":1,"method":"ping"}'))["id"] == 1
        assert not writing.done()
        assert client.unsent_bytes < 2 << 20
        client.resume_reading()
        for _ in range(80):
            assert (await client.receive())["id"] == "i" * 50_000
        await writing
