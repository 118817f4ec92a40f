"""The servers of the soak test: they record every call that they execute, and fail in ways drawn from a seed.

Over HTTP, one process serves any number of servers under ``/<name>/mcp``. The first word of the name says how a server
behaves: ``steady``, ``faulty`` (one call in ten meets a fault) or ``flood`` (its standing stream never stops sending).
With ``--stdio`` the process is one steady server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

_REVISION: Final = "2025-11-25"
_TOOLS: Final = [{"name": "note", "inputSchema": {"type": "object"}}]
_FAULT_SHARE: Final = 0.1
_LARGE: Final = "x" * 200_000

Handler = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class Ledger:
    """A file that all servers share: one appending write per executed call, so that a kill cannot tear a line."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, call: str) -> None:
        os.write(self._file, f"{call}\n".encode())


def result_of(message: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    """Execute a request and return its reply."""
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    match message["method"]:
        case "initialize":
            info = {"name": "soak", "version": "1"}
            reply["result"] = {"protocolVersion": _REVISION, "capabilities": {"tools": {}}, "serverInfo": info}
        case "ping":
            reply["result"] = {}
        case "tools/list":
            reply["result"] = {"tools": _TOOLS}
        case "tools/call":
            call = message["params"]["arguments"]["call"]
            ledger.note(call)
            content = [{"type": "text", "text": call}]
            if message["params"]["arguments"].get("large"):
                content.append({"type": "text", "text": _LARGE})
            reply["result"] = {"content": content, "isError": False}
        case method:
            reply["error"] = {"code": -32601, "message": f"Method not found: {method}"}
    return reply


class HttpServers:
    """All servers of one process."""

    def __init__(self, ledger: Ledger, chance: random.Random) -> None:
        self._ledger = ledger
        self._chance = chance
        self._sessions: set[str] = set()
        self._before: list[Handler] = [self._reset, self._unavailable, self._too_many, self._forgotten, self._silent]
        self._after: list[Handler] = [
            self._reset,
            self._cut_json,
            self._cut_stream,
            self._not_json,
            self._other_id,
            self._server_error,
        ]
        self._forms: list[Handler] = [self._json, self._json, self._json, self._stream, self._drops]

    async def post(self, request: web.Request) -> web.StreamResponse:
        message = await request.json()
        if message.get("method") == "initialize":
            session = uuid.UUID(int=self._chance.getrandbits(128)).hex
            self._sessions.add(session)
            return web.json_response(result_of(message, self._ledger), headers={"Mcp-Session-Id": session})
        if request.headers.get("Mcp-Session-Id") not in self._sessions:
            return web.Response(status=404)
        if "id" not in message or "method" not in message:
            return web.Response(status=202)
        if message["method"] != "tools/call" or not request.match_info["name"].startswith("faulty"):
            return await self._json(request, result_of(message, self._ledger))
        if self._chance.random() >= _FAULT_SHARE:
            return await self._chance.choice(self._forms)(request, result_of(message, self._ledger))
        if self._chance.random() < 0.5:
            return await self._chance.choice(self._before)(request, {})
        return await self._chance.choice(self._after)(request, result_of(message, self._ledger))

    async def get(self, request: web.Request) -> web.StreamResponse:
        if not request.match_info["name"].startswith("flood"):
            return web.Response(status=405)
        stream = await self._begin_stream(request)
        text = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        )
        burst = f"data: {text}\n\n".encode() * 100
        while True:
            await stream.write(burst)

    async def delete(self, request: web.Request) -> web.Response:
        self._sessions.discard(request.headers.get("Mcp-Session-Id", ""))
        return web.Response(status=200)

    # Forms of a correct reply

    async def _json(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(reply)

    async def _stream(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        stream = await self._begin_stream(request)
        await stream.write(f"event: message\ndata: {json.dumps(reply)}\n\n".encode())
        return stream

    async def _drops(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        body = json.dumps(reply).encode()
        for at in range(0, len(body), max(1, len(body) // 50)):
            await response.write(body[at : at + max(1, len(body) // 50)])
        return response

    async def _begin_stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        return stream

    # Faults

    async def _reset(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _unavailable(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "1"})

    async def _too_many(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "0"})

    async def _forgotten(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        self._sessions.discard(request.headers.get("Mcp-Session-Id", ""))
        return web.Response(status=404)

    async def _silent(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(30.0)
        return web.Response(status=504)

    async def _cut_json(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=json.dumps(reply).encode()[:-10], content_type="application/json")

    async def _cut_stream(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        stream = await self._begin_stream(request)
        await stream.write(f"data: {json.dumps(reply)[:-10]}".encode())
        return await self._reset(request, reply)

    async def _not_json(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text="<html>welcome</html>", content_type="text/html")

    async def _other_id(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({**reply, "id": "nobody asked this"})

    async def _server_error(self, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=500, text="Traceback (most recent call last): …")


def serve_stdio(ledger: Ledger) -> None:
    """Answer line by line until stdin ends."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message and "method" in message:
            os.write(1, json.dumps(result_of(message, ledger)).encode() + b"\n")


def end_with_parent() -> None:
    """End this process when its parent has ended, which closes the pipe."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stdio", action="store_true")
    options = parser.parse_args()
    ledger = Ledger(options.ledger)
    if options.stdio:
        serve_stdio(ledger)
        return
    threading.Thread(target=end_with_parent, daemon=True).start()
    # aiohttp logs an error when a flooded client closes its stream.
    logging.disable()
    servers = HttpServers(ledger, random.Random(options.seed))
    app = web.Application()
    app.router.add_post("/{name}/mcp", servers.post)
    app.router.add_get("/{name}/mcp", servers.get)
    app.router.add_delete("/{name}/mcp", servers.delete)
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None, reuse_address=True)


if __name__ == "__main__":
    main()
