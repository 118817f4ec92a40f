"""Calls that end with a program, a cancellation or the gateway give back what they used of limits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.gateway_pipes import stateless_meta
from support.principals import Keys, http_for
from support.processes import PROGRAMS
from support.questioning import StatelessClient
from support.session_clients import SessionClient

from mcp_manager.gateway import Gateway

LIMITED = -32017
SERVER = {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), "handshake"]}
NOTHING = {"name": "nothing", "arguments": {}}
OLDEST = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}


class Pipes:
    """A client of ``serve --stdio``, whose limits allow one call of the tool ``nothing`` at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._number = 0

    def send(self, *messages: dict[str, Any]) -> None:
        """Send messages at once."""
        assert self._process.stdin is not None
        lines = [json.dumps({"jsonrpc": "2.0", **each}) for each in messages]
        self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())

    def call(self, name: str, meta: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a call; its id is ``self.last``."""
        self._number += 1
        params = {"name": name, "arguments": {}, **({} if meta is None else {"_meta": meta})}
        return {"id": self._number, "method": "tools/call", "params": params}

    async def receive(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), 20))

    async def is_free(self) -> int:
        """Check that one call of ``nothing`` is admitted, and no second one; return the id of the first."""
        first, second = self.call("nothing"), self.call("nothing")
        self.send(first, second)
        refused = await self.receive()
        assert (refused["id"], refused["error"]["code"]) == (second["id"], LIMITED)
        return int(first["id"])

    async def until_cancelled(self, count: int) -> None:
        """Wait until the server was told of so many cancellations."""
        while True:
            self.send(self.call("received"))
            received = (await self.receive())["result"]["structuredContent"]["received"]
            if [each.get("method") for each in received].count("notifications/cancelled") == count:
                return


@asynccontextmanager
async def piped() -> AsyncIterator[Pipes]:
    fleet = {"servers": {"a": SERVER}, "serve": {"limits": [{"tools": ["a__nothing"], "max_concurrent": 1}]}}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAMS / "gateway_stdio.py"),
        json.dumps(fleet),
        "/servers/a/mcp",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        client = Pipes(process)
        client.send({"id": "i", "method": "initialize", "params": {**OLDEST, "protocolVersion": "2025-11-25"}})
        assert (await client.receive())["id"] == "i"
        yield client
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 20)


async def test_a_client_on_standard_input_gets_back_what_its_calls_used() -> None:
    async with piped() as client:
        running = await client.is_free()
        client.send({"method": "notifications/cancelled", "params": {"requestId": running}})
        await client.until_cancelled(1)
        # The program ends with a call under way.
        running = await client.is_free()
        client.send(client.call("exit"))
        ended = [await client.receive(), await client.receive()]
        assert running in [each["id"] for each in ended] and all("error" in each for each in ended)
        client.send(client.call("level"))
        assert "result" in await client.receive()
        # 2026-07-28: a call that is cancelled once it has begun, and one that is cancelled before.
        running = await client.is_free()
        client.send({"method": "notifications/cancelled", "params": {"requestId": running}})
        await client.until_cancelled(1)
        call = client.call("nothing", stateless_meta())
        client.send(call, client.call("level"))
        assert "result" in await client.receive()
        client.send({"method": "notifications/cancelled", "params": {"requestId": call["id"]}})
        await client.until_cancelled(2)
        call = client.call("nothing", stateless_meta())
        cancelled = {"method": "notifications/cancelled", "params": {"requestId": call["id"]}}
        client.send(call, cancelled, client.call("level"))
        assert "result" in await client.receive()
        await client.is_free()


class Site:
    """A gateway with one principal, before a program."""

    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.http = http
        self.url = f"{gateway.url}/servers/a"

    @property
    def used(self) -> tuple[int, int, list[int]]:
        """The requests under way and the open streams, and what the limits count of requests."""
        account = self.gateway._security.accounting.limits._newer["ann"]
        tools = [counter.running for counter in account.counters]
        return account.running, account.streams, tools

    async def until(self, *used: Any) -> None:
        async with asyncio.timeout(20):
            while self.used != used:
                await asyncio.sleep(0.005)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    keys = Keys(tmp_path, "ann")
    serve = {
        "listen": "127.0.0.1:0",
        "legacy_sse": True,
        "auth": keys.auth,
        "limits": [{"max_concurrent": 9, "max_streams": 9}, {"tools": ["a__nothing"], "max_concurrent": 9}],
    }
    async with Gateway({"servers": {"a": SERVER}}, serve=serve) as gateway, http_for(keys, "ann") as http:
        yield Site(gateway, http)


async def test_a_program_that_is_killed_and_a_gateway_that_ends_give_back_all(site: Site) -> None:
    http, url = site.http, site.url
    client = await SessionClient(http, f"{url}/mcp").begin()
    modern = StatelessClient(http, f"{url}/mcp")
    async with http.get(f"{url}/sse") as stream:
        await stream.content.readline()
        path = (await stream.content.readline()).decode().removeprefix("data: ").strip()

        async def posted(method: str, params: Any) -> None:
            message = {"jsonrpc": "2.0", "id": method, "method": method, "params": params}
            assert (await http.post(site.gateway.url + path, json=message)).status == 202

        async def calls() -> list[asyncio.Future[Any]]:
            """Begin one call of each kind of client."""
            await posted("tools/call", NOTHING)
            return [
                asyncio.ensure_future(client.request("tools/call", NOTHING)),
                asyncio.ensure_future(modern.send("tools/call", NOTHING)),
            ]

        await posted("initialize", OLDEST)
        began = await calls()
        await site.until(3, 1, [3, 3])
        [pid] = site.gateway.manager.server("a").pids
        os.kill(pid, signal.SIGKILL)
        first, second = await asyncio.gather(*began)
        assert "error" in first and second.error is not None
        await site.until(0, 1, [0, 0])
        # Now the gateway ends: some calls finish in time, and those that do not are cut off.
        began = await calls()
        await site.until(3, 1, [3, 3])
        draining = asyncio.ensure_future(site.gateway.drain(20))
        # The stream of HTTP+SSE ends, and its calls with it.
        await site.until(2, 0, [2, 2])
        draining.cancel()
        await asyncio.wait({draining})
        assert not await site.gateway.drain(0)
        await site.gateway.stop()
        first, second = await asyncio.gather(*began, return_exceptions=True)
        assert site.used == (0, 0, [0, 0])
        assert "error" in first and second.error is not None
    client.close()
