"""Cookies, by which balancers keep a client with one backend: each instance sends back its own, to its origin alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import msgspec
import pytest
from support.calls import CALM, deployed, echo, failure_of, text_of
from support.forgetful import Refused
from support.streams import HttpSseServer

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer

pytestmark = pytest.mark.both_loops

PIN = "pin=b1; Path=/"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
def config(request: pytest.FixtureRequest) -> ManagerConfig:
    return ManagerConfig(http_lanes=request.param)


def cookies(server: ScriptedServer) -> list[str | None]:
    return [request.headers.get("cookie") for request in server.requests]


@pytest.mark.parametrize("sse", [False, True], ids=["json", "events"])
async def test_every_request_sends_it_back(server: ScriptedServer, config: ManagerConfig, sse: bool) -> None:
    server.sse = sse
    server.cookie = lambda request: PIN
    async with deployed(server, config) as manager:
        for _ in range(3):
            await manager.execute_raw("a", echo("x"))
    first, *others = server.requests
    assert {request.verb for request in others} == {"POST", "GET", "DELETE"}
    assert "cookie" not in first.headers
    assert {request.headers.get("cookie") for request in others} == {"pin=b1"}


@pytest.mark.parametrize("method", ["server/discover", "initialize", "notifications/initialized", "GET", "tools/call"])
async def test_any_response_may_set_it(server: ScriptedServer, config: ManagerConfig, method: str) -> None:
    server.cookie = lambda request: PIN if method in (request.method, request.verb) else ""
    async with deployed(server, config) as manager:
        for _ in range(2):
            await manager.execute_raw("a", echo("x"))
    at = next(n for n, request in enumerate(server.requests) if method in (request.method, request.verb))
    assert cookies(server)[: at + 1] == [None] * (at + 1)
    assert set(cookies(server)[at + 1 :]) == {"pin=b1"}


class SettingStream:
    """Open a stream that sets a cookie and stays."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream({"Set-Cookie": PIN})
        await connection.hang()


async def test_a_stream_that_stands_open_may_set_it(server: ScriptedServer, config: ManagerConfig) -> None:
    server.script_always("GET", SettingStream())
    async with deployed(server, config) as manager:
        await manager.execute_raw("a", echo("x"))
    assert server.requests_of("GET")
    assert server.requests_of("tools/call")[-1].headers["cookie"] == "pin=b1"


async def test_a_refusal_may_set_it_and_the_next_session_keeps_it(
    server: ScriptedServer, config: ManagerConfig
) -> None:
    async with deployed(server, config) as manager:
        await manager.execute_raw("a", echo("x"))
        server.expire_sessions()
        server.cookie = lambda request: "pin=b2" if request.method == "tools/call" else ""
        assert text_of(await manager.execute_raw("a", echo("y"))) == "y"
        [_, again] = server.requests_of("initialize")
    assert again.headers["cookie"] == "pin=b2"


async def test_each_instance_has_its_own(server: ScriptedServer, config: ManagerConfig) -> None:
    numbers = itertools.count(1)
    server.cookie = lambda request: "" if "cookie" in request.headers else f"pin=b{next(numbers)}"
    async with deployed(server, config, instances=3) as manager:
        for _ in range(30):
            await manager.execute_raw("a", echo("x"))
    by_session: dict[str, set[str]] = {}
    for request in server.requests_of("tools/call"):
        by_session.setdefault(request.headers["mcp-session-id"], set()).add(request.headers["cookie"])
    assert len(by_session) == 3
    assert sorted(map(sorted, by_session.values())) == [["pin=b1"], ["pin=b2"], ["pin=b3"]]


async def test_another_port_of_the_host_gets_nothing(server: ScriptedServer, config: ManagerConfig) -> None:
    server.cookie = lambda request: "pin=b1; Path=/; Domain=127.0.0.1"
    with ScriptedServer() as other:
        async with McpManager(config) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
            await manager.deploy("b", {"url": other.url, **CALM})
            await manager.execute_raw("b", echo("x"))
        assert set(cookies(other)) == {None}


async def test_a_new_configuration_begins_without_any(server: ScriptedServer, config: ManagerConfig) -> None:
    server.cookie = lambda request: PIN
    async with deployed(server, config) as manager:
        await manager.execute_raw("a", echo("x"))
        await manager.redeploy("a", {"url": server.url, **CALM, "priority": 7})
        await manager.execute_raw("a", echo("x"))
    # Which era it speaks is known by then.
    first, again = server.requests_of("initialize")
    assert first.headers["cookie"] == "pin=b1"
    greeting = server.requests_of("server/discover")[-1] if len(server.requests_of("server/discover")) > 1 else again
    assert "cookie" not in greeting.headers


