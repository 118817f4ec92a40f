"""An MCP server with large replies: ``heavy.py SIZE stdio|json|events``.

The name of a tool is the kind of its reply, and ``SIZE`` its approximate length in bytes. With ``json`` or ``events``
it serves HTTP and prints its port.
"""

from __future__ import annotations

import http.server
import json
import sys
from typing import Any, Final

_TOOL: Final = b'"result":{"content":[{"type":"text","text":"%b"}]}'
_DATA: Final = b'"result":{"content":[],"structuredContent":{"a":[%b0]}}'
_ERROR: Final = b'"error":{"code":1,"message":"m","data":[%b0]}'
KINDS: Final = {
    "text": (_TOOL, b"x"),
    "escapes": (_TOOL, b"\\n"),
    "wide": (_TOOL, "é".encode()),
    "wider": (_TOOL, "😀".encode()),
    "surrogates": (_TOOL, b"\\ud83d"),
    "objects": (_DATA, b'{"a":1},'),
    "lists": (_DATA, b"[[]],"),
    "numbers": (_DATA, b"1.5e300,"),
    "spaces": (_DATA, b" "),
    "error": (_ERROR, b'{"a":1},'),
    "error text": (b'"error":{"code":1,"message":"%b"}', b"x"),
    "unversioned": (_TOOL, b"x"),
}


def reply_to(message: dict[str, Any], size: int) -> bytes | None:
    """Return the reply to a message, ``None`` if it gets none."""
    method, request_id = message.get("method"), message.get("id")
    if request_id is None:
        return None
    head = b'{"jsonrpc":"2.0","id":%b,' % json.dumps(request_id).encode()
    if method == "initialize":
        told = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "h", "version": "1"},
        }
        return head + b'"result":%b}' % json.dumps(told).encode()
    if method != "tools/call":
        return head + (b'"result":{}}' if method == "ping" else b'"error":{"code":-32601,"message":"unknown"}}')
    kind = message["params"]["name"]
    form, unit = KINDS[kind]
    body = form % (unit * ((size - 200) // len(unit)))
    return (b'{"id":%b,' % json.dumps(request_id).encode() if kind == "unversioned" else head) + body + b"}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = reply_to(message, int(sys.argv[1]))
        if reply is not None and sys.argv[2] == "events":
            reply = b"data: %b\n\n" % reply
        self.send_response(202 if reply is None else 200)
        self.send_header("Content-Type", "text/event-stream" if sys.argv[2] == "events" else "application/json")
        self.send_header("Content-Length", str(len(reply or b"")))
        self.end_headers()
        self.wfile.write(reply or b"")

    def do_GET(self) -> None:
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Write nothing to stderr, which tests read."""


def main() -> None:
    if sys.argv[2] == "stdio":
        for line in sys.stdin.buffer:
            reply = reply_to(json.loads(line), int(sys.argv[1]))
            if reply is not None:
                sys.stdout.buffer.write(reply + b"\n")
                sys.stdout.buffer.flush()
        return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
