"""Connections that end without a word (RFC 9112, section 9.5): nothing fails that could be answered, and nothing runs twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.calls import deployed, echo, failure_of, text_of
from support.certificates import make_context

from mcp_manager import ConnectionLostError, ManagerConfig
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Fault, ScriptedServer

pytestmark = pytest.mark.both_loops

ENDINGS = [
    faults.SilentLastAnswer(),
    faults.SilentLastAnswer(reset=True),
    faults.SilentLastAnswer(half=True),
]
RESENT = "a connection that ended under a request"


@pytest.fixture(params=["plain", "tls"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    context = None
    if request.param == "tls":
        context, trusted = make_context(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with ScriptedServer(tls=context) as server:
        yield server


@pytest.mark.parametrize("ending", ENDINGS, ids=["close", "reset", "half"])
async def test_every_connection_ends_after_one_reply(server: ScriptedServer, ending: Fault) -> None:
    server.script_always("*", ending)
    async with deployed(server) as manager:
        for number in range(30):
            assert text_of(await manager.execute_raw("a", echo(str(number)), timeout=5)) == str(number)
        assert manager.server("a").state == "Healthy"
    assert server.executed == [str(number) for number in range(30)]


@pytest.mark.parametrize("ending", ENDINGS, ids=["close", "reset", "half"])
async def test_every_connection_of_the_ordinary_way_ends_after_one_reply(server: ScriptedServer, ending: Fault) -> None:
    server.script_always("*", ending)
    async with deployed(server, ManagerConfig(http_lanes=False)) as manager:
        for _ in range(30):
            assert len(await manager.list_tools("a")) == 1
        assert manager.server("a").state == "Healthy"


@pytest.mark.parametrize("ending", ENDINGS, ids=["close", "reset", "half"])
async def test_connections_that_ended_while_nobody_looked(server: ScriptedServer, ending: Fault) -> None:
    """The loop is busy with something else when the connections end: it cannot know when it goes on."""
    async with deployed(server) as manager:
        for number in range(3):
            server.script("tools/call", *[ending] * 5)
            await asyncio.gather(*(manager.execute_raw("a", echo(f"{number} {each}")) for each in range(5)))
            time.sleep(0.05)  # noqa: ASYNC251  (the loop is to see nothing of it)
            assert text_of(await manager.execute_raw("a", echo(f"{number} after"), timeout=5)) == f"{number} after"
    assert len(server.executed) == len(set(server.executed)) == 18


@pytest.mark.parametrize("lanes", [True, False], ids=["lane", "ordinary"])
@pytest.mark.parametrize("method", ["server/discover", "initialize", "notifications/initialized"])
@pytest.mark.parametrize("fault", [faults.Close(), faults.Reset()], ids=["close", "reset"])
async def test_the_handshake_is_sent_once_more(
    server: ScriptedServer, fault: Fault, method: str, lanes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(method, fault)
    async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
        assert text_of(await manager.execute_raw("a", echo("x"), timeout=5)) == "x"
        assert len(server.requests_of(method)) == 2
        assert manager.server("a").faults == {RESENT: 1}
    # It cost nobody anything: whoever has set up no log is told nothing.
    assert not [each for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.parametrize("lanes", [True, False], ids=["lane", "ordinary"])
@pytest.mark.parametrize("fault", [faults.Close(), faults.Reset()], ids=["close", "reset"])
async def test_what_does_no_harm_is_sent_once_more_and_no_failure_of_the_server(
    server: ScriptedServer, fault: Fault, lanes: bool
) -> None:
    async with deployed(server, ManagerConfig(http_lanes=lanes), breaker={"consecutive_failures": 1}) as manager:
        # Once aiohttp's connections have been seen to end so, they are not used again.
        times = 3 if lanes else 1
        for _ in range(times):
            server.script("tools/list", faults.Answer(), faults.Answer(), fault)
            for _ in range(3):
                assert len(await manager.list_tools("a")) == 1
        assert manager.server("a").circuit == "Closed"
        assert manager.server("a").faults[RESENT] == times
    assert len(server.requests_of("tools/list")) == 4 * times


@pytest.mark.parametrize("lanes", [True, False], ids=["lane", "ordinary"])
@pytest.mark.parametrize("fault", [faults.Close(), faults.Reset()], ids=["close", "reset"])
async def test_what_may_have_been_executed_is_not(server: ScriptedServer, fault: Fault, lanes: bool) -> None:
    async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
        assert text_of(await manager.execute_raw("a", echo("before"), timeout=5)) == "before"
        server.script("tools/call", fault)
        error = await failure_of(manager, "a", echo("lost"))
        assert isinstance(error, ConnectionLostError)
        assert error.delivery == "unknown"
        assert text_of(await manager.execute_raw("a", echo("after"), timeout=5)) == "after"
    assert len(server.requests_of("tools/call")) == 3


@pytest.mark.parametrize("lanes", [True, False], ids=["lane", "ordinary"])
async def test_it_is_sent_once_more_and_not_twice(server: ScriptedServer, lanes: bool) -> None:
    async with deployed(server, ManagerConfig(http_lanes=lanes)) as manager:
        server.script_always("tools/list", faults.Reset())
        with pytest.raises(ConnectionLostError):
            await manager.list_tools("a")
    assert len(server.requests_of("tools/list")) == 2


async def test_a_reply_that_had_begun_is_not_asked_for_again(server: ScriptedServer) -> None:
    async with deployed(server) as manager:
        server.script("tools/list", faults.HalfResponse(), faults.Bytes(b"HTTP/1.1 200"))
        for _ in range(2):
            with pytest.raises(ConnectionLostError):
                await manager.list_tools("a")
    assert len(server.requests_of("tools/list")) == 2


async def test_a_new_connection_that_ends_says_something_of_the_server(server: ScriptedServer) -> None:
    async with deployed(server) as manager:
        # Idle ones are gone, and the next is the first request on its connection.
        for connection in server.connections:
            assert server._loop is not None
            server._loop.call_soon_threadsafe(connection.close)
        await server.wait_until(lambda: server.open_connections == 0)
        server.script("tools/list", faults.Reset())
        with pytest.raises(ConnectionLostError):
            await manager.list_tools("a")
    assert len(server.requests_of("tools/list")) == 1


@pytest.mark.slow
async def test_wires_are_used_again_once_a_server_keeps_them(server: ScriptedServer) -> None:
    server.script_always("*", faults.SilentLastAnswer())
    async with deployed(server) as manager:
        for number in range(5):
            await manager.execute_raw("a", echo(str(number)), timeout=5)
        server.script_always("*", None)
        (lanes,) = manager._http._lanes.values()
        assert lanes.wires.single_use
        # One connection is left idle and unused; that it stays open is noticed at a sweep.
        assert text_of(await manager.execute_raw("a", echo("kept"), timeout=5)) == "kept"
        async with asyncio.timeout(10):
            while lanes.wires.single_use:
                await asyncio.sleep(0.05)
        await manager.execute_raw("a", echo("one"), timeout=5)
        await manager.execute_raw("a", echo("two"), timeout=5)
    first, second = server.requests_of("tools/call")[-2:]
    assert first.connection == second.connection
