"""A server, or its manager, that ends while its authorization hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web
from support.authorization import ProtectedServer, Seen, oauth

from mcp_manager import McpManager
from mcp_manager.errors import CallError

WAIT_S = 15.0


@contextmanager
def hanging_server() -> Iterator[ProtectedServer]:
    """Serve, but for the tokens."""
    over = threading.Event()

    def hang(seen: Seen, body: dict[str, object]) -> web.Response:
        over.wait(60)
        return web.json_response(body)

    with ProtectedServer(token_reply=hang) as server:
        try:
            yield server
        finally:
            over.set()


@pytest.mark.both_loops
@pytest.mark.parametrize("way", ["stop", "undeploy", "cancel"])
async def test_a_request_for_a_token_that_hangs_outlives_nothing(way: str) -> None:
    with hanging_server() as server:
        manager = McpManager(redirect_handler=server.agree)
        await manager.start()
        try:
            await manager.deploy("a", {"url": server.url, **oauth(), "shutdown_grace_s": 0.2})
            call = asyncio.create_task(manager.call_tool("a", "echo", {"text": "x"}))
            await asyncio.wait_for(server.wait_for("/token", 1), WAIT_S)
            if way == "cancel":
                call.cancel()
            elif way == "undeploy":
                await asyncio.wait_for(manager.undeploy("a"), WAIT_S)
        finally:
            await asyncio.wait_for(manager.stop(), WAIT_S)
        with pytest.raises(asyncio.CancelledError if way == "cancel" else CallError) as ended:
            await asyncio.wait_for(call, WAIT_S)
        assert way == "cancel" or ended.value.delivery == "not_sent"
        assert not [each for each in server.to("/mcp") if "authorization" in each.headers]
