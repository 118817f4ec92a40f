"""What a server may go on with for ever, beside floods of messages: each ends for the one call that it is the answer to."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from support.calls import deployed, echo, failure_of, text_of

from mcp_manager import ManagerConfig
from mcp_manager.errors import AuthError, DeadlineExceededError, ProtocolError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer

pytestmark = pytest.mark.both_loops

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TRAILERS = b"X-Name: value\r\n" * 300
LANES = [True, False]


@dataclasses.dataclass(frozen=True)
class Endless:
    """Send a beginning, and then the same again and again until the client leaves."""

    beginning: bytes
    again: bytes
    pause_s: float = 0.0

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.write(self.beginning)
        while True:
            await connection.write(self.again)
            await asyncio.sleep(self.pause_s)


@dataclasses.dataclass
class Onward:
    """Redirect to a place that nobody was redirected to before."""

    count: int = 0

    async def play(self, connection: Connection, request: Request | None) -> None:
        self.count += 1
        await connection.respond(307, {"Location": f"/{self.count}"})


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("head", [JSON, EVENTS], ids=["json", "events"])
@pytest.mark.parametrize(
    ("beginning", "again"),
    [(b"1;", b"x=y;" * 1000), (b"1\r\n \r\n0\r\n", TRAILERS), (b"1\r\n \r\n0\r\nX-Name: ", b"x" * 4000)],
    ids=["extension", "trailers", "trailer"],
)
async def test_what_is_no_body_fails_its_call(lanes: bool, head: bytes, beginning: bytes, again: bytes) -> None:
    with ScriptedServer() as server:
        async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
            server.script("tools/call", Endless(head + beginning, again))
            error = await failure_of(manager, "a", echo("x"), timeout=20.0)
            assert isinstance(error, ProtocolError), repr(error)
            assert error.delivery == "unknown"
            assert text_of(await manager.execute_raw("a", echo("y"), timeout=20.0)) == "y"


@dataclasses.dataclass(frozen=True)
class BrokenLater:
    """Break the framing of a body once the client reads it."""

    head: bytes
    broken: bytes

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.write(self.head + b"1\r\n \r\n")
        await asyncio.sleep(0.05)
        await connection.write(self.broken)
        await asyncio.sleep(20)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("head", [JSON, EVENTS], ids=["json", "events"])
@pytest.mark.parametrize("broken", [b"no size\r\n", b"0\r\nno trailer\r\n\r\n", b"0\r\nX: " + b"x" * 200_000])
async def test_a_body_that_breaks_while_it_is_read_fails_its_call(lanes: bool, head: bytes, broken: bytes) -> None:
    with ScriptedServer() as server:
        async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
            server.script("tools/call", BrokenLater(head, broken))
            error = await failure_of(manager, "a", echo("x"), timeout=10.0)
            assert not isinstance(error, DeadlineExceededError)
            assert error.delivery == "unknown"


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    ("beginning", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"s"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n", b" "),
        (JSON, b"1\r\n \r\n"),
        (EVENTS, b"1\r\n:\r\n"),
        (EVENTS, b"3\r\n:\n\n\r\n"),
    ],
    ids=["head", "length", "chunks", "line", "comments"],
)
async def test_a_drip_ends_at_the_deadline(lanes: bool, beginning: bytes, again: bytes) -> None:
    with ScriptedServer() as server:
        async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
            await manager.execute_raw("a", echo("before"))
            server.script("tools/call", Endless(beginning, again, pause_s=0.01))
            error = await failure_of(manager, "a", echo("x"), timeout=0.15)
            assert isinstance(error, DeadlineExceededError)
            assert error.delivery == "unknown"
            assert text_of(await manager.execute_raw("a", echo("y"), timeout=20.0)) == "y"


@pytest.mark.parametrize("lanes", LANES)
async def test_redirects_to_ever_other_places_end(lanes: bool) -> None:
    onward = Onward()
    with ScriptedServer() as server:
        async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
            server.script_always("tools/call", onward)
            error = await failure_of(manager, "a", echo("x"), timeout=20.0)
            assert isinstance(error, ProtocolError)
            assert error.delivery == "rejected"
            assert 2 <= onward.count <= 20


@pytest.mark.parametrize("lanes", LANES)
async def test_a_server_that_refuses_every_credential_is_asked_once(lanes: bool) -> None:
    with ScriptedServer() as server:
        async with deployed(server, ManagerConfig(http_lanes=lanes), headers={"Authorization": "Bearer x"}) as manager:
            server.script_always("tools/call", faults.Status(401))
            error = await failure_of(manager, "a", echo("x"), timeout=20.0)
            assert isinstance(error, AuthError)
            assert len(server.requests_of("tools/call")) == 1


@pytest.mark.parametrize("lanes", LANES)
async def test_a_flood_of_progress_does_not_hide_the_reply(lanes: bool) -> None:
    report = {"jsonrpc": "2.0", "method": "notifications/progress"}
    reported: list[float] = []
    with ScriptedServer() as server:
        async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
            await manager.execute_raw("a", echo("before"))

            class Progressing:
                async def play(self, connection: Connection, request: Request | None) -> None:
                    assert request is not None
                    token = request.params["_meta"]["progressToken"]
                    news = [{**report, "params": {"progressToken": token, "progress": at}} for at in range(20_000)]
                    await faults.SseEvents(tuple(news)).play(connection, request)

            server.script("tools/call", Progressing())
            result = await manager.call_tool(
                "a", "echo", {"text": "x"}, timeout=20.0, on_progress=lambda progress, *_: reported.append(progress)
            )
            assert result.content[0].text == "x"
            assert reported == [*range(20_000)]
