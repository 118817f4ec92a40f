"""What clients use of a gateway, and what its audit log says of them, over each transport and in both eras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from contextvars import copy_context
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.principals import Keys, http_for
from support.questioning import StatelessClient
from support.session_clients import MovedServer, SessionClient

from mcp_manager import ConfigError
from mcp_manager.gateway import Gateway

HOLD = {"name": "hold"}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
OLDEST = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}


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
            assert counter.streams == (0 if counter.config.tools else account.streams)
            assert counter.running == account.running
        return account.running, account.streams

    async def lines(self, path: Path | None = None) -> list[dict[str, Any]]:
        """Return the lines of the audit log."""
        await self.accounting.audit.flush()
        return [json.loads(line) for line in (path or self.path).read_bytes().splitlines()]

    async def session(self, server: str = "moved") -> SessionClient:
        return await SessionClient(self.ann, f"{self.gateway.url}/servers/{server}/mcp").begin()

    async def replace(self, **serve: Any) -> None:
        await self.gateway.replace_serve({"auth": self.keys.auth, **serve})


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


async def test_what_ends_gives_back_what_it_used(place: Place) -> None:
    """Whatever ends a request or a stream: nothing of it is counted any more."""
    await place.replace(limits=[{"max_concurrent": 9, "max_streams": 9}, {"tools": ["moved__*"], "max_concurrent": 9}])
    url = f"{place.gateway.url}/servers/moved"

    async def until(running: int, streams: int) -> None:
        async with asyncio.timeout(10):
            while place.used != (running, streams):
                await asyncio.sleep(0)

    ann = await place.session()
    # A refusal, and a call whose client has gone, which goes on, and is answered.
    assert "error" in await ann.request("resources/subscribe", {})
    assert place.used == (0, 0)
    calling = asyncio.create_task(ann.post("tools/call", HOLD))
    held = await place.moved.call("hold")
    assert place.used == (1, 0)
    calling.cancel()
    await asyncio.wait({calling})
    held.reply()
    await until(0, 0)
    # A call that its client cancels.
    calling = asyncio.create_task(ann.post("tools/call", HOLD, 7))
    await place.moved.call("hold")
    await ann.notify("notifications/cancelled", {"requestId": 7})
    await calling
    await until(0, 0)
    # A standing stream, a second one that is refused, and a session that is not there.
    standing = await ann.listen()
    assert place.used == (0, 1) and (await ann.get()).status == 409
    assert place.used == (0, 1)
    standing.close()
    await until(0, 0)
    lost = SessionClient(place.ann, ann.url)
    lost.session_id = "none"
    assert ((await lost.get()).status, (await lost.post("tools/call", HOLD)).status) == (404, 404)
    assert place.used == (0, 0)
    # Two calls of a batch, whose client goes.
    old = await SessionClient(place.ann, ann.url, "2025-03-26").begin()
    batch = [{"jsonrpc": "2.0", "id": each, "method": "tools/call", "params": HOLD} for each in (1, 2)]
    calling = asyncio.create_task(old.send(batch))
    calls = [await place.moved.call("hold") for _ in batch]
    assert place.used == (2, 0)
    calling.cancel()
    for call in calls:
        call.reply()
    await until(0, 0)
    # 2026-07-28: a call whose client goes is cancelled, and a stream ends with its client.
    modern = StatelessClient(place.ann, f"{url}/mcp")
    calling = asyncio.create_task(modern.send("tools/call", HOLD))
    await place.moved.call("hold")
    assert place.used == (1, 0)
    calling.cancel()
    await until(0, 0)
    refused = await modern.send("subscriptions/listen", {"notifications": 5})
    assert refused.error["code"] == -32602 and place.used == (0, 0)
    async with modern.post("subscriptions/listen", {"notifications": {"toolsListChanged": True}}) as response:
        await response.content.readline()
        assert place.used == (0, 1)
    await until(0, 0)
    # HTTP+SSE: a call that waits, and one that has not begun, when the stream ends.
    async with place.ann.get(f"{url}/sse") as stream:
        await stream.content.readline()
        path = (await stream.content.readline()).decode().removeprefix("data: ").strip()
        await place.ann.post(place.gateway.url + path, json={**PING, "method": "initialize", "params": OLDEST})
        await place.ann.post(place.gateway.url + path, json={**PING, "method": "tools/call", "params": HOLD})
        await place.moved.call("hold")
        assert place.used == (1, 1)
        assert place.gateway._legacy_sse is not None
        [session] = place.gateway._legacy_sse._sessions.values()
        session.take(json.dumps({**PING, "method": "tools/call", "params": HOLD}).encode(), copy_context())
        await session.aclose()
        assert place.used == (0, 1)
    await until(0, 0)
    # The end of the gateway.
    calling = asyncio.create_task(ann.request("tools/call", HOLD))
    await place.moved.call("hold")
    await place.gateway.stop()
    assert "error" in await calling
    assert place.used == (0, 0)


def told(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What lines say of who asked for what, and why it was refused."""
    return [
        (line["method"], line.get("name"), line["outcome"], line.get("reason"), line.get("principal")) for line in lines
    ]


