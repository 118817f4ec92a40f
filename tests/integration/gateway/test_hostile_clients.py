"""Clients that mean harm, over real sockets: what they send, they get refused, and nothing else happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

import pytest

from mcp_manager import McpManagerError
from mcp_manager.gateway import Gateway
from mcp_manager.gateway.http import connections

pytestmark = pytest.mark.both_loops

SECRET = b"a secret that no log may have"


def nothing(**serve: Any) -> Gateway:
    """Return a gateway without servers."""
    return Gateway({}, serve={"listen": "127.0.0.1:0", "min_ready": 0, **serve})


async def answer(gateway: Gateway, sent: bytes) -> bytes:
    """Send bytes, and return all that comes until the gateway closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(sent)
    received = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return received


def initialize(capabilities: bytes) -> bytes:
    client = b'"clientInfo":{"name":"t","version":"1"}'
    params = b'{"protocolVersion":"2025-11-25","capabilities":%b,%b}' % (capabilities, client)
    body = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":%b}' % params
    fields = b"Host: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d" % len(body)
    return b"POST /mcp HTTP/1.1\r\n%b\r\n\r\n%b" % (fields, body)


async def test_no_request_is_quoted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with nothing() as gateway:
        for field in (b"Authorization: %b\x01" % SECRET, b"Content-Length: %b" % SECRET, b"Transfer-Encoding: x"):
            for start in (b"GET /mcp", b"POST /other"):
                received = await answer(gateway, b"%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % (start, field))
                assert received.startswith(b"HTTP/1.0 400 ") or received.startswith(b"HTTP/1.1 400 "), received
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.INFO] == []


async def test_capabilities_with_numbers_beyond_all_bounds_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with nothing() as gateway:
        huge = b"9" * 500
        received = await answer(gateway, initialize(b'{"sampling":{"a":%b}}' % huge))
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == -32602
        # What no server needs to know is left out instead.
        received = await answer(gateway, initialize(b'{"experimental":{"a":%b}}' % huge))
        assert "result" in json.loads(received.partition(b"\r\n\r\n")[2])
    assert caplog.records == []


async def test_connections_beyond_the_limit_are_refused(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "for_clients", lambda: 3)
    async with nothing() as gateway:
        kept = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(3)]
        health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for reader, writer in kept[:2]:
            # These go to aiohttp.web, where they count as well.
            writer.write(health)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        kept[2][1].write(b"POST /mcp HTTP/1.1\r\n")
        for _ in range(3):
            with contextlib.suppress(ConnectionError):
                assert await answer(gateway, health) == b""
        for _, writer in kept:
            writer.close()
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "refused" in caplog.text


@pytest.mark.parametrize("revision", ["2025-11-25", "auto"])
async def test_a_gateway_that_is_its_own_server_does_not_list_itself(revision: str) -> None:
    async with nothing() as gateway:
        await gateway.manager.deploy("itself", url=f"{gateway.url}/mcp", protocol_version=revision)
        with pytest.raises(McpManagerError, match="a server of its own"):
            await gateway.manager.call("itself", "tools/list")
