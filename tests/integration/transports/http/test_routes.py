"""Every route carries every kind of exchange: on compiled lanes wherever there can be one, and HTTP+SSE as well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.calls import CALM, echo, text_of
from support.proxy import ScriptedProxy
from support.streams import HttpSseServer

from mcp_manager import McpManager
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.transports.http.plain_requests import HttpRequest, PlainRequests

pytestmark = pytest.mark.both_loops

ROUTES = ["tls", "client certificate", "tunnel", "tunnel through tls", "unix socket", "absolute target"]


@contextlib.contextmanager
def routed(server: ScriptedServer, route: str, directory: Path) -> Iterator[dict[str, Any]]:
    """Start a server and yield the settings under which it is reached by a route."""
    authority = Authority(directory)
    pair = authority.issue("127.0.0.1")
    settings: dict[str, Any] = {"tls": {"ca_file": str(authority.ca_file)}, **CALM}
    if route == "unix socket":
        server.unix = settings["unix_socket"] = str(directory / "s.sock")
    elif route == "client certificate":
        mine = authority.issue("agent")
        server.tls = pair.load(trusting=authority)
        settings["tls"] |= {"cert_file": str(mine.certificate), "key_file": str(mine.key)}
    elif route != "absolute target":
        server.tls = pair.load()
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        path = "/sse" if isinstance(server, HttpSseServer) else "/mcp"
        place = "localhost" if server.unix is not None else f"127.0.0.1:{server.port}"
        settings["url"] = f"{'http' if server.tls is None else 'https'}://{place}{path}"
        if route in ("tunnel", "tunnel through tls", "absolute target"):
            proxy = ScriptedProxy(tls=pair.load() if route == "tunnel through tls" else None)
            settings["proxy"] = stack.enter_context(proxy).url
        yield settings


@pytest.mark.parametrize("route", ROUTES)
async def test_calls_go_on_lanes(route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain: list[str] = []
    exchange = PlainRequests.exchange

    async def watched(requests: PlainRequests, request: HttpRequest, *rest: Any) -> Any:
        plain.append(request.verb)
        return await exchange(requests, request, *rest)

    monkeypatch.setattr(PlainRequests, "exchange", watched)
    with routed(ScriptedServer(), route, tmp_path) as settings:
        async with McpManager() as manager:
            await manager.deploy("a", settings)
            for text in ("one", "two"):
                assert text_of(await manager.execute_raw("a", echo(text))) == text
    assert bool(plain) == (route == "absolute target")


@pytest.mark.parametrize("route", ROUTES)
async def test_the_transport_of_before_goes_by_every_route(route: str, tmp_path: Path) -> None:
    with routed(HttpSseServer(), route, tmp_path) as settings:
        async with McpManager() as manager:
            await manager.deploy("a", {**settings, "transport": "sse"})
            for text in ("one", "two"):
                assert text_of(await manager.execute_raw("a", echo(text))) == text
