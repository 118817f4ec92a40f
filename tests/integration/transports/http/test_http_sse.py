"""HTTP+SSE of 2024-11-05: found by itself or chosen, one stream for everything, and what its end does to calls."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.calls import CALM, echo, eventually, failure_of, text_of
from support.streams import ANY, HttpSseServer, answers, notification

from mcp_manager import (
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ManagerConfig,
    McpManager,
    ProtocolError,
)
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Fault, Request, ScriptedServer, event

pytestmark = pytest.mark.both_loops

SSE: dict[str, Any] = {**CALM, "transport": "sse"}
BATCHES: dict[str, Any] = {"protocol_version": "2025-03-26"}


class OnStream:
    """Take a message, and say something of one's own on the stream, or nothing."""

    def __init__(self, server: HttpSseServer, *, acknowledges: bool = True, replies: bool = True) -> None:
        self._server = server
        self._acknowledges = acknowledges
        self._replies = replies

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        stream = self._server.stream_of(request)
        assert stream is not None
        if self._replies:
            batch = [notification(1), self._server.reply_to(request), notification(2)]
            await stream.connection.write_chunk(event(batch))
        if self._acknowledges:
            await connection.respond(202)
        else:
            await connection.hang()


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("settings", [CALM, SSE, {**CALM, "protocol_version": "handshake"}])
async def test_it_is_found_or_chosen_and_carries_calls(settings: dict[str, Any], lanes: bool) -> None:
    with HttpSseServer() as server:
        async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
            await manager.deploy("a", {"url": server.url, **settings, "headers": {"X-Team": "blue"}})
            replies = await asyncio.gather(*(manager.execute_raw("a", echo(str(n), n)) for n in range(20)))
            assert [(text_of(reply), json.loads(reply)["id"]) for reply in replies] == [(str(n), n) for n in range(20)]
            assert manager.server("a").protocol_version == "2025-11-25"
            assert manager.server("a").transport == "sse"
            assert len(server.streams) == 1
            assert {each.headers["x-team"] for each in server.requests} == {"blue"}
            [call, *_] = server.requests_of("tools/call")
            assert call.path == "/messages?session=0"
            assert call.headers["mcp-protocol-version"] == "2025-11-25"
            assert server.streams[0].request.headers["accept"] == "text/event-stream"
        if settings is SSE:
            # Nothing is asked of an HTTP+SSE server that it cannot know.
            assert all(each.path != "/sse" or each.verb == "GET" for each in server.requests)
        await server.wait_until(lambda: server.open_connections == 0)
        assert server.requests_of("DELETE") == []


