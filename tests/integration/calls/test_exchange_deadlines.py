"""On every transport, ``request_timeout_s`` bounds the time that the server takes, and not that of a client's answers."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from support.calls import CALM, tool_call
from support.processes import PROGRAMS, sdk_http
from support.streams import HttpSseServer

from mcp_manager import DeadlineExceededError, McpManager, ServerMessage
from mcp_manager.testing.faults import AcceptedWithoutAnswer
from mcp_manager.testing.scripted.stateless import HANDSHAKE

ELICIT = "elicitation/create"
QUESTION = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
ANSWER = {"action": "accept", "content": {"name": "Ada"}}
TIMEOUT_S = 1.0
ASKED: dict[str, Any] = {"elicitation": {"form": {}}}


async def slow(message: ServerMessage) -> dict[str, Any]:
    await asyncio.sleep(TIMEOUT_S * 1.5)
    return ANSWER


async def of_http(era: str | None) -> Any:
    with sdk_http() as server:
        async with McpManager(capabilities=ASKED) as manager:
            config = {"url": server.url, "connect_timeout_s": 10.0, "request_timeout_s": TIMEOUT_S}
            await manager.deploy("a", {**config, "protocol_version": era or "auto"})
            call = tool_call("elicit", {}, 1)
            return json.loads(await manager.exchange("a", call, on_message=slow, answers_input=True))


async def of_a_program(era: str) -> Any:
    async with McpManager(capabilities=ASKED) as manager:
        command = {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), era]}
        await manager.deploy("a", {**command, "request_timeout_s": TIMEOUT_S})
        call = tool_call("ask", {"method": ELICIT, "params": QUESTION}, 1)
        return json.loads(await manager.exchange("a", call, on_message=slow, answers_input=True))


async def test_answers_may_take_longer_than_a_server() -> None:
    replies = await asyncio.gather(
        of_http(HANDSHAKE), of_http(None), of_a_program("handshake"), of_a_program("stateless")
    )
    for reply in replies:
        assert "Ada" in json.dumps(reply["result"])


async def test_over_http_sse_the_time_of_an_answer_does_not_count_either() -> None:
    with HttpSseServer() as server:
        async with McpManager(capabilities=ASKED) as manager:
            await manager.deploy("a", {"url": server.url, "transport": "sse", **CALM, "request_timeout_s": TIMEOUT_S})
            server.script("tools/call", AcceptedWithoutAnswer())
            making = asyncio.ensure_future(manager.exchange("a", tool_call("echo", {}, 1), on_message=slow))
            await server.wait_until(lambda: bool(server.requests_of("tools/call")))
            stream, sent = server.streams[0], server.requests_of("tools/call")[0]
            await asyncio.to_thread(stream.say, {"jsonrpc": "2.0", "id": "q", "method": ELICIT, "params": QUESTION})
            await server.wait_until(lambda: any((each.message or {}).get("id") == "q" for each in server.requests))
            await asyncio.to_thread(stream.say, {"jsonrpc": "2.0", "id": sent.id, "result": {"ok": True}})
            assert json.loads(await making)["result"] == {"ok": True}


async def test_a_server_that_is_silent_after_the_answer_meets_its_deadline() -> None:
    with HttpSseServer() as server:
        async with McpManager(capabilities=ASKED) as manager:
            await manager.deploy("a", {"url": server.url, "transport": "sse", **CALM, "request_timeout_s": 0.3})
            server.script("tools/call", AcceptedWithoutAnswer())

            async def answer(message: ServerMessage) -> dict[str, Any]:
                await asyncio.sleep(0.4)
                return ANSWER

            making = asyncio.ensure_future(manager.exchange("a", tool_call("echo", {}, 1), on_message=answer))
            await server.wait_until(lambda: bool(server.requests_of("tools/call")))
            question = {"jsonrpc": "2.0", "id": "q", "method": ELICIT, "params": QUESTION}
            await asyncio.to_thread(server.streams[0].say, question)
            with pytest.raises(DeadlineExceededError):
                await making
            assert any((each.message or {}).get("id") == "q" for each in server.requests)
