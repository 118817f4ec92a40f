"""A demo MCP server over streamable HTTP on loopback; it ends at the end of its standard input."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from aiohttp import web

from mcp_manager.cli.demo_servers._tools import REVISIONS, answer, error_reply, sleep_seconds

__all__ = ["main"]

_HOST = "127.0.0.1"
_SESSION_HEADER = "Mcp-Session-Id"
_REVISION_HEADER = "MCP-Protocol-Version"
_INVALID_REQUEST = -32600
_PARSE_ERROR = -32700


class _Endpoint:
    """The rules of streamable HTTP (2025-11-25, basic/transports) with JSON replies."""

    def __init__(self) -> None:
        self._sessions: set[str] = set()

    async def post(self, request: web.Request) -> web.Response:
        try:
            message = json.loads(await request.read())
        except (ValueError, RecursionError):
            return _refusal(400, "Parse error", _PARSE_ERROR)
        if not isinstance(message, dict):
            return _refusal(400, "Invalid request: expected one object")
        headers: dict[str, str] = {}
        if message.get("method") != "initialize":
            refusal = self._check_session(request)
            if refusal is not None:
                return refusal
        await asyncio.sleep(sleep_seconds(message))
        reply = answer(message, "demo-http")
        if reply is None:
            return web.Response(status=202)
        if message.get("method") == "initialize" and "result" in reply:
            headers[_SESSION_HEADER] = secrets.token_hex(16)
            self._sessions.add(headers[_SESSION_HEADER])
        return web.json_response(reply, headers=headers)

    async def delete(self, request: web.Request) -> web.Response:
        refusal = self._check_session(request)
        if refusal is None:
            self._sessions.discard(request.headers[_SESSION_HEADER])
        return refusal or web.Response(status=204)

    def _check_session(self, request: web.Request) -> web.Response | None:
        revision = request.headers.get(_REVISION_HEADER, REVISIONS[0])
        if revision not in REVISIONS:
            return _refusal(400, f"Unsupported protocol version, use one of {', '.join(REVISIONS)}")
        session = request.headers.get(_SESSION_HEADER)
        if session is None:
            return _refusal(400, f"{_SESSION_HEADER} is missing: initialize first")
        return None if session in self._sessions else _refusal(404, "Session not found")


@web.middleware
async def _refuse_foreign_origin(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Keep a web page from reaching this server through a name that resolves to loopback."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).hostname not in (_HOST, "localhost"):
        return _refusal(403, "Foreign origin")
    return await handler(request)


def _refusal(status: int, text: str, code: int = _INVALID_REQUEST) -> web.Response:
    return web.json_response(error_reply(None, code, text), status=status)


async def _serve(port: int) -> None:
    endpoint = _Endpoint()
    app = web.Application(middlewares=[_refuse_foreign_origin])
    app.router.add_post("/mcp", endpoint.post)
    app.router.add_delete("/mcp", endpoint.delete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, _HOST, port).start()
        stopped = _stop_with_input()
        print(f"listening on http://{_HOST}:{runner.addresses[0][1]}/mcp", flush=True)
        await stopped.wait()
    finally:
        await runner.cleanup()


def _stop_with_input() -> asyncio.Event:
    """Return an event that is set at the end of standard input, or by SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def read_to_the_end() -> None:
        # Not sys.stdin: a thread that blocks in it holds its lock, which the interpreter needs at exit.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stopped.set)

    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    threading.Thread(target=read_to_the_end, name="end of input", daemon=True).start()
    return stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on loopback until standard input ends; prints ``listening on URL`` when ready."""
    parser = argparse.ArgumentParser(prog="http_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: 0, any free port")
    options = parser.parse_args(argv)
    try:
        asyncio.run(_serve(options.port))
    except KeyboardInterrupt:
        return 130
    except (OSError, OverflowError) as error:
        print(f"http_server: cannot listen on port {options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
