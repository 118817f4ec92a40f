"""An MCP server that records every executed tool call: over stdio, or with ``--fd`` over HTTP on an inherited socket.

Several processes share one ledger file. Each call appends a line with its id, the process id and ``--release`` in a
single write, before it waits for ``--seconds``. So the ledger shows how often and where each call was executed, even if
processes are killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from typing import Any

_REVISION = "2025-11-25"
_TOOLS = [
    {"name": "note", "inputSchema": {"type": "object"}},
    {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
]


class Program:
    """The answers, the same for both transports."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._ledger = os.open(arguments.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._seconds: float = arguments.seconds
        self._release: str = arguments.release

    async def reply_to(self, message: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        match message["method"]:
            case "initialize":
                info = {"name": "noting", "version": self._release}
                reply["result"] = {"protocolVersion": _REVISION, "capabilities": {"tools": {}}, "serverInfo": info}
            case "ping":
                reply["result"] = {}
            case "tools/list":
                reply["result"] = {"tools": _TOOLS}
            case "tools/call":
                reply["result"] = await self._execute(message["params"]["arguments"])
            case method:
                reply["error"] = {"code": -32601, "message": f"Method not found: {method}"}
        return reply

    async def _execute(self, arguments: dict[str, Any]) -> dict[str, Any]:
        os.write(self._ledger, f"{arguments['call']} {os.getpid()} {self._release}\n".encode())
        await asyncio.sleep(self._seconds)
        return {"content": [{"type": "text", "text": arguments["call"]}], "isError": False}


async def serve_stdio(program: Program) -> None:
    """Answer requests in parallel until stdin ends, and then wait for the remaining answers."""
    lines = await _standard_input()

    async def answer(message: dict[str, Any]) -> None:
        reply = await program.reply_to(message)
        os.write(1, json.dumps(reply).encode() + b"\n")

    async with asyncio.TaskGroup() as answers:
        while line := await lines.readline():
            message = json.loads(line)
            if "id" in message and "method" in message:
                answers.create_task(answer(message))


async def serve_http(program: Program, listener: socket.socket) -> None:
    """Answer with JSON on keep-alive connections, with sessions, until stdin ends."""
    sessions: set[str] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                session = fields.get("mcp-session-id", "")
                writer.write(await respond(head[0].split()[0], session, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def respond(verb: str, session: str, body: bytes) -> bytes:
        if verb != "POST":
            sessions.discard(session if verb == "DELETE" else "")
            return _response("200 OK" if verb == "DELETE" else "405 Method Not Allowed")
        message = json.loads(body)
        method = message.get("method")
        if method == "initialize":
            session = os.urandom(8).hex()
            sessions.add(session)
        elif method != "server/discover" and session not in sessions:
            return _response("404 Not Found")
        if "id" not in message or method is None:
            return _response("202 Accepted")
        return _response("200 OK", json.dumps(await program.reply_to(message)).encode(), session)

    server = await asyncio.start_server(converse, sock=listener)
    print("ready", flush=True)
    await (await _standard_input()).read()
    server.close()


def _response(status: str, body: bytes = b"", session: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nMcp-Session-Id: {session}\r\n"
    return head.encode() + b"\r\n" + body


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger")
    parser.add_argument("--fd", type=int, help="a listening socket, to serve HTTP on")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long a call takes")
    parser.add_argument("--release", default="1", help="what it calls its version")
    arguments = parser.parse_args()
    program = Program(arguments)
    if arguments.fd is None:
        await serve_stdio(program)
    else:
        await serve_http(program, socket.socket(fileno=arguments.fd))


if __name__ == "__main__":
    asyncio.run(main())
