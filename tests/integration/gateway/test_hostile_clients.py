"""Clients that mean harm, over real sockets: what they send, they get refused, and nothing else happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import time
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
    assert "refuses connections beyond" in caplog.text


HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""Afterwards, aiohttp.web serves the connection."""


async def health(gateway: Gateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection, and let aiohttp.web answer a request on it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(HEALTH)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    await reader.readexactly(len(b'{"status": "ok"}'))
    return reader, writer


def pass_time(gateway: Gateway, seconds: float) -> None:
    """Let the connections of aiohttp.web be looked at as if it were later."""
    for each in gateway._connections._runner.server.connections:  # type: ignore[union-attr]
        each.look(time.monotonic() + seconds)  # type: ignore[union-attr]


async def test_slow_clients_lose_their_connections_to_aiohttp_as_well() -> None:
    kinds = (
        (b"", 76, b""),
        (b"H", 11, b"408"),
        (b"GET /heal", 11, b"408"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{", 61, b"408"),
        (b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", 61, b"408"),
    )
    async with nothing(legacy_sse=True) as gateway:
        stream, standing = await asyncio.open_connection("127.0.0.1", gateway.port)
        standing.write(b"GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await stream.readuntil(b"event: endpoint")
        for sent, seconds, status in kinds:
            reader, writer = await health(gateway)
            writer.write(sent)
            pass_time(gateway, seconds - 2)
            received = asyncio.ensure_future(reader.read())
            async with asyncio.timeout(10):
                while not received.done():
                    pass_time(gateway, seconds)
                    await asyncio.sleep(0.01)
            assert received.result()[9:12] == status, sent
            writer.close()
        # A client that waits for the server is not slow.
        assert not stream.at_eof()
        gateway._legacy_sse.drain()  # type: ignore[union-attr]
        await asyncio.wait_for(stream.readuntil(b"0\r\n\r\n"), 10)
        standing.close()


async def test_a_long_body_comes_to_aiohttp_at_once() -> None:
    async with nothing() as gateway:
        size = 3_000_000
        fields = b"Host: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d" % size
        received = await answer(gateway, HEALTH + b"POST /mcp HTTP/1.1\r\n%b\r\n\r\n" % fields + b" " * size)
        assert b"HTTP/1.1 400 " in received


async def test_a_client_that_reads_nothing_loses_its_connection_to_aiohttp() -> None:
    async with nothing() as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.setblocking(False)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(20):
                    while True:
                        with contextlib.suppress(BlockingIOError):
                            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
                        await asyncio.sleep(0.01)
                        pass_time(gateway, 31)


def request(line: bytes = b"POST /mcp HTTP/1.1", *fields: bytes, body: bytes = b"{}") -> bytes:
    """Return a request that is refused: of an unknown method, or earlier."""
    sized = () if any(b"Transfer" in each for each in fields) else (b"Content-Length: %d" % len(body),)
    lines = (line, b"Host: localhost", b"Content-Type: application/json", b"Connection: close", *fields, *sized)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"
REQUESTS = {
    "plain": request(),
    "chunked": request(b"POST /mcp HTTP/1.1", CHUNKED, body=CHUNKS),
    "both framings": request(b"POST /mcp HTTP/1.1", CHUNKED, b"Content-Length: 2", body=CHUNKS),
    "two lengths": request(b"POST /mcp HTTP/1.1", b"Content-Length: 2"),
    "two codings": request(b"POST /mcp HTTP/1.1", b"Transfer-Encoding: gzip, chunked", body=CHUNKS),
    "another coding": request(b"POST /mcp HTTP/1.1", b"Transfer-Encoding: identity", body=CHUNKS),
    "chunks of HTTP/1.0": request(b"POST /mcp HTTP/1.0", CHUNKED, body=CHUNKS),
    "HTTP/2.0": request(b"POST /mcp HTTP/2.0"),
    "HTTP/1.2": request(b"POST /mcp HTTP/1.2"),
    "two hosts": request(b"POST /mcp HTTP/1.1", b"Host: localhost"),
    "a folded field": request(b"POST /mcp HTTP/1.1", b"X: a\r\n b"),
    "a long field": request(b"POST /mcp HTTP/1.1", b"X: %b" % (b"a" * 12_000)),
    "too long a field": request(b"POST /mcp HTTP/1.1", b"X: %b" % (b"a" * 17_000)),
    "a field without a name": request(b"POST /mcp HTTP/1.1", b": a"),
    "a compressed body": request(b"POST /mcp HTTP/1.1", b"Content-Encoding: gzip"),
    "an absolute target": request(b"POST http://localhost/mcp HTTP/1.1"),
    "another host in the target": request(b"POST http://other.example/mcp HTTP/1.1"),
    "dots": request(b"POST /mcp/../mcp HTTP/1.1"),
    "two slashes": request(b"POST //mcp HTTP/1.1"),
    "an encoded letter": request(b"POST /%6dcp HTTP/1.1"),
    "an unknown expectation": request(b"POST /mcp HTTP/1.1", b"Expect: luck"),
    "a long body that waits": request(
        b"POST /mcp HTTP/1.1", b"Expect: 100-continue", b"Content-Length: 5000", body=b""
    ),
    "a long body": request(body=b" " * 5000),
    "a WebSocket": request(b"POST /mcp HTTP/1.1", b"Connection: Upgrade", b"Upgrade: websocket"),
    "a secret of siblings": request(b"POST /mcp HTTP/1.1", b"mcp-manager-sibling: x"),
}


async def test_both_servers_of_http_refuse_the_same() -> None:
    def status(received: bytes) -> bytes:
        # aiohttp repeats the version of the request.
        found: list[bytes] = re.findall(rb"HTTP/\d\.\d (\d{3}) ", received)
        return found[-1]

    async with nothing(max_request_bytes=4096) as gateway:
        for kind, sent in REQUESTS.items():
            compiled, web = await answer(gateway, sent), await answer(gateway, HEALTH + sent)
            assert b"100 Continue" not in compiled + web, kind
            codes = {b"400", b"431"} if kind == "a field without a name" else {status(compiled)}
            if kind in ("another coding", "HTTP/1.2"):
                # aiohttp knows only that they are no HTTP.
                codes.add(b"400")
            assert status(web) in codes, (kind, compiled[:200], web[-400:])
            assert status(web) not in (b"200", b"202", b"500"), kind


@pytest.mark.parametrize("revision", ["2025-11-25", "auto"])
async def test_a_gateway_that_is_its_own_server_does_not_list_itself(revision: str) -> None:
    async with nothing() as gateway:
        await gateway.manager.deploy("itself", url=f"{gateway.url}/mcp", protocol_version=revision)
        with pytest.raises(McpManagerError, match="a server of its own"):
            await gateway.manager.call("itself", "tools/list")