async def test_what_is_refused_or_subscribed_has_a_line(place: Place, tmp_path: Path) -> None:
    bob = Keys(tmp_path, "ann", "bob")
    rules = [{"principals": ["ann"], "servers": ["moved"], "tools": ["moved__hold"], "methods": ["tools/*"]}]
    audit: dict[str, Any] = {"audit": {"path": str(place.path)}}
    await place.replace(auth=bob.auth, **audit)
    place.ann.headers.update(bob.fields("ann"))
    ann = await place.session()
    url = f"{place.gateway.url}/servers/moved"
    assert "result" in await ann.request("resources/subscribe", {"uri": "file:///x"})
    assert "error" in await ann.request("logging/setLevel", {"level": "loud"})
    # Nothing of it is a request of the protocol.
    for body, fields in ((b"[", {}), (b"{}", {"Accept": "text/html"}), (b"{}", {"Content-Type": "text/plain"})):
        assert (await place.ann.post(ann.url, data=body, headers={**ann.headers, **fields})).status >= 400
    async with aiohttp.ClientSession() as nobody:
        for path in ("/servers/moved/sse", "/metrics", "/mcp"):
            assert (await nobody.get(f"{place.gateway.url}{path}")).status == 401
        assert (await nobody.get(url, headers={"Host": "evil.example.com"})).status == 403
        assert (await nobody.get(url, headers={"Origin": "https://evil.example.com"})).status == 403
        assert (await nobody.post(f"{url}/mcp", headers={"Authorization": "Bearer a,b"})).status == 400
    async with http_for(bob, "bob") as http, place.ann.get(f"{url}/sse") as stream:
        await stream.content.readline()
        path = (await stream.content.readline()).decode().removeprefix("data: ").strip()
        # The session of another principal, over each transport.
        assert (await http.post(place.gateway.url + path, json=PING)).status == 404
        other = SessionClient(http, f"{url}/mcp")
        other.session_id = ann.session_id
        assert (await other.post("tools/call", HOLD)).status == 404
        assert (await other.post("tools/list")).status == 404
        assert ((await other.get()).status, (await other.end()).status) == (404, 404)
        other.revision = "2025-03-26"
        batch = [{**PING, "method": "tools/list"}, PING]
        assert (await other.send(batch)).status == 404
    before = len(await place.lines())
    assert told(await place.lines()) == [
        ("resources/subscribe", "file:///x", "ok", None, "ann"),
        ("logging/setLevel", None, "error", None, "ann"),
        *[("POST", None, "refused", "malformed", "ann")] * 3,
        *[("GET", None, "refused", "authentication", None)] * 3,
        ("GET", None, "refused", "host", None),
        ("GET", None, "refused", "origin", None),
        ("POST", None, "refused", "authentication", None),
        ("POST", None, "refused", "session", "bob"),
        ("tools/call", "hold", "refused", "session", "bob"),
        ("tools/list", None, "refused", "session", "bob"),
        ("GET", None, "refused", "session", "bob"),
        ("DELETE", None, "refused", "session", "bob"),
        ("tools/list", None, "refused", "session", "bob"),
    ]
    await place.gateway.replace_serve({"auth": bob.auth, "allow": rules, **audit})
    fleet = await SessionClient(place.ann, f"{place.gateway.url}/mcp").begin()
    for client, prefix in ((ann, ""), (fleet, "moved__")):
        assert "error" in await client.request("tools/call", {"name": f"{prefix}other"})
        assert "error" in await client.request("resources/read", {"uri": "file:///x?token=1"})
    assert "error" in await fleet.request("tools/call", {"name": "nothing__hold"})
    async with place.ann.get(f"{place.gateway.url}/metrics") as hidden:
        assert hidden.status == 403
    assert told(await place.lines())[before:] == [
        ("tools/call", "other", "refused", "rule", "ann"),
        ("resources/read", "file:///x?token=1", "refused", "rule", "ann"),
        ("tools/call", "moved__other", "refused", "rule", "ann"),
        ("resources/read", "file:///x?token=1", "refused", "rule", "ann"),
        ("tools/call", "nothing__hold", "error", None, "ann"),
        ("GET", None, "refused", "rule", "ann"),
    ]


async def test_arguments_have_no_secret_of_the_configuration(place: Place) -> None:
    """Wherever a client puts it: what the gateway knows to be secret is masked."""
    manager = place.gateway.manager
    token, later = 'sentinel "of" Z\u00fcrich', "sentinel-of-another-server"
    await manager.deploy("b", {"url": place.moved.url, "auth": {"type": "bearer", "token": later}, "connect": "lazy"})
    key = place.keys.of["ann"]
    await place.replace(audit={"path": str(place.path), "arguments": True})
    ann = await place.session()
    place.moved.replies_json = True

    async def line(*words: Any) -> str:
        arguments = {"words": words, "note": f"see {token}", token: 1, "password": "x"}
        calling = asyncio.create_task(ann.request("tools/call", {"name": "hold", "arguments": arguments}))
        (await place.moved.call("hold")).reply()
        await calling
        return json.dumps((await place.lines())[-1]["arguments"], ensure_ascii=False)

    shown = await line(f"my key is {key}", later, 12345678, True)
    assert shown.count("***") == 3 and "12345678" in shown and token.replace('"', '\\"') in shown
    for name, env in (("c", token), ("d", "12345678")):
        await manager.deploy(name, {"command": "none", "env": {"SECRET": env}, "connect": "lazy"})
    shown = await line(f"my key is {key}", later, 12345678, True)
    assert json.loads(shown) == {
        "words": ["my key is ***", "***", "***", True],
        "note": "see ***",
        "***": 1,
        "password": "***",
    }
