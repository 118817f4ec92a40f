"""What stands in the first line of a request and who says it sends it, on every way a request takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.authorization import ProtectedServer, oauth
from support.calls import CALM, deployed, echo, failure_of, text_of
from support.streams import HttpSseServer

from mcp_manager import ManagerConfig, McpManager, ProtocolError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

SIGNED = "?url=https%3A%2F%2Fx.y%2Fz&sig=a%2Bb%2Fc%3D%3D"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
def config(request: pytest.FixtureRequest) -> ManagerConfig:
    return ManagerConfig(http_lanes=request.param, client_name="My App", client_version="4.2")


@pytest.mark.parametrize("target", [SIGNED, "?", "/a%2Fb", "?q=a+b", ";v=1?x=%c3%a9"])
async def test_the_target_is_sent_as_it_is_configured(
    server: ScriptedServer, config: ManagerConfig, target: str
) -> None:
    async with deployed(server, config, url=server.url + target) as manager:
        await manager.execute_raw("a", echo("x"))
    assert {request.verb for request in server.requests} == {"POST", "GET", "DELETE"}
    assert {request.path for request in server.requests} == {f"/mcp{target}"}


async def test_a_template_is_filled_in_and_nothing_else(server: ScriptedServer, config: ManagerConfig) -> None:
    async with deployed(server, config, url=f"{server.url}/{{i:02d}}{SIGNED}&n=%7Bi%7D", instances=2) as manager:
        for _ in range(2):
            await manager.execute_raw("a", echo("x"))
    assert {request.path for request in server.requests} == {f"/mcp/{i}{SIGNED}&n=%7Bi%7D" for i in ("00", "01")}


async def test_a_redirect_is_followed_to_the_letter(server: ScriptedServer, config: ManagerConfig) -> None:
    server.script("tools/call", faults.Redirect(f"/moved%2Fon{SIGNED}"))
    async with deployed(server, config) as manager:
        for text in ("x", "y"):
            assert text_of(await manager.execute_raw("a", echo(text))) == text
    assert [each.path for each in server.requests_of("tools/call")][1:] == [f"/moved%2Fon{SIGNED}"] * 2


async def test_the_endpoint_of_http_with_sse_is_used_to_the_letter(config: ManagerConfig) -> None:
    with HttpSseServer(endpoint="/messages%2Fx?url=a%2Fb&session={n}") as server:
        async with McpManager(config) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "transport": "sse"})
            assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert {each.path for each in server.requests_of("POST")} == {"/messages%2Fx?url=a%2Fb&session=0"}


@pytest.mark.parametrize(
    ("status", "location", "shown", "way_out"),
    [
        (301, "/mcp/", "{origin}/mcp/;", "set url to {origin}/mcp/"),
        (302, "/mcp/", "{origin}/mcp/;", "set url to {origin}/mcp/"),
        (302, "/login", "{origin}/login;", "a login page, set auth"),
        (303, "/see", "{origin}/see;", "a login page, set auth"),
        (301, "/mcp/?token=s3cr3t", "{origin}/mcp/?token=***;", "set url to that URL, with its query"),
        (308, "https://elsewhere.example/mcp", "https://elsewhere.example/mcp;", "set url to https://elsewhere"),
        (301, "", "no usable URL", "check that url is the MCP endpoint"),
        (301, "http://user:s3cr3t@127.0.0.1/x", "no usable URL", "check that url"),
        (307, "/" + "x" * 5000, "no usable URL", "check that url"),
        (301, "/" + "x" * 400, "x…;", "set url to"),
        (301, "/a b\tc", "{origin}/a%20b%09c;", "set url to"),
    ],
)
async def test_a_redirect_that_is_not_followed_is_told_with_its_path_and_the_way_out(
    server: ScriptedServer, config: ManagerConfig, status: int, location: str, shown: str, way_out: str
) -> None:
    origin = server.url.removesuffix("/mcp")
    server.script_always("tools/call", faults.Redirect(location, status))
    async with deployed(server, config) as manager:
        error = await failure_of(manager, "a", echo("x"))
    assert isinstance(error, ProtocolError)
    assert f"(HTTP {status}) to {shown.format(origin=origin)}" in error.message or shown.startswith("x…")
    assert shown.format(origin=origin) in error.message
    assert way_out.format(origin=origin) in error.hint
    assert "s3cr3t" not in str(error)
    assert len(str(error)) < 1000


async def test_every_request_says_who_sends_it(server: ScriptedServer, config: ManagerConfig) -> None:
    server.script("tools/call", faults.Redirect("/elsewhere"))
    async with deployed(server, config) as manager:
        await manager.execute_raw("a", echo("x"))
    assert {request.verb for request in server.requests} == {"POST", "GET", "DELETE"}
    assert {request.headers.get("user-agent") for request in server.requests} == {"My-App/4.2"}


async def test_what_is_configured_is_said_instead(server: ScriptedServer, config: ManagerConfig) -> None:
    async with deployed(server, config, headers={"user-agent": "Mozilla/5.0 (like me)"}) as manager:
        await manager.execute_raw("a", echo("x"))
    assert {request.headers.get("user-agent") for request in server.requests} == {"Mozilla/5.0 (like me)"}


async def test_http_with_sse_says_it_as_well(config: ManagerConfig) -> None:
    with HttpSseServer() as server:
        async with McpManager(config) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "transport": "sse"})
            await manager.execute_raw("a", echo("x"))
        assert {request.headers.get("user-agent") for request in server.requests} == {"My-App/4.2"}


async def test_authorization_servers_are_told_as_well() -> None:
    config = ManagerConfig(client_name="My App", client_version="4.2")
    with ProtectedServer() as server:
        async with McpManager(config, redirect_handler=server.agree) as manager:
            await manager.deploy("a", {"url": server.url, **oauth()})
            await manager.execute_raw("a", echo("x"))
        # The rest is the user's browser.
        ours = [each for each in server.seen if not each.path.endswith("/authorize")]
    assert {"register", "token", "mcp"} <= {each.path.rpartition("/")[2] for each in ours}
    assert {each.headers.get("user-agent") for each in ours} == {"My-App/4.2"}
