"""Every caller gets the reply to its own request, whatever else a server or a bridge sends to everybody."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.calls import CALM, deployed, echo, eventually, text_of
from support.streams import HttpSseServer, StandingStreams

from mcp_manager import McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

pytestmark = pytest.mark.both_loops


async def test_no_session_takes_the_reply_of_another() -> None:
    with ScriptedServer() as server:
        streams = StandingStreams()
        server.script_always("GET", streams)
        async with McpManager() as manager:
            for name in ("a", "b"):
                await manager.deploy(name, {"url": server.url, **CALM})
            await streams.wait(server, 2)
            hold = faults.Hold()
            server.script("tools/call", hold)
            waiting = asyncio.create_task(manager.execute_raw("b", echo("of b"), timeout=20))
            await server.wait_for("tools/call")
            assert text_of(await manager.execute_raw("a", echo("of a"))) == "of a"
            [_, of_a] = server.requests_of("tools/call")
            # A bridge that does not know who asked tells everybody.
            for stream in streams.opened:
                stream.say(server.answer(of_a)[2])
            await eventually(
                lambda: all(manager.server(name).faults == {"a reply that nobody waits for": 1} for name in "ab"),
                "the arrival of the foreign replies",
            )
            assert not waiting.done()
            [of_b, _] = server.requests_of("tools/call")
            streams.opened[1].say(server.answer(of_b)[2])
            assert text_of(await waiting) == "of b"


@pytest.mark.slow
async def test_no_http_sse_session_takes_the_reply_of_another() -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            for name in ("a", "b"):
                await manager.deploy(name, {"url": server.url, **CALM, "transport": "sse"})
            hold = faults.Hold()
            server.script("tools/call", hold)
            waiting = asyncio.create_task(manager.execute_raw("b", echo("of b"), timeout=20))
            await server.wait_for("tools/call")
            assert text_of(await manager.execute_raw("a", echo("of a"))) == "of a"
            [of_b, of_a] = server.requests_of("tools/call")
            server.streams[1].say(server.reply_to(of_a))
            await eventually(
                lambda: manager.server("b").faults == {"a reply that nobody waits for": 1},
                "the arrival of the foreign reply",
            )
            assert not waiting.done()
            server.streams[1].say(server.reply_to(of_b))
            assert text_of(await waiting) == "of b"
            hold.release()


def numbers_of(server: ScriptedServer) -> list[list[int]]:
    """The ids of each session's requests, in their order."""
    numbers: list[list[int]] = []
    for request in server.requests:
        if request.method == "server/discover" or (request.method == "initialize" and not numbers):
            numbers.append([])
        if isinstance(request.id, int):
            numbers[-1].append(request.id)
    return numbers


async def test_each_session_counts_from_a_number_of_its_own() -> None:
    firsts: list[int] = []
    for _ in range(3):
        with ScriptedServer() as server:
            async with deployed(server) as manager:
                for number in range(3):
                    assert text_of(await manager.execute_raw("a", echo(str(number)))) == str(number)
            [ids] = numbers_of(server)
            assert ids == list(range(ids[0], ids[0] + 5))
            # As long as most callers' ids, and within the reach of servers that count in 32 bits.
            assert all(10**9 <= each < 2**31 for each in ids)
            firsts.append(ids[0])
    assert len(set(firsts)) == 3


async def test_progress_tokens_of_two_managers_differ() -> None:
    tokens: list[Any] = []
    with ScriptedServer() as server:
        for _ in range(2):
            async with deployed(server) as manager:
                for _ in range(2):
                    await manager.call_tool("a", "echo", {"text": "x"}, on_progress=lambda *_: None)
        tokens = [
            json.loads(each.body)["params"]["_meta"]["progressToken"] for each in server.requests_of("tools/call")
        ]
    assert len(set(tokens)) == 4
    assert len({len(token) for token in tokens}) == 1
