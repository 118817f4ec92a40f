"""Authorization servers of others, end to end: the official SDK's, FastMCP's, and FastMCP's proxy of somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from support.authorization import oauth
from support.processes import HttpServerProcess
from yarl import URL

from mcp_manager import McpManager

KINDS = {
    "sdk": ("authorizing_sdk.py",),
    "fastmcp": ("authorizing_fastmcp.py",),
    "fastmcp-proxy": ("authorizing_fastmcp.py", "--proxy"),
}
pytestmark = pytest.mark.timeout(180)


class RealServer:
    """One of them as a process, and what it has noted."""

    def __init__(self, kind: str, process: HttpServerProcess) -> None:
        self.kind = kind
        self.url = process.url

    async def control(self, what: str) -> list[dict[str, Any]]:
        url = URL(self.url).with_path(f"/control/{what}")
        async with aiohttp.ClientSession() as session, session.post(url) as response:
            notes: list[dict[str, Any]] = await response.json()
            return notes

    async def steps(self, step: str) -> list[dict[str, Any]]:
        return [each for each in await self.control("notes") if each["step"] == step]


@pytest.fixture(scope="module", params=KINDS)
def process(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with HttpServerProcess(*KINDS[request.param]) as process:
        yield RealServer(request.param, process)


@pytest.fixture
async def server(process: RealServer) -> RealServer:
    await process.control("reset")
    return process


async def browse(authorization_url: str) -> str:
    """Be the browser of a user who agrees: follow redirects until one leads to the client."""
    url = URL(authorization_url)
    back = url.query["redirect_uri"]
    async with aiohttp.ClientSession() as session:
        for _ in range(5):
            async with session.get(url, allow_redirects=False) as response:
                location = response.headers.get("Location")
                assert location is not None, (response.status, await response.text())
            if location.startswith(back):
                return location
            url = url.join(URL(location, encoded=True))
    raise AssertionError("the redirects lead nowhere")


@asynccontextmanager
async def connected(server: RealServer, **auth: Any) -> AsyncIterator[McpManager]:
    async with McpManager(redirect_handler=browse) as manager:
        await manager.deploy("a", {"url": server.url, **oauth(**auth)})
        yield manager


async def call(manager: McpManager) -> None:
    assert (await manager.call_tool("a", "echo", {"text": "said"})).text == "said"


@pytest.mark.both_loops
async def test_a_client_that_nobody_knows_registers_for_what_it_asks_for(server: RealServer) -> None:
    async with connected(server) as manager:
        await call(manager)
        await call(manager)
    (registered,) = await server.steps("register")
    (authorized,) = await server.steps("authorize")
    assert set(authorized["scopes"]) == set(registered["scope"].split()) >= {"user"}
    assert authorized["resource"] == server.url


@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post"])
async def test_either_way_to_send_a_secret_is_taken(server: RealServer, client_auth: str) -> None:
    async with connected(server, client_auth=client_auth) as manager:
        await call(manager)
        await server.control("access")
        await call(manager)
    assert len(await server.steps("authorize")) == 1
    if server.kind != "fastmcp-proxy":
        # The proxy makes public clients of all.
        assert [each["method"] for each in await server.control("notes") if "method" in each] == [client_auth] * 2


async def test_an_access_token_that_is_revoked_is_renewed_without_the_user(server: RealServer) -> None:
    async with connected(server) as manager:
        await call(manager)
        await server.control("access")
        await asyncio.gather(*(call(manager) for _ in range(10)))
    assert len(await server.steps("authorize")) == 1
    assert len(await server.steps("refresh")) <= 1


async def test_a_refresh_token_that_is_revoked_asks_the_user_once(server: RealServer) -> None:
    async with connected(server) as manager:
        await call(manager)
        await server.control("refresh")
        await asyncio.gather(*(call(manager) for _ in range(10)))
        await call(manager)
    assert len(await server.steps("authorize")) == 2
    assert len(await server.steps("register")) == 1
    assert await server.steps("refresh") == []


async def test_a_client_that_is_forgotten_registers_again(server: RealServer) -> None:
    if server.kind == "fastmcp-proxy":
        pytest.skip("the proxy's clients are in its own store")
    async with connected(server) as manager:
        await call(manager)
        await server.control("clients")
        await call(manager)
    assert len(await server.steps("register")) == 2
    assert len(await server.steps("authorize")) == 2


async def test_more_scopes_are_registered_before_they_are_asked_for(server: RealServer) -> None:
    if server.kind != "sdk":
        pytest.skip("the others need but one scope")
    async with connected(server, scopes=["user"]) as manager:
        await call(manager)
        await call(manager)
    assert [each["scopes"] for each in await server.steps("authorize")] == [["user"], ["user", "write"]]
    assert [each["scope"] for each in await server.steps("register")] == ["user", "user write"]
