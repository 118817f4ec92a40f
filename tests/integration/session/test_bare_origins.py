"""URLs without a path: where the endpoint is looked for if there is none, and where it is not."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from support.authorization import ProtectedServer, oauth
from support.era_server import HANDSHAKE, STATELESS, EraServer, Response

from mcp_manager import AuthError, Caller, McpManager, ProtocolError
from mcp_manager.testing import faults
from mcp_manager.testing.faults.record import FaultRecord
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer

KEY = "canary-5d1e"


class Elsewhere(EraServer):
    """A server with its endpoint at ``at``; every other path has the answer ``elsewhere``."""

    def __init__(self, *speaks: str, at: str = "/mcp", elsewhere: int = 404) -> None:
        super().__init__(*speaks)
        self.at = at
        self.elsewhere: Response = (elsewhere, {}, None)
        # Answers of single paths.
        self.others: dict[str, Response] = {}

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/mcp")

    def answer(self, request: Request) -> Response:
        if request.path in self.others:
            return self.others[request.path]
        return super().answer(request) if request.path == self.at else self.elsewhere

    def asked(self) -> list[tuple[str | None, str]]:
        """The method and the path of each request."""
        return [(each.method or each.verb, each.path) for each in self.requests]


def found_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if getattr(each, "event", "") == "endpoint_found"]


@contextlib.contextmanager
def serving(*speaks: str, **place: Any) -> Iterator[Elsewhere]:
    with Elsewhere(*speaks, **place) as server:
        yield server


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("era", [HANDSHAKE, STATELESS])
async def test_the_usual_path_is_tried_once_and_used_from_then_on(
    era: str, status: int, slash: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(era, elsewhere=status) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin + slash, "instances": 3})
            for _ in range(6):
                await manager.call_tool("a", "echo", {"text": "x"})
            assert [path for _, path in server.asked()].count("/") == 1
            assert {path for method, path in server.asked() if method == "tools/call"} == {"/mcp"}
            view = manager.server("a")
            assert view.found_endpoints == (server.url,)
            assert view.faults == {}
            (line,) = found_lines(caplog)
            assert line.levelno == logging.WARNING
            assert f"{server.origin} is not an MCP endpoint (HTTP {status}); {server.url} is" in line.getMessage()


async def test_new_sessions_begin_at_the_found_endpoint() -> None:
    with serving(HANDSHAKE) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin})
            server.expire_sessions()
            server.forget()
            await manager.call_tool("a", "echo", {"text": "x"})
            await manager.scale("a", 2)
            await manager.call_tool("a", "echo", {}, timeout=5)
            await manager.for_caller(Caller("someone")).call_tool("a", "echo", {"text": "x"})
        assert {path for _, path in server.asked()} == {"/mcp"}


async def test_a_new_configuration_is_searched_as_well() -> None:
    with serving(HANDSHAKE) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin})
            server.forget()
            await manager.redeploy("a", {"url": server.origin, "protocol_version": HANDSHAKE})
            await manager.call_tool("a", "echo", {"text": "x"})
            assert [path for _, path in server.asked()].count("/") == 1
            assert manager.server("a").found_endpoints == (server.url,)


async def test_redirects_of_the_usual_path_are_followed() -> None:
    with serving(STATELESS, at="/mcp/") as server:
        server.others["/mcp"] = (307, {"Location": "/mcp/"}, None)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin})
            await manager.call_tool("a", "echo", {"text": "x"})
            assert manager.server("a").found_endpoints == (f"{server.url}/",)


async def test_an_endpoint_that_moves_to_the_origin_is_found_again() -> None:
    with serving(HANDSHAKE) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin, "health": {"enabled": False}})
            server.at = "/"
            server.expire_sessions()
            await manager.call_tool("a", "echo", {"text": "x"}, timeout=5)
            assert manager.server("a").found_endpoints == ()


async def test_what_answers_nowhere_is_told_as_it_is_with_the_way_out() -> None:
    with serving(HANDSHAKE, at="/api/mcp") as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin})
            with pytest.raises(ProtocolError) as caught:
                await manager.call_tool("a", "echo", {"text": "x"})
            assert caught.value.http_status == 404
            assert caught.value.hint == (
                "url has no path, and /mcp is no MCP endpoint either: set url to the endpoint, with its path"
            )
            assert manager.server("a").found_endpoints == ()
        first = server.asked()[:4]
        assert first == [("server/discover", "/"), ("server/discover", "/mcp"), ("initialize", "/"), ("GET", "/")]


class PageAtTheUsualPath(FaultRecord, frozen=True, tag="page_at_the_usual_path"):
    """A site that has a page at ``/mcp``, and nothing elsewhere."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        if request is not None and request.path == "/mcp":
            await connection.respond(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Welcome</title>")
        else:
            await connection.respond(404)


async def test_a_web_page_is_no_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    with serving(HANDSHAKE) as server:
        server.script_always("*", PageAtTheUsualPath())
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin})
            with pytest.raises(ProtocolError, match="/mcp is no MCP endpoint either"):
                await manager.call_tool("a", "echo", {"text": "x"})
            assert manager.server("a").found_endpoints == ()
        assert found_lines(caplog) == []


