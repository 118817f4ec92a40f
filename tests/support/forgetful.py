"""Servers that lose their sessions, and all the ways in which real servers report that."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from support.streams import HttpSseServer

from mcp_manager.testing.scripted import Connection, Fault, Request, ScriptedServer, encode, event

__all__ = ["PROVEN", "UNPROVEN", "ForgetfulServer", "ForgetfulSseServer", "Refused"]


@dataclass(frozen=True)
class Refused:
    """Refuse a message with a status and body, or with a JSON-RPC error in a 200 or on an event stream.

    ``named`` tells whether the error carries the request's id.
    """

    status: int = 200
    code: int | None = None
    text: str = ""
    content_type: str = "application/json"
    named: bool = False
    streamed: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        if self.streamed and request.id is not None:
            await connection.open_stream()
            await connection.write_chunk(event(self._error(request)))
            await connection.write_chunk(b"")
        else:
            headers = {"Content-Type": self.content_type} if self.content_type else {}
            await connection.respond(self.status, headers, self._body(request))
        connection.server.news()

    def _body(self, request: Request) -> bytes:
        return self.text.encode() if self.code is None else encode(self._error(request))

    def _error(self, request: Request) -> dict[str, Any]:
        error = {"code": self.code, "message": self.text}
        return {"jsonrpc": "2.0", "id": request.id if self.named else None, "error": error}


PROVEN: Final[Mapping[str, Refused]] = {
    "404 as specified": Refused(404, -32001, "Session not found"),
    "404 named": Refused(404, -32001, "Session not found", named=True),
    "404 empty": Refused(404, content_type=""),
    "404 HTML": Refused(404, None, "<html><title>404 Not Found</title></html>", "text/html"),
    "400 of the TypeScript SDK": Refused(400, -32000, "Bad Request: Server not initialized"),
    "400 of its examples": Refused(400, -32000, "Bad Request: No valid session ID provided"),
    "400 named, of another code": Refused(400, 1000, "who are you?", named=True),
    "400 text": Refused(400, None, "Invalid session", "text/plain"),
    "400 HTML": Refused(400, None, "<h1>Bad Request</h1>", "text/html"),
    "400 JSON": Refused(400, None, json.dumps({"detail": "unknown client"})),
    "401 without a challenge": Refused(401, None, "invalid session", "text/plain"),
    "402": Refused(402),
    "405": Refused(405),
    "406": Refused(406, None, json.dumps({"error": "Not Acceptable"})),
    "409": Refused(409, -32000, "Conflict"),
    "410": Refused(410, None, "Gone", "text/plain"),
    "412": Refused(412),
    "422": Refused(422, None, json.dumps({"detail": [{"msg": "session"}]})),
    "440": Refused(440, None, "Login Time-out", "text/plain"),
    "200 -32001": Refused(200, -32001, "Session not found", named=True),
    "200 -32000": Refused(200, -32000, "Server not initialized", named=True),
    "200 -32002": Refused(200, -32002, "Not initialised", named=True),
    "200 -32600": Refused(200, -32600, "Invalid Request", named=True),
    "200 -32602 of the Python SDK": Refused(200, -32602, "Invalid request parameters", named=True),
    "200 -32700": Refused(200, -32700, "Parse error", named=True),
    "200 -32001 without an id": Refused(200, -32001, "Session not found"),
    "a stream with -32001": Refused(200, -32001, "Session not found", named=True, streamed=True),
}
"""Refusals that prove that the request was not executed, once the session is known to be lost."""

UNPROVEN: Final[Mapping[str, Refused]] = {
    "200 -32603": Refused(200, -32603, "Internal error", named=True),
    "200 -32000 of a gateway": Refused(200, -32000, "Connection closed", named=True),
    "200 -32001 of a gateway": Refused(200, -32001, "Request timed out", named=True),
    "200 HTML": Refused(200, None, "<html><title>Sign in</title></html>", "text/html"),
    "200 JSON": Refused(200, None, json.dumps({"error": "session expired"})),
    "202": Refused(202, content_type=""),
}
"""Refusals after which the request may still have been executed."""


class ForgetfulServer(ScriptedServer):
    """Refuse requests of a lost session with ``form``; ``calls`` counts the tool calls of each live session."""

    def __init__(self, form: Refused, *, sse: bool = False) -> None:
        super().__init__(sse=sse)
        self.form = form
        self.calls: Counter[str] = Counter()

    def take_fault(self, request: Request) -> Fault | None:
        fault = super().take_fault(request)
        if fault is not None or request.method in ("initialize", "server/discover") or request.verb == "DELETE":
            return fault
        session_id = request.headers.get("mcp-session-id")
        if session_id is not None and session_id not in self.live_sessions:
            return self.form
        if session_id is not None and request.method == "tools/call":
            self.calls[session_id] += 1
        return None


class ForgetfulSseServer(HttpSseServer):
    """Refuse messages for streams that were opened before :meth:`forget`; the streams stay open."""

    def __init__(self, form: Refused) -> None:
        super().__init__()
        self.form = form
        self.known_from = 0

    def forget(self) -> None:
        """Lose all sessions but leave their streams open."""
        self.known_from = len(self.streams)

    def take_fault(self, request: Request) -> Fault | None:
        if request.verb == "POST" and "session=" in request.path:
            if int(request.path.rpartition("session=")[2]) < self.known_from:
                return self.form
        return super().take_fault(request)
