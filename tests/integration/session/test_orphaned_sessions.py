"""Sessions that a server gave out with a reply that never became one: each is ended, whatever became of the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from support.calls import CALM

from mcp_manager import ManagerConfig, McpManager, RpcError
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer, encode, head

LONG = {"connect_timeout_s": 60.0, "start_timeout_s": 60.0}
SHORT = {"connect_timeout_s": 0.3, "start_timeout_s": 0.3}
_JSON = {"Content-Type": "application/json"}

LANES = pytest.mark.parametrize("lanes", [True, False], ids=["lanes", "ordinary"])


@dataclass(frozen=True)
class PartOfReply:
    """Send the head of a reply with a new session's id and the beginning of its body, and then nothing, or the end.

    ``within_head`` stops before the head is complete, ``chunked`` says nothing of the length.
    """

    end: str = "stalls"
    chunked: bool = False
    within_head: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        _, headers, reply = connection.server.answer(request)
        body = encode(reply)
        if self.within_head:
            await connection.write(head(200, {**_JSON, **headers, "Content-Length": str(len(body))})[:-2])
        elif self.chunked:
            await connection.write(head(200, {**_JSON, **headers, "Transfer-Encoding": "chunked"}))
            await connection.write_chunk(body[:20])
        else:
            length = len(body) if self.end != "is too long" else 10**7
            await connection.write(head(200, {**_JSON, **headers, "Content-Length": str(length)}) + body[:20])
        connection.server.news()
        if self.end == "closes":
            connection.close()
        elif self.end == "resets":
            connection.reset()
        await connection.hang()


@dataclass(frozen=True)
class WithSession:
    """Answer with a new session's id and something else than the result of ``initialize``."""

    status: int
    body: Any

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        session_id = connection.server.begin_session()
        body = self.body if isinstance(self.body, bytes) else encode({"jsonrpc": "2.0", "id": request.id, **self.body})
        await connection.respond(self.status, {**_JSON, "Mcp-Session-Id": session_id}, body)
        connection.server.news()


def config(server: ScriptedServer, **settings: Any) -> dict[str, Any]:
    return {"url": server.url, "protocol_version": "2025-11-25", **CALM, **LONG, "shutdown_grace_s": 0.5, **settings}


async def undeployed(manager: McpManager) -> None:
    await manager.undeploy("a")


async def stopped(manager: McpManager) -> None:
    await manager.stop()


async def caller_gone(manager: McpManager) -> None:
    for task in asyncio.all_tasks():
        if task.get_name() == "deploying":
            task.cancel()


async def _received() -> None:
    """Let the loop take what has arrived, and pass it on to whoever waits for it."""
    for _ in range(30):
        await asyncio.sleep(0)


def _deleted(server: ScriptedServer) -> list[str]:
    return sorted(each.headers["mcp-session-id"] for each in server.requests_of("DELETE"))


@pytest.mark.both_loops
@LANES
@pytest.mark.parametrize("way", [undeployed, stopped, caller_gone], ids=lambda way: way.__name__)
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
async def test_a_reply_whose_body_stalls_leaves_no_session(
    chunked: bool, way: Callable[[McpManager], Awaitable[None]], lanes: bool
) -> None:
    with ScriptedServer() as server:
        server.script("initialize", PartOfReply(chunked=chunked))
        async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
            deploying = asyncio.create_task(manager.deploy("a", config(server)), name="deploying")
            await server.wait_until(lambda: bool(server.live_sessions))
            await _received()
            await way(manager)
            await server.wait_until(lambda: server.live_sessions == set())
            await asyncio.wait({deploying})
        assert _deleted(server) == ["session-1"]


@LANES
@pytest.mark.parametrize("end", ["stalls", "closes", "resets", "is too long"])
async def test_a_reply_that_breaks_off_leaves_no_session(end: str, lanes: bool) -> None:
    with ScriptedServer() as server:
        server.script("initialize", PartOfReply(end=end))
        async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
            await manager.deploy("a", config(server, **SHORT, max_response_bytes=65536))
            await server.wait_until(lambda: "session-1" in _deleted(server))
            await server.wait_until(lambda: "session-1" not in server.live_sessions)


async def test_a_head_that_stalls_leaves_no_session() -> None:
    with ScriptedServer() as server:
        server.script("initialize", PartOfReply(within_head=True))
        async with McpManager() as manager:
            deploying = asyncio.create_task(manager.deploy("a", config(server)))
            await server.wait_until(lambda: bool(server.live_sessions))
            await _received()
            await manager.undeploy("a")
            await asyncio.wait({deploying})
            assert server.live_sessions == set()


@LANES
@pytest.mark.parametrize(
    "answer",
    [
        WithSession(200, b"<html>welcome</html>"),
        WithSession(200, b""),
        WithSession(202, b""),
        WithSession(200, {"error": {"code": -32000, "message": "not today"}}),
        WithSession(400, {"error": {"code": -32000, "message": "not today"}}),
        WithSession(500, b"oops"),
        WithSession(200, {"result": {"protocolVersion": "1999-01-01", "capabilities": {}}}),
    ],
    ids=["no JSON", "nothing", "accepted", "an error", "a refusal", "a failure", "an unknown revision"],
)
async def test_a_session_that_came_with_no_result_is_ended(answer: WithSession, lanes: bool) -> None:
    with ScriptedServer() as server:
        server.script("initialize", answer)
        async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
            await manager.deploy("a", config(server))
            await server.wait_until(lambda: "session-1" in _deleted(server))
            await server.wait_until(lambda: "session-1" not in server.live_sessions)


@LANES
@pytest.mark.parametrize("status", [200, 400, 404])
async def test_a_session_that_was_made_for_the_question_of_eras_is_ended(status: int, lanes: bool) -> None:
    with ScriptedServer() as server:
        # As the official SDK for Python does: whatever comes without a session makes one.
        server.script("server/discover", WithSession(status, {"error": {"code": -32601, "message": "what?"}}))
        async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
            await manager.deploy("a", config(server, protocol_version="auto"))
            await manager.ping("a")
            await manager.undeploy("a")
            assert server.live_sessions == set()
        assert _deleted(server) == ["session-1", "session-2"]


async def test_a_session_that_came_with_an_offer_of_another_revision_is_ended() -> None:
    refusal = {"error": {"code": -32602, "message": "no", "data": {"supported": ["2025-06-18"]}}}
    with ScriptedServer() as server:
        server.script("initialize", WithSession(200, refusal))
        async with McpManager() as manager:
            await manager.deploy("a", config(server, protocol_version="handshake"))
            await manager.ping("a")
            assert server.requests_of("ping")[-1].headers["mcp-session-id"] == "session-2"
            await manager.undeploy("a")
            assert server.live_sessions == set()


async def test_ids_that_a_server_makes_up_without_end_are_bounded() -> None:
    refusal = {"error": {"code": -32601, "message": "what?"}}
    with ScriptedServer(sessions=False) as server:
        server.script_always("tools/list", WithSession(400, refusal))
        async with McpManager() as manager:
            await manager.deploy("a", config(server))
            for _ in range(12):
                with pytest.raises(RpcError):
                    await manager.request("a", "tools/list")
            await manager.undeploy("a")
        assert 1 <= len(_deleted(server)) <= 4
