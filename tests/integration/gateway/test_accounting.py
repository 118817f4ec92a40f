"""What clients use of a gateway, and what its audit log says of them, over each transport and in both eras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.principals import Keys, http_for
from support.session_clients import MovedServer, SessionClient

from mcp_manager import ConfigError
from mcp_manager.gateway import Gateway

HOLD = {"name": "hold"}


class Place:
    """A gateway with API keys, limits and an audit log, and its server."""

    def __init__(self, keys: Keys, gateway: Gateway, moved: MovedServer, ann: aiohttp.ClientSession) -> None:
        self.keys = keys
        self.gateway = gateway
        self.moved = moved
        self.ann = ann
        self.path = keys.path.with_name("audit.jsonl")

    @property
    def accounting(self) -> Any:
        return self.gateway._security.accounting

    @property
    def used(self) -> tuple[int, int]:
        """The requests under way and the open streams of ann, as each of her limits counts them."""
        account = self.accounting.limits._newer["ann"]
        for counter in account.counters:
            assert counter.config.tools or (counter.running, counter.streams) == (account.running, account.streams)
        return account.running, account.streams

    async def lines(self, path: Path | None = None) -> list[dict[str, Any]]:
        """Return the lines of the audit log."""
        await self.accounting.audit.flush()
        return [json.loads(line) for line in (path or self.path).read_bytes().splitlines()]

    async def session(self, server: str = "moved") -> SessionClient:
        return await SessionClient(self.ann, f"{self.gateway.url}/servers/{server}/mcp").begin()

    async def replace(self, **serve: Any) -> None:
        await self.gateway.replace_access({"auth": self.keys.auth, **serve})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    keys = Keys(tmp_path, "ann")
    async with AsyncExitStack() as stack:
        moved = await stack.enter_async_context(MovedServer().running())
        config = {"servers": {"moved": {"url": moved.url, "protocol_version": "2025-11-25"}}}
        serve = {"listen": "127.0.0.1:0", "legacy_sse": True, "auth": keys.auth}
        gateway = await stack.enter_async_context(Gateway(config, serve=serve))
        yield Place(keys, gateway, moved, await stack.enter_async_context(http_for(keys, "ann")))


async def test_limits_and_audit_change_while_the_gateway_serves(place: Place, tmp_path: Path) -> None:
    ann = await place.session()
    calling = asyncio.create_task(ann.request("tools/call", HOLD))
    held = await place.moved.call("hold")
    # It began before there was a log, and before there were limits.
    await place.replace(limits=[{"max_concurrent": 1}], audit={"path": str(place.path)})
    held.reply()
    assert "result" in await calling
    calling = asyncio.create_task(ann.request("tools/call", HOLD))
    held = await place.moved.call("hold")
    refused = await ann.request("tools/call", HOLD)
    assert refused["error"]["message"] == "Too many requests: you may have 1 requests under way"
    # The limit that stays goes on counting, and the file that was renamed is opened anew.
    await place.lines()
    place.path.rename(tmp_path / "audit.1")
    await place.replace(limits=[{"rate": 1000.0}, {"max_concurrent": 1}], audit={"path": str(place.path)})
    assert "error" in await ann.request("tools/call", HOLD)
    held.reply()
    assert "result" in await calling
    assert [line["outcome"] for line in await place.lines(tmp_path / "audit.1")] == ["refused"]
    assert [line["outcome"] for line in await place.lines()] == ["refused", "ok"]
    # What is wrong changes nothing.
    with pytest.raises(ConfigError, match=r"serve\.audit\.path.*cannot be written"):
        await place.replace(limits=[], audit={"path": str(tmp_path / "none" / "audit")})
    assert place.used == (0, 0) and len(place.gateway.serve.limits) == 2
    await place.replace(audit={"path": str(tmp_path / "other")})
    calls = [asyncio.create_task(ann.request("tools/call", HOLD)) for _ in range(2)]
    for _ in calls:
        (await place.moved.call("hold")).reply()
    assert ["result" in each for each in await asyncio.gather(*calls)] == [True, True]
    assert [line["outcome"] for line in await place.lines(tmp_path / "other")] == ["ok", "ok"]
    page, _ = await place.gateway.metrics("text/plain")
    assert b'mcp_gateway_audit_lines_total{outcome="written"} 5.0' in page
    await place.replace()
    assert place.accounting.audit is None
