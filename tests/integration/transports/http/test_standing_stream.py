"""The stream on which a server speaks without being asked: opened before the first call, opened again, never in the way."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support.calls import CALM, deployed, echo, eventually, failure_of, text_of
from support.streams import ANY, Cut, OpenStream, Result, ResumedReply, StandingStreams, answers, notification, with_id

from mcp_manager import ConnectionLostError, ManagerConfig, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer
from mcp_manager.transports.http.reconnection import Reconnection

pytestmark = pytest.mark.both_loops


class Heard:
    """What the handlers of one manager were told."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.asked: list[object] = []
        self.news = asyncio.Event()

    async def note(self, server_id: str, params: Any) -> None:
        self.numbers.append(params["data"])
        self.news.set()

    async def elicit(self, server_id: str, params: Any) -> dict[str, Any]:
        self.asked.append(params)
        return {"action": "accept", "content": {"name": "Ada"}}

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()

    @property
    def handlers(self) -> dict[str, Callable[[str, Any], Awaitable[Any]]]:
        return {ANY: self.note, "elicitation/create": self.elicit}


class HeldStatus(faults.Hold):
    """Answer with a status, not before it is told to."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status
        self.answered = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        await self.wait()
        await connection.respond(self._status)
        self.answered = True
        connection.server.news()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def streams(server: ScriptedServer) -> StandingStreams:
    """What every GET is answered by."""
    answering = StandingStreams()
    server.script_always("GET", answering)
    return answering


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streams be opened again without the wait that servers are owed."""
    monkeypatch.setattr(Reconnection, "delay_s", lambda self, random: 0.001)


def faults_of(manager: McpManager) -> dict[str, int]:
    return manager.server("a").faults