class EndsStream:
    """Accept a message once the stream is over."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        server = connection.server
        assert isinstance(server, HttpSseServer)
        stream = server.stream_of(request)
        assert stream is not None
        await stream.connection.write_chunk(b"")
        # The client closes it: then it has noticed, and goes on with the POST that it waits for.
        while stream.connection in server.connections:
            await asyncio.sleep(0)
        await connection.respond(202)


async def test_a_stream_that_ends_before_the_session_has_begun_is_no_session() -> None:
    with HttpSseServer() as server:
        server.script("notifications/initialized", EndsStream())
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            assert manager.server("a").ready == 0
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert len(server.streams) == 2


async def test_what_was_found_is_remembered() -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            before = len([each for each in server.requests if each.path == "/sse" and each.verb == "POST"])
            server.streams[0].end()
            await eventually(lambda: manager.server("a").ready == 0, "the loss of the session")
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            after = len([each for each in server.requests if each.path == "/sse" and each.verb == "POST"])
            assert before == after > 0


async def test_the_server_asks_and_is_answered_by_a_post() -> None:
    heard: list[int] = []

    async def note(server_id: str, params: Any) -> None:
        heard.append(params["data"])

    async def roots(server_id: str, params: Any) -> dict[str, Any]:
        return {"roots": []}

    with HttpSseServer() as server:
        async with McpManager(handlers={ANY: note, "roots/list": roots}) as manager:
            await manager.deploy("a", {"url": server.url, **SSE, **BATCHES})
            ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
            server.streams[0].say(
                notification(1), [notification(2), ping], {"jsonrpc": "2.0", "id": 5, "method": "roots/list"}
            )
            await eventually(lambda: heard == [1, 2], "the delivery of the notifications")
            await server.wait_until(lambda: len(answers(server)) == 2)
            assert answers(server) == {"p": {}, 5: {"roots": []}}


async def test_a_batch_brings_the_reply_before_the_acknowledgement() -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE, **BATCHES})
            server.script("tools/call", OnStream(server), OnStream(server, acknowledges=False))
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            # One that is never acknowledged does not keep its reply from the caller.
            assert text_of(await manager.execute_raw("a", echo("y"), timeout=30)) == "y"


@pytest.mark.parametrize("reset", [True, False])
async def test_the_end_of_the_stream_ends_every_call_and_the_next_one_connects(reset: bool) -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            server.script("tools/call", OnStream(server, replies=False), times=3)
            calls = [asyncio.create_task(manager.execute_raw("a", echo(str(n)), timeout=60)) for n in range(3)]
            await server.wait_for("tools/call", 3)
            if reset:
                server.streams[0].reset()
            else:
                server.streams[0].end()
            failures = await asyncio.gather(*calls, return_exceptions=True)
            for failure in failures:
                assert isinstance(failure, ConnectionLostError)
                assert failure.delivery == "unknown"
            assert len({id(failure) for failure in failures}) == 3
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert len(server.streams) == 2


async def test_a_session_that_is_gone_is_made_anew_and_the_call_repeated() -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            server.script("tools/call", faults.Status(404))
            server.script("ping", faults.Status(404))
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert (len(server.streams), server.executed) == (2, ["x"])


@pytest.mark.parametrize("fault", [faults.Reset(), faults.Close(), faults.Status(500), faults.Status(400)])
async def test_a_post_that_fails_concerns_its_call_alone(fault: Fault) -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            server.script("tools/call", OnStream(server, replies=False), fault)
            other = asyncio.create_task(manager.execute_raw("a", echo("other"), timeout=60))
            await server.wait_for("tools/call")
            error = await failure_of(manager, "a", echo("x"))
            assert error.delivery == ("rejected" if fault == faults.Status(400) else "unknown")
            [first, _] = server.requests_of("tools/call")
            server.streams[0].say(server.reply_to(first))
            assert text_of(await other) == "other"
            assert len(server.streams) == 1


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_call_that_is_given_up_is_cancelled_at_the_server(how: str) -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            server.script("tools/call", OnStream(server, replies=False))
            call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=0.2 if how == "deadline" else 60))
            await server.wait_for("tools/call")
            if how == "cancel":
                call.cancel()
            with pytest.raises(DeadlineExceededError if how == "deadline" else asyncio.CancelledError):
                await call
            await server.wait_for("notifications/cancelled")
            [request] = server.requests_of("tools/call")
            server.streams[0].say(server.reply_to(request))
            assert text_of(await manager.execute_raw("a", echo("y"))) == "y"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:1/messages",
        "https://127.0.0.1:{port}/messages",
        "http://evil.example/m",
        "http://[bad",
        "ftp:x",
    ],
)
async def test_an_endpoint_of_another_origin_gets_nothing(endpoint: str) -> None:
    with HttpSseServer(endpoint=endpoint) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            with pytest.raises(ProtocolError, match="same origin") as caught:
                await manager.execute_raw("a", echo("x"))
            assert caught.value.delivery == "not_sent"
        assert server.requests_of("POST") == []


@pytest.mark.parametrize("endpoint", ["messages?session={n}", "http://127.0.0.1:{port}/messages?session={n}"])
async def test_endpoints_may_be_relative_or_whole(endpoint: str) -> None:
    with HttpSseServer(endpoint=endpoint) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"


async def test_a_stream_without_an_endpoint_is_no_session() -> None:
    with HttpSseServer(endpoint=None) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE, "connect_timeout_s": 0.2})
            with pytest.raises(ConnectError, match="no handshake within"):
                await manager.execute_raw("a", echo("x"))
            await server.wait_until(lambda: server.open_connections == 0)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (faults.Status(401), "requires credentials"),
        (faults.Status(404), "HTTP 404"),
        (faults.Status(503), "not available"),
        (faults.Reply(b"<html>", "text/html"), "other than an event stream"),
        (faults.Close(), "before the reply"),
        (faults.Bytes(), "not valid HTTP"),
        (faults.Redirect("http://127.0.0.1:1/sse"), "redirects"),
    ],
)
async def test_a_server_without_such_a_stream(fault: Fault, says: str) -> None:
    with HttpSseServer() as server:
        server.script_always("GET", fault)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            with pytest.raises(CallError, match=says) as caught:
                await manager.execute_raw("a", echo("x"))
            assert caught.value.delivery == "not_sent"
            server.script_always("GET", None)
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"


async def test_a_redirect_of_the_same_origin_is_followed() -> None:
    with HttpSseServer() as server:
        server.script("GET", faults.Redirect("/sse/"))
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert [each.path for each in server.requests_of("GET")] == ["/sse", "/sse/"]


async def test_what_breaks_the_rules_is_counted_and_ends_no_call() -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE, "max_response_bytes": 4096})
            server.streams[0].send(
                b"data: {\n\n", b"data: \xff\n\n", b"event: endpoint\ndata: /else\n\n", b"event: x\ndata: y\n\n"
            )
            server.streams[0].say({"jsonrpc": "2.0", "id": 3, "result": {}})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert manager.server("a").faults == {
                "an event that is not JSON-RPC": 2,
                "a second endpoint": 1,
                "a reply that nobody waits for": 1,
            }
            server.streams[0].send(b"data: " + b"x" * 5000)
            await eventually(lambda: manager.server("a").ready == 0, "the loss of the session")
            assert text_of(await manager.execute_raw("a", echo("y"))) == "y"


@pytest.mark.parametrize("lanes", [True, False])
async def test_streams_take_no_place_from_calls(lanes: bool) -> None:
    with HttpSseServer() as server:
        async with McpManager(ManagerConfig(max_connections=1, http_lanes=lanes)) as manager:
            await manager.deploy("a", {"url": server.url, **SSE, "instances": 3})
            assert len(server.streams) == 3
            replies = await asyncio.gather(*(manager.execute_raw("a", echo(str(n)), timeout=10) for n in range(20)))
            assert sorted(map(text_of, replies)) == sorted(map(str, range(20)))
            assert server.open_connections <= 4


async def test_cancelling_while_it_connects() -> None:
    with HttpSseServer(endpoint=None) as server:
        async with McpManager() as manager:
            deploying = asyncio.create_task(manager.deploy("a", {"url": server.url, **SSE}))
            await server.wait_for("GET")
            deploying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await deploying
            await server.wait_until(lambda: server.open_connections == 0)


async def test_stopping_ends_calls_under_way() -> None:
    with HttpSseServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SSE, "shutdown_grace_s": 0.05})
            server.script("tools/call", OnStream(server, replies=False))
            call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=60))
            await server.wait_for("tools/call")
            await manager.undeploy("a")
            with pytest.raises(ConnectionLostError):
                await call


async def test_a_server_that_is_neither_is_told_as_what_it_was_taken_for() -> None:
    with ScriptedServer() as server:
        server.script_always("*", faults.Status(404))
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            with pytest.raises(ProtocolError, match="HTTP 404"):
                await manager.execute_raw("a", echo("x"))