async def test_what_is_configured_stays_as_it_is(server: ScriptedServer, config: ManagerConfig) -> None:
    server.cookie = lambda request: f"{'mine' if request.method == 'initialize' else 'pin'}=b1"
    async with deployed(server, config, headers={"cookie": "mine=1; more=2"}) as manager:
        for _ in range(2):
            await manager.execute_raw("a", echo("x"))
    assert cookies(server)[0] == "mine=1; more=2"
    assert set(cookies(server)[1:]) <= {"mine=1; more=2", "mine=1; more=2; pin=b1"}
    assert cookies(server)[-1] == "mine=1; more=2; pin=b1"


@pytest.mark.slow
async def test_it_ends_when_the_server_says_so(server: ScriptedServer, config: ManagerConfig) -> None:
    server.cookie = lambda request: "pin=b1; Max-Age=1" if request.method == "initialize" else ""

    def last() -> str | None:
        return server.requests_of("tools/call")[-1].headers.get("cookie")

    async with deployed(server, config) as manager:
        await manager.execute_raw("a", echo("x"))
        assert last() == "pin=b1"
        async with asyncio.timeout(10):
            while last() is not None:
                await asyncio.sleep(0.05)
                await manager.execute_raw("a", echo("x"))
        server.cookie = lambda request: "pin=b2" if request.method == "tools/call" else ""
        await manager.execute_raw("a", echo("x"))
        server.cookie = lambda request: "pin=; Max-Age=0"
        await manager.execute_raw("a", echo("x"))
        assert last() == "pin=b2"
        await manager.execute_raw("a", echo("x"))
        assert last() is None


async def test_a_path_is_kept_to(server: ScriptedServer, config: ManagerConfig) -> None:
    server.cookie = lambda request: f"at={request.path.rpartition('/')[2]}; Path={request.path}"
    async with deployed(server, config) as manager:
        await manager.execute_raw("a", echo("x"))
        server.script("tools/call", faults.Redirect("/elsewhere"))
        await manager.execute_raw("a", echo("x"))
        await manager.execute_raw("a", echo("x"))
    assert [(each.path, each.headers.get("cookie")) for each in server.requests_of("tools/call")][:3] == [
        ("/mcp", "at=mcp"),
        ("/mcp", "at=mcp"),
        ("/elsewhere", None),
    ]


async def test_one_that_makes_no_sense_is_counted(server: ScriptedServer, config: ManagerConfig) -> None:
    server.cookie = lambda request: "no cookie at all" if request.method == "tools/call" else ""
    async with deployed(server, config) as manager:
        for _ in range(2):
            await manager.execute_raw("a", echo("x"))
        assert manager.server("a").faults["a malformed cookie"] == 2
    assert set(cookies(server)) == {None}


async def test_none_is_shown(server: ScriptedServer, config: ManagerConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    server.cookie = lambda request: "pin=s3cr3t"
    async with deployed(server, config) as manager:
        await manager.execute_raw("a", echo("x"))
        server.script("tools/call", faults.Status(500))
        error = await failure_of(manager, "a", echo("x"))
        shown = f"{error!r} {error} {vars(error)} {manager.server('a')!r} {msgspec.json.encode(manager.snapshot())!r}"
    assert "s3cr3t" in str(cookies(server))
    assert "s3cr3t" not in shown + caplog.text


async def test_one_that_a_refusal_quotes_is_masked(server: ScriptedServer, config: ManagerConfig) -> None:
    server.cookie = lambda request: "pin=s3cr3t-backend-7"
    async with deployed(server, config) as manager:
        await manager.execute_raw("a", echo("x"))
        server.script("tools/call", Refused(400, text="no backend s3cr3t-backend-7", content_type="text/plain"))
        error = await failure_of(manager, "a", echo("x"))
    assert "no backend ***" in error.message


async def test_http_with_sse_has_them_as_well(config: ManagerConfig) -> None:
    def cookie(request: Request) -> str:
        return "stream=1; Path=/" if request.verb == "GET" else "post=1; Path=/"

    with HttpSseServer() as server:
        server.cookie = cookie
        async with McpManager(config) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "transport": "sse"})
            for _ in range(2):
                await manager.execute_raw("a", echo("x"))
        get, initialize, *others = server.requests
        assert (get.verb, initialize.method) == ("GET", "initialize")
        assert "cookie" not in get.headers
        assert initialize.headers["cookie"] == "stream=1"
        assert {each.headers["cookie"] for each in others} == {"stream=1; post=1"}