@pytest.mark.parametrize("lanes", [True, False])
async def test_it_is_open_before_the_first_call_and_brings_messages_of_every_kind(
    server: ScriptedServer, streams: StandingStreams, lanes: bool
) -> None:
    heard = Heard()
    settings = {"protocol_version": "2025-03-26"}
    async with deployed(server, ManagerConfig(http_lanes=lanes), handlers=heard.handlers, **settings) as manager:
        assert len(streams.opened) == 1
        await manager.execute_raw("a", echo("x"))
        stream = streams.opened[0]
        assert "last-event-id" not in stream.request.headers
        assert stream.request.headers["accept"] == "text/event-stream"
        assert stream.request.headers["mcp-protocol-version"] == "2025-03-26"
        assert stream.request.headers["mcp-session-id"] in server.live_sessions
        elicitation = {"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {"message": "name?"}}
        ping = {"jsonrpc": "2.0", "id": 7, "method": "ping"}
        # 2025-03-26 allows batches, and they must be received.
        stream.say(notification(1), [notification(2), ping, notification(3)], elicitation)
        await heard.wait(lambda: len(heard.numbers) == 3)
        await server.wait_until(lambda: len(answers(server)) == 2)
        assert heard.numbers == [1, 2, 3]
        assert answers(server) == {7: {}, "q1": {"action": "accept", "content": {"name": "Ada"}}}
    assert [each.method or each.verb for each in server.requests[:4]] == [
        "initialize",
        "notifications/initialized",
        "GET",
        "tools/call",
    ]
    await server.wait_until(lambda: server.open_connections == 0)


async def test_a_reply_on_it_answers_the_call_whose_own_response_is_still_awaited(
    server: ScriptedServer, streams: StandingStreams
) -> None:
    async with deployed(server) as manager:
        stream = await streams.wait(server)
        held = faults.Hold()
        server.script("tools/call", held, held)
        first = asyncio.create_task(manager.execute_raw("a", echo("x", 1)))
        await server.wait_for("tools/call")
        second = asyncio.create_task(manager.execute_raw("a", echo("y", 2)))
        await server.wait_for("tools/call", 2)
        of_first, of_second = server.requests_of("tools/call")
        reply = server.answer(of_second)[2]
        # Once for the call; the second of its kind is nobody's.
        stream.say(reply, reply)
        assert text_of(await second) == "y"
        assert not first.done()
        stream.say(server.answer(of_first)[2])
        assert text_of(await first) == "x"
        assert faults_of(manager) == {"a reply that nobody waits for": 1}
        assert text_of(await manager.execute_raw("a", echo("z"))) == "z"
        assert server.requests_of("notifications/cancelled") == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
async def test_a_server_without_it_is_asked_once_and_nothing_is_said(
    server: ScriptedServer, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    soon(monkeypatch)
    server.script_always("GET", faults.Status(status, body=b"no session for you"))
    async with deployed(server) as manager:
        for number in range(5):
            assert text_of(await manager.execute_raw("a", echo(str(number)))) == str(number)
        assert faults_of(manager) == {}
        # The lane it was asked on goes on.
        assert server.peak_connections == 1
    assert len(server.requests_of("GET")) == 1
    assert len(server.requests_of("initialize")) == 1
    assert caplog.records == []


@pytest.mark.parametrize(
    "answer",
    [
        faults.Status(200, {"Content-Type": "text/html"}, b"<html>hello</html>"),
        faults.Status(202),
        faults.Redirect("http://127.0.0.1:1/elsewhere"),
    ],
)
async def test_answers_that_are_no_stream_end_it(
    server: ScriptedServer, answer: faults.Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    server.script_always("GET", answer)
    async with deployed(server) as manager:
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
    assert len(server.requests_of("GET")) == 1


async def test_a_server_that_only_fails_is_left_alone_after_some_attempts(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    server.script("GET", faults.Reset(), faults.Status(503), faults.Bytes(), faults.Close())
    server.script_always("GET", faults.Status(500))
    async with deployed(server) as manager:
        # The first reset ends a kept connection, which says nothing of what was asked for.
        await server.wait_for("GET", 6)
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        await manager.execute_raw("a", echo("y"))
    assert len(server.requests_of("GET")) == 6


async def test_a_head_that_is_held_back_does_not_hold_up_the_session(server: ScriptedServer) -> None:
    hold = faults.Hold()
    server.script_always("GET", hold)
    async with deployed(server) as manager:
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert len(server.requests_of("GET")) == 1


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("end", [OpenStream.end, OpenStream.reset])
async def test_it_goes_on_from_the_last_event(
    server: ScriptedServer,
    streams: StandingStreams,
    end: Callable[[OpenStream], None],
    lanes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soon(monkeypatch)
    heard = Heard()
    async with deployed(server, ManagerConfig(http_lanes=lanes), handlers=heard.handlers):
        for number in range(3):
            stream = await streams.wait(server, number + 1)
            assert stream.last_event_id == (None if number == 0 else f"größe-{number - 1}".encode().decode("latin-1"))
            stream.send(with_id(f"größe-{number}", notification(number)))
            await heard.wait(lambda: len(heard.numbers) == number + 1)  # noqa: B023
            end(stream)
        await streams.wait(server, 4)
        assert heard.numbers == [0, 1, 2]
        assert len(server.requests_of("initialize")) == 1


async def test_the_wish_of_the_server_is_waited_for(server: ScriptedServer, streams: StandingStreams) -> None:
    async with deployed(server):
        loop = asyncio.get_running_loop()
        started = loop.time()
        streams.opened[0].end(retry_ms=300)
        await streams.wait(server, 2)
        assert loop.time() - started >= 0.3


async def test_it_is_not_asked_for_while_a_server_wishes_for_a_day(
    server: ScriptedServer, streams: StandingStreams
) -> None:
    async with deployed(server) as manager:
        streams.opened[0].end(retry_ms=9_999_999_999_999)
        await server.wait_until(lambda: server.open_connections <= 1)
        await manager.execute_raw("a", echo("x"))
        assert len(streams.opened) == 1


@pytest.mark.parametrize(
    "refusal", [faults.Status(404), faults.Status(400, body=b"Bad Request: No valid session ID provided")]
)
async def test_a_session_that_is_gone_is_made_anew(
    server: ScriptedServer, streams: StandingStreams, refusal: faults.Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with deployed(server) as manager:
        server.script("GET", refusal)
        server.expire_sessions()
        streams.opened[0].end()
        await eventually(lambda: manager.server("a").ready == 0, "the loss of the session")
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        # It learnt of the loss by the stream: no call had to.
        assert len(server.requests_of("tools/call")) == 1
        assert len(server.requests_of("initialize")) == 2
        await streams.wait(server, 2)


async def test_a_session_that_a_call_finds_gone_takes_its_stream_with_it(
    server: ScriptedServer, streams: StandingStreams
) -> None:
    async with deployed(server) as manager:
        server.expire_sessions()
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        await streams.wait(server, 2)
        await server.wait_until(lambda: streams.opened[0].connection not in server.connections)
        assert streams.opened[1].connection in server.connections


async def test_a_late_404_of_a_server_without_it_costs_no_session(server: ScriptedServer) -> None:
    held = HeldStatus(404)
    server.script("GET", held)
    async with deployed(server) as manager:
        held.release()
        await server.wait_until(lambda: held.answered)
        for number in range(3):
            assert text_of(await manager.execute_raw("a", echo(str(number)))) == str(number)
        assert manager.server("a").ready == 1
    assert len(server.requests_of("initialize")) == 1


async def test_a_refusal_of_the_moment_is_outwaited(
    server: ScriptedServer, streams: StandingStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with deployed(server):
        server.script("GET", *(faults.Status(status) for status in (409, 401, 403, 429, 500, 503, 409, 500)))
        streams.opened[0].end()
        await streams.wait(server, 2)
        assert len(server.requests_of("initialize")) == 1


async def test_what_breaks_the_rules_is_counted_and_ends_nothing_else(
    server: ScriptedServer, streams: StandingStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    heard = Heard()
    async with deployed(server, handlers=heard.handlers, max_response_bytes=2048) as manager:
        stream = streams.opened[0]
        stray = {"jsonrpc": "2.0", "id": 1, "result": {}}
        stream.send(b"data: {nonsense\n\n", b"data: \xff\xfe\n\n", b"event: other\ndata: {}\n\n", b": comment\n" * 500)
        stream.say(stray, notification(1))
        await heard.wait(lambda: heard.numbers == [1])
        assert faults_of(manager) == {"an event that is not JSON-RPC": 2, "a reply that nobody waits for": 1}
        stream.send(with_id("5"))
        stream.end()
        stream = await streams.wait(server, 2)
        assert stream.last_event_id == "5"
        # To go on from there would bring it again.
        stream.send(b"data: " + b"x" * 3000)
        again = await streams.wait(server, 3)
        assert again.last_event_id is None
        assert faults_of(manager)["a malformed event stream"] == 1
        again.say(notification(2))
        await heard.wait(lambda: heard.numbers == [1, 2])


@pytest.mark.parametrize("lanes", [True, False])
async def test_streams_take_no_place_from_calls(server: ScriptedServer, streams: StandingStreams, lanes: bool) -> None:
    async with deployed(server, ManagerConfig(max_connections=1, http_lanes=lanes), instances=3) as manager:
        # As many streams again as there may be connections; more would need more.
        assert len(streams.opened) == 1
        assert faults_of(manager) == {"no connection is left for an event stream": 2}
        replies = await asyncio.gather(*(manager.execute_raw("a", echo(str(n)), timeout=10) for n in range(20)))
        assert sorted(map(text_of, replies)) == sorted(map(str, range(20)))
        assert server.open_connections <= 2
        await manager.scale("a", 0)
        await server.wait_until(lambda: server.open_connections <= 1)
        await manager.scale("a", 1)
        await streams.wait(server, 2)


async def test_the_session_ends_with_its_stream_closed_and_deleted(
    server: ScriptedServer, streams: StandingStreams
) -> None:
    async with deployed(server) as manager:
        await manager.undeploy("a")
        await server.wait_for("DELETE")
        assert server.live_sessions == set()
        await server.wait_until(lambda: server.open_connections <= 1)


async def test_there_is_none_in_the_stateless_era() -> None:
    discovered = {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {},
        "ttlMs": 0,
        "cacheScope": "private",
        "resultType": "complete",
    }
    with ScriptedServer(sessions=False) as server:
        server.script_always("server/discover", Result(discovered))
        server.script("tools/call", ResumedReply([Cut(10**6)]))
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", b'{"method":"tools/list"}')
            assert manager.server("a").protocol_version == "2026-07-28"
            # A stream that breaks loses its request: it is not asked for again either.
            assert isinstance(await failure_of(manager, "a", echo("x")), ConnectionLostError)
        assert server.requests_of("GET") == []


async def test_cancelling_while_it_is_opened(server: ScriptedServer) -> None:
    server.script_always("GET", faults.Hold())
    async with McpManager() as manager:
        deploying = asyncio.create_task(manager.deploy("a", {"url": server.url, **CALM}))
        await server.wait_for("GET")
        deploying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploying
        assert manager.servers() == []
        await server.wait_until(lambda: server.open_connections <= 1)


async def test_a_thousand_cost_little(server: ScriptedServer, streams: StandingStreams) -> None:
    """What is left of a stream while nothing is said: counted in objects, for memory is nobody's promise."""
    async with deployed(server) as manager:
        gc.collect()
        before = len(gc.get_objects())
        await manager.deploy("b", {"url": server.url, **CALM, "instances": 20})
        await streams.wait(server, 21)
        gc.collect()
        each = (len(gc.get_objects()) - before) / 20
    # The scripted server's own objects are among them.
    assert each < 400