async def test_a_url_with_a_path_or_a_query_is_taken_at_its_word() -> None:
    with serving(HANDSHAKE) as server:
        async with McpManager() as manager:
            for number, path in enumerate(("/other", "/?key=x")):
                await manager.deploy(str(number), {"url": server.origin + path})
                with pytest.raises(ProtocolError) as caught:
                    await manager.call_tool(str(number), "echo", {})
                assert caught.value.hint == "check that url is the MCP endpoint, most often /mcp"
        assert {path for _, path in server.asked()} == {"/other", "/?key=x"}


async def test_credentials_stay_with_the_origin() -> None:
    with ScriptedServer() as other, serving(HANDSHAKE) as server:
        away: Response = (307, {"Location": other.url}, None)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin, "auth": {"type": "bearer", "token": KEY}})
            await manager.call_tool("a", "echo", {"text": "x"})
            assert {each.headers["authorization"] for each in server.requests} == {f"Bearer {KEY}"}
            server.at = "/nowhere"
            for path, says in (("/", "redirects"), ("/mcp", "HTTP 404")):
                server.others = {path: away}
                with pytest.raises(ProtocolError, match=says):
                    await manager.redeploy("a", {"url": server.origin, "name": path}, strategy="rolling")
        assert other.requests == []


async def test_a_refusal_that_is_json_rpc_is_a_server_of_mcp() -> None:
    with serving(HANDSHAKE, at="/") as server:
        server.script_always(
            "*",
            faults.Status(
                404,
                {"Content-Type": "application/json"},
                b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"unknown"}}',
            ),
        )
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin})
        assert {path for _, path in server.asked()} == {"/"}


async def test_a_found_endpoint_that_wants_credentials_says_so() -> None:
    with serving(HANDSHAKE) as server:
        server.others["/mcp"] = (401, {"WWW-Authenticate": "Bearer"}, None)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin})
            with pytest.raises(AuthError, match="requires credentials"):
                await manager.call_tool("a", "echo", {})
            assert manager.server("a").found_endpoints == (server.url,)


async def test_a_token_is_obtained_for_the_found_endpoint() -> None:
    with ProtectedServer() as server:
        async with McpManager(redirect_handler=server.agree) as manager:
            await manager.deploy("a", {"url": server.url.removesuffix("/mcp"), **oauth()})
            await manager.call_tool("a", "echo", {})
            assert manager.server("a").found_endpoints == (server.url,)
        assert len(server.to("/authorize")) == 1
        assert server.to("/authorize")[0].query["resource"] == server.url


async def test_a_gateway_that_has_lost_the_endpoint_is_asked_again() -> None:
    with serving(HANDSHAKE) as server:
        server.others["/mcp"] = (502, {}, None)
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.origin})
            assert "HTTP 502" in str(manager.server("a").last_error)
            assert manager.server("a").found_endpoints == ()
            server.others.clear()
            await manager.call_tool("a", "echo", {"text": "x"}, timeout=10)
            assert manager.server("a").found_endpoints == (server.url,)
