"""A call whose stream ends before its reply: the reply is asked for again, from the last event on, and found once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.calls import CALM, echo, eventually, failure_of, text_of
from support.streams import ANY, Batch, Cut, ResumedReply, StandingStreams, notification, with_id

from mcp_manager import ConnectionLostError, DeadlineExceededError, ManagerConfig, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Fault, Request, ScriptedServer
from mcp_manager.transports.http.reconnection import Reconnection

pytestmark = pytest.mark.both_loops

WHOLE = 10**6


class GetOnly:
    """Play the first GET, which is the standing stream's, as a refusal, and all others as scripted."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.count = 0

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        if "last-event-id" not in request.headers:
            await connection.respond(405)
            return
        self.count += 1
        await self._fault.play(connection, request)


def script(server: ScriptedServer, reply: ResumedReply, gets: Fault | None = None) -> GetOnly:
    server.script("tools/call", reply)
    only = GetOnly(gets or reply)
    server.script_always("GET", only)
    return only


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("graceful", [True, False])
async def test_the_reply_is_found_where_the_stream_goes_on(
    graceful: bool, lanes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reconnection, "delay_s", lambda self, random: 0.0)
    heard: list[int] = []

    async def note(server_id: str, params: Any) -> None:
        heard.append(params["data"])

    reply = ResumedReply([Cut(200, graceful), Cut(150, graceful), Cut(0, graceful)], others=4)
    with ScriptedServer() as server:
        script(server, reply)
        async with McpManager(ManagerConfig(http_lanes=lanes), handlers={ANY: note}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            await eventually(lambda: heard == [0, 1, 2, 3], "the delivery of every notification")
            assert manager.server("a").faults == {}
            assert server.executed == ["x"]
            assert len(server.requests_of("tools/call")) == 1
            for each in server.requests_of("GET")[1:]:
                assert each.headers["mcp-session-id"] in server.live_sessions
                assert each.headers["mcp-protocol-version"] == "2025-11-25"
        assert len(reply.asked_from) == 3


@pytest.mark.parametrize("lanes", [True, False])
async def test_what_an_exchange_is_sent_reaches_it_from_each_piece_of_its_stream(
    lanes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reconnection, "delay_s", lambda self, random: 0.0)

    def never(server_id: str, params: Any) -> None:
        raise AssertionError("it belongs to the exchange")

    heard: list[int] = []
    with ScriptedServer() as server:
        script(server, ResumedReply([Cut(200), Cut(150), Cut(0)], others=4))
        async with McpManager(ManagerConfig(http_lanes=lanes), handlers={ANY: never}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            reply = await manager.exchange(
                "a", echo("x"), on_message=lambda message: heard.append(message.params["data"])
            )
            assert (text_of(reply), heard) == ("x", [0, 1, 2, 3])


async def test_the_wish_of_the_server_is_waited_for() -> None:
    reply = ResumedReply([Cut(WHOLE)], retry_ms=300)
    with ScriptedServer() as server:
        script(server, reply)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            loop = asyncio.get_running_loop()
            started = loop.time()
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert loop.time() - started >= 0.3
        assert reply.asked_from == ["0"]


async def test_a_stream_without_event_ids_has_nothing_to_go_on_from() -> None:
    with ScriptedServer() as server:
        only = GetOnly(faults.Status(500))
        server.script_always("GET", only)
        server.script("tools/call", faults.SseTruncated())
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            error = await failure_of(manager, "a", echo("x"))
            assert isinstance(error, ConnectionLostError)
        assert only.count == 0


@pytest.mark.parametrize("status", [404, 405, 400, 200])
async def test_a_server_that_refuses_is_not_asked_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconnection, "delay_s", lambda self, random: 0.0)
    with ScriptedServer() as server:
        only = script(server, ResumedReply([Cut(WHOLE)]), faults.Status(status))
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            error = await failure_of(manager, "a", echo("x"))
            # It was sent, and may have been executed: whatever the refusal says, it is not sent again by itself.
            assert (type(error), error.delivery) == (ConnectionLostError, "unknown")
            assert f"does not resume it (HTTP {status})" in error.message
            assert len(server.requests_of("tools/call")) == 1
            assert text_of(await manager.execute_raw("a", echo("y"))) == "y"
        assert only.count == 1


@pytest.mark.parametrize("fault", [faults.Status(503), faults.Close(), faults.Reset(), faults.Bytes()])
async def test_a_server_that_is_gone_is_given_up_before_the_deadline(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reconnection, "delay_s", lambda self, random: 0.0)
    with ScriptedServer() as server:
        only = script(server, ResumedReply([Cut(WHOLE)]), fault)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            error = await failure_of(manager, "a", echo("x"), timeout=60)
            assert not isinstance(error, DeadlineExceededError)
            assert error.delivery == "unknown"
        assert only.count <= 4


async def test_failures_of_the_moment_are_outwaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconnection, "delay_s", lambda self, random: 0.0)
    reply = ResumedReply([Cut(WHOLE), Cut(0)])
    with ScriptedServer() as server:
        server.script("tools/call", reply)
        only = GetOnly(reply)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            server.script("GET", faults.Status(503), faults.Reset(), faults.Status(409), only, faults.Status(500), only)
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert reply.asked_from == ["0", "0"]


