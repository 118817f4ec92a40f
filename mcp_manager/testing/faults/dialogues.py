"""What a server says to its client besides the reply: questions, and floods of notifications; and lost sessions."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final, Literal

import msgspec

from mcp_manager.testing.faults.record import JSON, Count, FaultRecord, Rate, needed, reply_to
from mcp_manager.testing.scripted import Connection, Request, encode, event
from mcp_manager.testing.scripted.stateless import meta_of

__all__ = ["ExpireSession", "InputRequired", "ListChangedStorm"]

_QUESTIONS: Final = itertools.count(1)
_TOOLS_CHANGED: Final = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


class ExpireSession(FaultRecord, frozen=True, tag="expire_session"):
    """Forget all sessions, and refuse the request in one of the forms that servers use.

    404 as specified, 400 ("No valid session ID provided"), -32001 (404 with that code of JSON-RPC), or 200 (an error of
    JSON-RPC in a response that looks well).
    """

    form: Literal[404, 400, -32001, 200] = 404

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        connection.server.expire_sessions()
        status, code, text = _LOST[self.form]
        error = {"jsonrpc": "2.0", "id": request.id, "error": {"code": code, "message": text}}
        await connection.respond(status, JSON, encode(error))


_LOST: Final = {
    404: (404, -32600, "Session not found"),
    400: (400, -32000, "Bad Request: No valid session ID provided"),
    -32001: (404, -32001, "Session not found"),
    200: (200, -32001, "Session terminated"),
}


class InputRequired(FaultRecord, frozen=True, tag="input_required"):
    """Ask the client for input before the tool is executed: by ``input_required``, or by an elicitation after a handshake."""

    message: str = "Who?"
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})
    key: str = "input"
    state: str = "state"

    @property
    def question(self) -> dict[str, Any]:
        """The request to the client, without an id."""
        params = {"mode": "form", "message": self.message, "requestedSchema": self.schema}
        return {"method": "elicitation/create", "params": params}

    def result(self) -> dict[str, Any]:
        """Return the result that asks a stateless client."""
        return {"resultType": "input_required", "inputRequests": {self.key: self.question}, "requestState": self.state}

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        if meta_of(request.params) is not None:
            reply = {"jsonrpc": "2.0", "id": request.id, "result": self.result()}
            await connection.respond(200, JSON, encode(reply))
            return
        question_id = f"question-{next(_QUESTIONS)}"

        def is_answered() -> bool:
            return any(each.method is None and each.id == question_id for each in connection.server.requests)

        await connection.open_stream()
        await connection.write_chunk(event({"jsonrpc": "2.0", "id": question_id, **self.question}))
        try:
            await connection.server.wait_until(is_answered)
        except TimeoutError:
            connection.close()
            return
        await connection.write_chunk(event(reply_to(connection, request)))
        await connection.write_chunk(b"")


class ListChangedStorm(FaultRecord, frozen=True, tag="list_changed_storm"):
    """Send ``count`` notifications that the tools have changed, ``rate`` per second, and then the reply."""

    rate: Rate = 1000.0
    count: Count = 100

    @property
    def notification(self) -> dict[str, Any]:
        """The notification."""
        return dict(_TOOLS_CHANGED)

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = reply_to(connection, request)
        await connection.open_stream()
        for _ in range(self.count):
            await connection.write_chunk(event(self.notification))
            await asyncio.sleep(1 / self.rate)
        await connection.write_chunk(event(reply))
        await connection.write_chunk(b"")
