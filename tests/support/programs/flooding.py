"""An MCP server that answers every call and also floods its client: ``flooding.py stdio|http KIND [PIECES]``.

It uses only blocking sockets, so it fills all buffers that it writes to. Over HTTP (and HTTP+SSE, at ``/sse``) it
prints its port. The tool ``count`` returns how many bytes of the flood were accepted so far.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from typing import Any, BinaryIO

BLOCK = 65536
_MESSAGES: dict[str, dict[str, Any]] = {
    "notifications": {"method": "notifications/x", "params": {"n": 1}},
    "logs": {"method": "notifications/message", "params": {"level": "info", "data": "x" * 40}},
    "updates": {"method": "notifications/resources/updated", "params": {"uri": "file:///x"}},
    "changes": {"method": "notifications/tools/list_changed"},
    "progress": {"method": "notifications/progress", "params": {"progressToken": "1", "progress": 1}},
    "pings": {"id": "p", "method": "ping"},
    "samplings": {
        "id": "s",
        "method": "sampling/createMessage",
        "params": {"messages": [], "maxTokens": 1},
    },
    "replies": {"id": 7, "result": {}},
}
# These are not messages.
_RAW = {"comments": b":\n", "blanks": b"\n", "garbage": b"{\n", "bytes": b"x"}
KINDS = (*_MESSAGES, *_RAW)

taken = 0


def line_of(kind: str) -> bytes:
    """Return one message of a flood as a line."""
    if kind in _RAW:
        return _RAW[kind]
    return json.dumps({"jsonrpc": "2.0", **_MESSAGES[kind]}).encode() + b"\n"


def event_of(kind: str) -> bytes:
    """Return one message of a flood as an event."""
    if kind in ("comments", "blanks"):
        return _RAW[kind]
    return b"data: " + line_of(kind).rstrip(b"\n") + b"\n\n"


def result_of(message: dict[str, Any]) -> dict[str, Any] | None:
    """Return the reply to a message, ``None`` if it gets none."""
    if "id" not in message or "method" not in message:
        return None
    result: dict[str, Any] = {}
    match message["method"]:
        case "initialize":
            result = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {"listChanged": True}, "logging": {}, "resources": {"subscribe": True}},
                "serverInfo": {"name": "flooding", "version": "1"},
            }
        case "tools/list":
            schema = {"type": "object"}
            result = {"tools": [{"name": name, "inputSchema": schema} for name in ("echo", "flood", "count")]}
        case "tools/call":
            text = str(taken) if message["params"]["name"] == "count" else "done"
            result = {"content": [{"type": "text", "text": text}]}
        case method:
            error = {"code": -32601, "message": f"Method not found: {method}"}
            return {"jsonrpc": "2.0", "id": message["id"], "error": error}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


class HttpFlood:
    """Serve streamable HTTP, or HTTP+SSE under ``/sse``.

    Parameters
    ----------
    kind
        What fills the GET stream and the reply to the tool ``flood``. ``interim``: interim responses instead of a
        reply. ``closing``: each GET stream is closed after one event.
    pieces
        Bytes per chunk of a stream; 0 for large chunks.
    """

    def __init__(self, kind: str, pieces: int = 0) -> None:
        self.kind = kind
        self.pieces = pieces
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.gets = 0
        # HTTP+SSE: the one stream, the lock for writing to it, and whether the flood has begun.
        self._events: socket.socket | None = None
        self._lock = threading.Lock()
        self._flood_begins = threading.Event()

    def run(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as received:
            try:
                while self._answer(connection, received):
                    pass
            except (OSError, ValueError):
                pass

    def _answer(self, connection: socket.socket, received: BinaryIO) -> bool:
        line = received.readline().decode()
        if not line:
            return False
        verb, path = line.split(" ")[:2]
        length = 0
        while (field := received.readline()) not in (b"\r\n", b""):
            name, _, value = field.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = received.read(length)
        if verb == "GET" and path == "/sse":
            self._stream_with_endpoint(connection)
            return False
        if verb == "GET":
            self._stream(connection, None)
            return False
        message = json.loads(body) if body else {}
        reply = result_of(message)
        if path == "/messages":
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            self._take_message(message, reply)
            return True
        if reply is None:
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            return True
        if message["method"] == "tools/call" and message["params"]["name"] == "flood":
            self._stream(connection, reply)
            return False
        data = json.dumps(reply).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: 1\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(data) + data)
        return True

    def _stream(self, connection: socket.socket, reply: dict[str, Any] | None) -> None:
        """Flood; the reply is sent after 4 MiB."""
        global taken
        if self.kind == "interim":
            block = b"HTTP/1.1 100 Continue\r\n\r\n" * 2000
            while True:
                connection.sendall(block)
                taken += len(block)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.gets += 1
        if self.kind == "closing":
            self._chunk(connection, b"id: %d\nretry: 0\n" % self.gets + event_of("notifications"))
            taken += 1
            connection.sendall(b"0\r\n\r\n")
            return
        one = event_of(self.kind)
        block = one * max(1, BLOCK // len(one))
        if self.pieces:
            block = b"".join(
                b"%x\r\n%b\r\n" % (len(piece), piece)
                for piece in (block[at : at + self.pieces] for at in range(0, len(block), self.pieces))
            )
        sent = 0
        while True:
            if reply is not None and sent >= 4 << 20:
                self._chunk(connection, b"data: " + json.dumps(reply).encode() + b"\n\n")
                reply = None
            if self.pieces:
                connection.sendall(block)
            else:
                self._chunk(connection, block)
            sent += len(block)
            taken += len(block)

    def _stream_with_endpoint(self, connection: socket.socket) -> None:
        global taken
        with self._lock:
            self._events = connection
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            self._chunk(connection, b"event: endpoint\ndata: /messages\n\n")
        self._flood_begins.wait()
        one = event_of(self.kind)
        block = one * max(1, BLOCK // len(one))
        while True:
            with self._lock:
                self._chunk(connection, block)
            taken += len(block)
            # Lets a thread with a reply take the lock.
            time.sleep(0)

    def _take_message(self, message: dict[str, Any], reply: dict[str, Any] | None) -> None:
        if reply is not None:
            with self._lock:
                assert self._events is not None
                self._chunk(self._events, b"data: " + json.dumps(reply).encode() + b"\n\n")
        if message.get("method") == "notifications/initialized":
            self._flood_begins.set()

    def _chunk(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))


def flood_stdio(kind: str) -> None:
    """Serve stdio, and after ``notifications/initialized`` flood stdout, or stderr with the kind ``stderr``."""
    lock = threading.Lock()

    def flood() -> None:
        global taken
        number = 2 if kind == "stderr" else 1
        one = line_of("logs" if kind == "stderr" else kind)
        block = one * max(1, BLOCK // len(one))
        while True:
            left = memoryview(block)
            with lock:
                while left:
                    left = left[os.write(number, left) :]
            taken += len(block)
            # Lets the thread with replies take the lock.
            time.sleep(0)

    started = False
    for line in sys.stdin.buffer:
        message = json.loads(line)
        reply = result_of(message)
        if reply is not None:
            with lock:
                left = memoryview(json.dumps(reply).encode() + b"\n")
                while left:
                    left = left[os.write(1, left) :]
        if message.get("method") == "notifications/initialized" and not started:
            started = True
            threading.Thread(target=flood, daemon=True).start()


def main() -> None:
    kind = sys.argv[2]
    if sys.argv[1] == "stdio":
        flood_stdio(kind)
        return
    server = HttpFlood(kind, int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    print(server.port, flush=True)
    server.run()


if __name__ == "__main__":
    main()
