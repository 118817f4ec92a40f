"""Whoever means harm to the admin API: without credentials, with those of others, and with requests that are too much."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mcp_manager import ConfigError
from mcp_manager.gateway.gateway import Gateway
from mcp_manager.gateway.security.api_keys import made_key
from mcp_manager.gateway.security.keys_file import write_keys

TOKEN = "an administrator's token has 32 chars".replace(" ", "-")
EVENTS = "/api/v1/events"


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    serve = {"listen": "127.0.0.1:0", "admin": {"token": TOKEN}, "max_request_bytes": 100_000}
    async with Gateway({}, serve=serve) as gateway:
        yield gateway


async def sent(gateway: Gateway, line: str, *fields: str, body: bytes = b"") -> bytes:
    """Send a request on a connection of its own, and return the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    lines = [f"{line} HTTP/1.1", *(() if any("Host" in each for each in fields) else ("Host: localhost",)), *fields]
    lines += ["Connection: close", f"Content-Length: {len(body)}", "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + body)
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    return received


async def test_only_the_token_opens_the_admin_api(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mcp_manager")
    bearer = f"Authorization: Bearer {TOKEN}"
    shown = {
        "": (),
        "short": (f"Authorization: Bearer {TOKEN[:-1]}",),
        "long": (f"Authorization: Bearer {TOKEN}x",),
        "of another scheme": (f"Authorization: Basic {TOKEN}",),
        "twice": (bearer, bearer),
        "no text": ("Authorization: Bearer \xff",),
        "as a key": (f"X-API-Key: {TOKEN}",),
    }
    for kind, fields in shown.items():
        for line in ("GET /api/v1/servers", f"GET /api/v1/servers?token={TOKEN}", "POST /api/v1/nothing"):
            received = await sent(gateway, line, *fields)
            assert received.startswith(b"HTTP/1.1 401 "), (kind, line, received[:200])
            assert TOKEN.encode() not in received
    for foreign in (("Host: evil.example",), ("Origin: http://evil.example",), ("Origin: null",)):
        assert (await sent(gateway, "GET /api/v1/servers", bearer, *foreign)).startswith(b"HTTP/1.1 403 "), foreign
    assert (await sent(gateway, "GET /api/v1/servers", bearer)).startswith(b"HTTP/1.1 200 ")
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(gateway.serve)


async def test_requests_that_are_too_much_are_refused(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    fields = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    deep = {
        "values": b'{"id":"x","config":%b1%b}' % (b'{"a":' * 900, b"}" * 900),
        "lists": b'{"id":"x","config":{"args":%b%b}}' % (b"[" * 101, b"]" * 101),
        "all": b"[" * 90_000,
    }
    for kind, body in deep.items():
        for line in ("POST /api/v1/servers", "PUT /api/v1/config", "PATCH /api/v1/servers/x"):
            assert (await sent(gateway, line, *fields, body=body)).startswith(b"HTTP/1.1 400 "), (kind, line)
    assert (await sent(gateway, "PUT /api/v1/config", *fields, body=b" " * 100_001)).startswith(b"HTTP/1.1 413 ")
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_streams_of_events_are_few_and_end_with_their_readers(gateway: Gateway) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for _ in range(65):
        # It would take the place of a reader for ever.
        received = await sent(gateway, f"HEAD {EVENTS}", f"Authorization: Bearer {TOKEN}")
        assert received.startswith(b"HTTP/1.1 200 ")
    async with aiohttp.ClientSession(headers=bearer, connector=aiohttp.TCPConnector(limit=0)) as http:
        opened = [await http.get(gateway.url + EVENTS) for _ in range(65)]
        assert [each.status for each in opened] == [200] * 64 + [503]
        for each in opened:
            each.close()


async def test_nobody_is_an_administrator_by_default(tmp_path: Path) -> None:
    (boss, kept), (clerk, also) = made_key("boss"), made_key("clerk")
    path = tmp_path / "keys"
    write_keys(str(path), [kept, also])
    auth = {"type": "api_key", "keys_file": str(path)}
    serve: dict[str, Any] = {"listen": "127.0.0.1:0", "auth": auth, "admin": {}, "min_ready": 0}
    with pytest.raises(ConfigError, match="nobody may use the admin API"):
        Gateway({}, serve=serve)
    async with Gateway({}, serve={**serve, "auth": {**auth, "operators": ["boss"]}}) as gateway:
        body = json.dumps({"id": "x", "config": {"command": "true"}}).encode()
        for key, status in ((clerk, b"403"), (boss, b"201")):
            fields = (f"Authorization: Bearer {key}", "Content-Type: application/json")
            received = await sent(gateway, "POST /api/v1/servers", *fields, body=body)
            assert received[9:12] == status, received