@pytest.mark.parametrize("retry_ms", [1, 60_000])
async def test_the_deadline_ends_it_and_the_server_is_told(retry_ms: int) -> None:
    with ScriptedServer() as server:
        streams = StandingStreams()
        script(server, ResumedReply([Cut(WHOLE)], retry_ms=retry_ms), streams)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            error = await failure_of(manager, "a", echo("x"), timeout=0.4)
            assert (type(error), error.delivery) == (DeadlineExceededError, "unknown")
            await server.wait_for("notifications/cancelled")
        assert len(streams.opened) == (1 if retry_ms == 1 else 0)


@pytest.mark.parametrize("retry_ms", [1, 60_000])
async def test_cancelling_ends_it_and_the_server_is_told(retry_ms: int) -> None:
    with ScriptedServer() as server:
        streams = StandingStreams()
        script(server, ResumedReply([Cut(WHOLE)], retry_ms=retry_ms), streams)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=60))
            if retry_ms == 1:
                await streams.wait(server)
            else:
                await server.wait_for("tools/call")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.wait_for("notifications/cancelled")


@pytest.mark.parametrize("retry_ms", [1, 60_000])
async def test_stopping_ends_it(retry_ms: int) -> None:
    with ScriptedServer() as server:
        streams = StandingStreams()
        reply = ResumedReply([Cut(WHOLE)], retry_ms=retry_ms)
        script(server, reply, streams)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "shutdown_grace_s": 0.05})
            call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=60))
            await server.wait_for("tools/call")
            if retry_ms == 1:
                await streams.wait(server)
            await manager.undeploy("a")
            with pytest.raises(ConnectionLostError):
                await call


@pytest.mark.parametrize("batched", [True, False])
async def test_the_reply_may_come_on_the_standing_stream(batched: bool) -> None:
    streams = StandingStreams()
    with ScriptedServer() as server:
        server.script("tools/call", ResumedReply([Cut(WHOLE)], retry_ms=1))
        server.script_always("GET", streams)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, "protocol_version": "2025-03-26", **CALM})
            call = asyncio.create_task(manager.execute_raw("a", echo("x", 5), timeout=60))
            resumed = await streams.wait(server, 2)
            assert resumed.last_event_id == "0"
            [request] = server.requests_of("tools/call")
            _, _, reply = server.answer(request)
            streams.opened[0].say([notification(0), reply] if batched else reply)
            assert text_of(await call) == "x"
            # The other stream is not waited for, and a second reply is nobody's.
            await server.wait_until(lambda: resumed.connection not in server.connections)
            streams.opened[0].say(reply)
            assert text_of(await manager.execute_raw("a", echo("y"))) == "y"
            await eventually(lambda: bool(manager.server("a").faults), "the count of the second reply")
            assert manager.server("a").faults == {"a reply that nobody waits for": 1}


async def test_an_initialization_can_go_on_too() -> None:
    reply = ResumedReply([Cut(WHOLE)])
    with ScriptedServer(sessions=False) as server:
        server.script("initialize", reply)
        server.script_always("GET", GetOnly(reply))
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert len(server.requests_of("initialize")) == 1
    assert reply.asked_from == ["0"]


@pytest.mark.parametrize("lanes", [True, False])
async def test_a_batch_is_received_on_a_reply_of_json_and_on_its_stream(lanes: bool) -> None:
    heard: list[int] = []

    async def note(server_id: str, params: Any) -> None:
        heard.append(params["data"])

    class InEvents:
        async def play(self, connection: Connection, request: Request | None) -> None:
            assert request is not None
            _, _, reply = connection.server.answer(request)
            await connection.open_stream()
            await connection.write_chunk(with_id("1", [notification(2), reply, notification(3)]))
            await connection.write_chunk(b"")

    with ScriptedServer() as server:
        server.script("tools/call", Batch(), InEvents())
        async with McpManager(ManagerConfig(http_lanes=lanes), handlers={ANY: note}) as manager:
            await manager.deploy("a", {"url": server.url, "protocol_version": "2025-03-26", **CALM})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            assert text_of(await manager.execute_raw("a", echo("y"))) == "y"
            await eventually(lambda: heard == [0, 1, 2, 3], "the delivery of every notification")
            assert manager.server("a").faults == {}
