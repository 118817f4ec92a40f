"""A demo MCP server over streamable HTTP on loopback; ends when its standard input does, so never outlives its user."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from typing import Any

from aiohttp import web

from mcp_manager.cli.demo_servers._tools import answer, sleep_seconds

__all__ = ["main"]

_SESSION_HEADER = "Mcp-Session-Id"


class _Endpoint:
    def __init__(self) -> None:
        self._sessions: set[str] = set()

    async def post(self, request: web.Request) -> web.Response:
        try:
            message = await request.json()
        except ValueError:
            return _refusal(400, -32700, "Parse error")
        if not isinstance(message, dict):
            return _refusal(400, -32600, "Invalid request")
        headers: dict[str, str] = {}
        if message.get("method") == "initialize":
            headers[_SESSION_HEADER] = secrets.token_hex(16)
            self._sessions.add(headers[_SESSION_HEADER])
        elif request.headers.get(_SESSION_HEADER) not in self._sessions:
            return _refusal(404, -32600, "Session not found")
        await asyncio.sleep(sleep_seconds(message))
        reply = answer(message, "demo-http")
        if reply is None:
            return web.Response(status=202)
        return web.json_response(reply, headers=headers)

    async def delete(self, request: web.Request) -> web.Response:
        self._sessions.discard(request.headers.get(_SESSION_HEADER, ""))
        return web.Response(status=200)


def _refusal(status: int, code: int, text: str) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text}}, status=status)


async def _serve(port: int) -> None:
    endpoint = _Endpoint()
    app = web.Application()
    app.router.add_post("/mcp", endpoint.post)
    app.router.add_delete("/mcp", endpoint.delete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    address: tuple[str, int] = runner.addresses[0]
    print(f"listening on {address[1]}", flush=True)
    try:
        await _input_ended()
    finally:
        await runner.cleanup()


async def _input_ended() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while await reader.read(4096):
            pass
    finally:
        transport.close()


def main(argv: list[str] | None = None) -> int:
    """Serve on loopback until standard input ends; prints ``listening on PORT`` when ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 for any free one (default)")
    options: Any = parser.parse_args(argv)
    try:
        asyncio.run(_serve(options.port))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
