"""The measured gateways, each a process of its own: ``python -m benchmarks.gateways.subjects NAME BACKEND``.

A process prints its URL as a line of JSON, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from benchmarks.gateways.secured import SECURED, serving

__all__ = ["COMPARED", "SUBJECTS", "missing"]

_REQUEST = b'{"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}'
_NEEDS = {"fastmcp proxy": "fastmcp"}


def missing(name: str) -> str | None:
    """Return why a subject cannot be measured; ``None`` if it can."""
    needed = _NEEDS.get(name)
    return f"{needed} is not installed" if needed is not None and importlib.util.find_spec(needed) is None else None


def _tell(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def execute_raw(backend: str) -> None:
    """Make calls by ``execute_raw`` itself: a line on standard input has their number and how many are in flight."""
    from mcp_manager.manager import McpManager  # noqa: PLC0415 - each process loads only what it measures

    async with McpManager({"servers": {"bench": {"url": backend}}}) as manager:
        await manager.execute_raw("bench", _REQUEST)
        reader = await _lines()
        _tell(url="")
        while line := await reader.readline():
            command = json.loads(line)
            calls, in_flight = command["calls"], command["in_flight"]
            latencies: list[float] = []

            async def work(count: int, latencies: list[float] = latencies) -> None:
                for _ in range(count):
                    began = time.perf_counter()
                    await manager.execute_raw("bench", _REQUEST)
                    latencies.append(time.perf_counter() - began)

            cpu, wall = time.process_time(), time.perf_counter()
            await asyncio.gather(*(work(calls // in_flight) for _ in range(in_flight)))
            _tell(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall, latencies=latencies)


async def gateway(backend: str) -> None:
    """``Gateway``, one server behind it."""
    from mcp_manager.gateway.gateway import Gateway  # noqa: PLC0415 - as above

    server = {"servers": {"bench": {"url": backend}}}
    async with Gateway(server, serve={"listen": "127.0.0.1:0"}) as serving:
        await serving.manager.execute_raw("bench", _REQUEST)
        _tell(url=f"{serving.url}/servers/bench/mcp")
        await (await _lines()).read()


async def secured_gateway(parts: str, backend: str) -> None:
    """``Gateway`` with some of what makes it secure; see :mod:`benchmarks.gateways.secured`."""
    async with serving(parts, backend, _REQUEST) as (url, authorization):
        _tell(url=url, authorization=authorization)
        await (await _lines()).read()


async def large_gateway(tools: str) -> None:
    """``Gateway``, and a server that has many tools."""
    from mcp_manager.gateway.gateway import Gateway  # noqa: PLC0415 - as above
    from mcp_manager.testing import FaultyServer, Tool  # noqa: PLC0415 - as above

    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    tool = Tool(description="Returns a text that is as long as such texts are.", input_schema=schema)
    with FaultyServer("handshake", {f"tool_{number}": tool for number in range(int(tools))}) as server:
        fleet = {"servers": {"bench": {"url": server.url}}}
        async with Gateway(fleet, serve={"listen": "127.0.0.1:0", "page_size": int(tools)}) as serving:
            _tell(url=f"{serving.url}/mcp")
            await (await _lines()).read()


class _Relay(asyncio.Protocol):
    """One side of a connection that is passed on."""

    def __init__(self, other: _Relay | None = None) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # that of a TCP connection can write
        for data in self.early:
            transport.write(data)  # type: ignore[attr-defined]

    def send(self, data: bytes) -> None:
        if self.transport is None:
            self.early.append(data)
        else:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.send(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def relay(backend: str) -> None:
    """Pass bytes on, and look at none: what the additional hop costs by itself."""
    loop, opening = asyncio.get_running_loop(), set[asyncio.Task[Any]]()
    parts = urlsplit(backend)
    host, port = parts.hostname or "", parts.port or 80

    def accepted() -> _Relay:
        client = _Relay()
        client.other = _Relay(client)
        task = loop.create_task(loop.create_connection(lambda: client.other or _Relay(), host, port))
        opening.add(task)
        task.add_done_callback(opening.discard)
        return client

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    _tell(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{parts.path}")
    await (await _lines()).read()
    server.close()


async def plain_proxy(backend: str) -> None:
    """A reverse proxy of aiohttp that knows nothing of MCP."""
    import aiohttp  # noqa: PLC0415 - as above
    from aiohttp import web  # noqa: PLC0415 - as above

    async with aiohttp.ClientSession(auto_decompress=False) as client:
        kept = ("Content-Type", "Mcp-Session-Id", "MCP-Protocol-Version", "Accept")

        async def forward(request: web.Request) -> web.Response:
            headers = {name: request.headers[name] for name in kept if name in request.headers}
            async with client.post(backend, data=await request.read(), headers=headers) as reply:
                fields = {name: reply.headers[name] for name in kept if name in reply.headers}
                return web.Response(status=reply.status, body=await reply.read(), headers=fields)

        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/mcp", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _tell(url=f"http://127.0.0.1:{runner.addresses[0][1]}/mcp")
        await (await _lines()).read()
        await runner.cleanup()


async def fastmcp_proxy(backend: str) -> None:
    """The proxy of FastMCP, with one shared client."""
    import socket  # noqa: PLC0415 - as above

    from fastmcp import Client  # noqa: PLC0415 - as above
    from fastmcp.server import create_proxy  # noqa: PLC0415 - as above

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Client(backend) as client:
        proxy = create_proxy(client, name="proxy")
        task = asyncio.ensure_future(
            proxy.run_http_async(host="127.0.0.1", port=port, show_banner=False, log_level="error")
        )
        await _listening(port)
        _tell(url=f"http://127.0.0.1:{port}/mcp")
        await (await _lines()).read()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


SUBJECTS: dict[str, Callable[[str], Awaitable[None]]] = {
    "execute_raw": execute_raw,
    "gateway": gateway,
    "large gateway": large_gateway,
    **{f"gateway: {parts}": partial(secured_gateway, parts) for parts in SECURED},
    "relay": relay,
    "aiohttp proxy": plain_proxy,
    "fastmcp proxy": fastmcp_proxy,
}

COMPARED = ("execute_raw", "relay", "gateway", "aiohttp proxy", "fastmcp proxy")


def main() -> None:
    """Serve until standard input ends."""
    name, backend, loop, core = sys.argv[1:5]
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    logging.disable(logging.CRITICAL)
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - an option

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(SUBJECTS[name](backend))  # type: ignore[arg-type]  # each subject is a coroutine function


if __name__ == "__main__":
    main()
