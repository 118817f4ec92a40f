"""Served connections over real sockets: TCP, TLS and unix sockets, on both loops, beside aiohttp.web."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.certificates import make_context
from support.served import post

from mcp_manager._core.serving import ServedRequest, ServingPool
from mcp_manager._core.serving_limits import ServingLimits
from mcp_manager.runtime.deadline_timer import DeadlineTimer
from mcp_manager.runtime.read_budget import read_budget

pytestmark = pytest.mark.both_loops
HALF_OPEN = 10_000


class Endpoint:
    """Answers with the length of the body, later, or with events, as the query says."""

    def __init__(self) -> None:
        self.gone: asyncio.Queue[ServedRequest] = asyncio.Queue()
        self.waiting: asyncio.Queue[ServedRequest] = asyncio.Queue()

    def take(self, request: ServedRequest) -> None:
        request.on_gone = lambda: self.gone.put_nowait(request)
        way = request.target.partition(b"?")[2]
        if way == b"wait":
            self.waiting.put_nowait(request)
        elif way == b"events":
            events = request.open_events(b"X-Test: 1\r\n")
            events.send(b"data: 1\n\n")
            asyncio.get_running_loop().call_soon(events.send, b"data: 2\n\n")
            asyncio.get_running_loop().call_soon(events.end)
        elif way == b"echo":
            request.reply(200, request.body)
        else:
            request.reply(200, b'{"length":%d}' % len(request.body))


async def _web(request: web.Request) -> web.StreamResponse:
    return web.Response(text=f"{request.method} {request.path} {await request.text()}")


@contextlib.asynccontextmanager
async def serving(
    place: Path | None = None, context: ssl.SSLContext | None = None, limits: ServingLimits | None = None
) -> AsyncIterator[tuple[Endpoint, ServingPool, int]]:
    endpoint, timer, app = Endpoint(), DeadlineTimer(), web.Application()
    app.router.add_route("*", "/{path:.*}", _web)
    runner = web.AppRunner(app)
    await runner.setup()
    pool = ServingPool(
        timer.wheel,
        time.monotonic_ns,
        on_request=endpoint.take,
        is_endpoint=lambda path: path == b"/mcp",
        make_web_protocol=lambda: runner.server(),  # type: ignore[misc]
        limits=limits,
        turns=read_budget(),
    )
    loop = asyncio.get_running_loop()
    server: Any
    if place is not None:
        server = await loop.create_unix_server(pool, str(place), ssl=context)
    else:
        server = await loop.create_server(pool, "127.0.0.1", 0, ssl=context, backlog=1024)
    port = 0 if place is not None else server.sockets[0].getsockname()[1]
    try:
        yield endpoint, pool, port
    finally:
        server.close()
        pool.abort()
        await runner.cleanup()
        timer.close()
        await server.wait_closed()
        assert pool.open == 0


@pytest.mark.parametrize("way", ["tcp", "tls", "unix"])
async def test_a_client_is_served_by_both_servers(way: str, tmp_path: Path) -> None:
    context, trusted = make_context(tmp_path) if way == "tls" else (None, None)
    place = tmp_path / "socket" if way == "unix" else None
    async with serving(place, context) as (_, pool, port):
        connector = aiohttp.UnixConnector(str(place)) if place else aiohttp.TCPConnector(limit=1)
        url = "https://127.0.0.1" if way == "tls" else "http://127.0.0.1"
        checks: Any = ssl.create_default_context(cafile=trusted) if way == "tls" else True
        body = bytes(range(256)) * 4_000
        async with aiohttp.ClientSession(connector=connector) as client:

            async def ask(method: str, path: str, data: Any = None) -> bytes:
                async with client.request(method, f"{url}:{port}{path}", data=data, ssl=checks) as response:
                    assert response.status == 200
                    return await response.read()

            async def pieces() -> AsyncIterator[bytes]:
                for at in range(0, len(body), 100_000):
                    yield body[at : at + 100_000]

            assert await ask("POST", "/mcp", b"{}") == b'{"length":2}'
            assert await ask("POST", "/mcp?echo", body) == body
            assert await ask("POST", "/mcp?echo", pieces()) == body
            assert await ask("POST", "/mcp?events", b"{}") == b"data: 1\n\ndata: 2\n\n"
            assert pool.open == 1
            assert pool.requests == 4
            assert await ask("GET", "/mcp") == b"GET /mcp "
            assert pool.open == 0
            assert await ask("POST", "/other", b"here") == b"POST /other here"
            assert await ask("POST", "/mcp", b"[]") in (b'{"length":2}', b"POST /mcp []")


async def test_a_pipeline_ends_at_the_other_server() -> None:
    async with serving() as (endpoint, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(target=b"/mcp?wait") + post(b"[1]") + b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
        request = await endpoint.waiting.get()
        request.reply(200, b"{}")
        assert (await reader.readuntil(b"GET /last ")).count(b"HTTP/1.1 200 OK") == 3
        writer.close()
        await writer.wait_closed()


async def test_an_event_may_be_longer_than_what_may_wait() -> None:
    async with serving(limits=ServingLimits(max_queued=65_536)) as (endpoint, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(target=b"/mcp?wait"))
        request = await endpoint.waiting.get()
        events = request.open_events()
        long = b"data: %b\n\n" % (b"x" * 16_000_000)
        events.send(long)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"\r\n")
        assert await reader.readexactly(len(long)) == long
        # Nobody reads from here on.
        events.send(long)
        events.send(b"data: 3\n\n")
        assert await endpoint.gone.get() is request
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_client_that_closes_is_noticed_once() -> None:
    async with serving() as (endpoint, pool, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(target=b"/mcp?wait"))
        request = await endpoint.waiting.get()
        writer.close()
        assert await endpoint.gone.get() is request
        assert not request.is_open
        assert pool.open == 0
        await writer.wait_closed()
    assert endpoint.gone.empty()


async def test_a_refusal_reaches_a_client_that_still_sends() -> None:
    async with serving(limits=ServingLimits(max_body=1_000)) as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"x" * 5_000_000))
        assert (await reader.readuntil(b"}}}")).startswith(b"HTTP/1.1 413 ")
        assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_client_that_reads_nothing_of_its_events_is_cut_off() -> None:
    async with serving(limits=ServingLimits(max_queued=1_000_000)) as (endpoint, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        writer.write(post(target=b"/mcp?wait"))
        events = (await endpoint.waiting.get()).open_events()
        sent = 0
        while events.is_open:
            events.send(b"data: " + b"x" * 10_000 + b"\n\n")
            sent += 10_000
            assert sent < 100_000_000
            if sent % 100_000 == 0:
                await asyncio.sleep(0)
        await endpoint.gone.get()
        writer.transport.abort()
        del reader


async def test_a_drained_pool_lets_calls_finish() -> None:
    async with serving() as (endpoint, pool, port):
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        idle_writer.write(post())
        await idle_reader.readuntil(b'{"length":2}')
        writer.write(post(target=b"/mcp?wait"))
        request = await endpoint.waiting.get()
        pool.drain()
        assert await idle_reader.read() == b""
        request.reply(200, b"{}")
        assert b"\r\nConnection: close\r\n" in await reader.read()
        assert pool.open == 0
        for each in (writer, idle_writer):
            each.close()
            await each.wait_closed()


@pytest.mark.slow
async def test_thousands_of_half_open_connections_leave_room_for_a_request() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Both ends are in this process.
    count = HALF_OPEN if hard == resource.RLIM_INFINITY else min(HALF_OPEN, (hard - 500) // 2)
    wanted = 2 * count + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        async with serving(limits=ServingLimits(head_s=600)) as (_, pool, port):
            loop = asyncio.get_running_loop()
            halves = []
            for number in range(count):
                transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
                transport.write(post()[: number % 60])
                halves.append(transport)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post())
            await reader.readuntil(b'{"length":2}')
            assert pool.open == count + 1
            writer.close()
            await writer.wait_closed()
            for transport in halves:
                transport.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
