"""Replies that are wrong as JSON-RPC, and results of the test's choice."""

from __future__ import annotations

from typing import Any

from mcp_manager.testing.faults.record import JSON, FaultRecord, StatusCode, needed, reply_to
from mcp_manager.testing.scripted import Connection, Request, encode, event

__all__ = [
    "DuplicateReply",
    "ProtocolVersion",
    "Reply",
    "Result",
    "RpcErrorReply",
    "StringId",
    "TruncatedJson",
    "WrongId",
]


class Reply(FaultRecord, frozen=True, tag="reply"):
    """Answer with HTTP 200 and a given body."""

    body: bytes
    content_type: str = "application/json"

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.respond(200, {"Content-Type": self.content_type}, self.body)


class Result(FaultRecord, frozen=True, tag="result"):
    """Answer with a given result."""

    result: Any

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        reply = {"jsonrpc": "2.0", "id": request.id, "result": self.result}
        await connection.respond(200, JSON, encode(reply))


class TruncatedJson(FaultRecord, frozen=True, tag="truncated_json"):
    """Answer with the first half of the proper reply, in a complete HTTP response."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        body = encode(reply_to(connection, request))
        await connection.respond(200, JSON, body[: len(body) // 2])


class WrongId(FaultRecord, frozen=True, tag="wrong_id"):
    """Answer with the id of no request."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = reply_to(connection, request)
        await connection.respond(200, JSON, encode({**reply, "id": 987_654_321}))


class StringId(FaultRecord, frozen=True, tag="string_id"):
    """Answer with the id as a string: another id by JSON-RPC 2.0, section 5, but a common fault."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = reply_to(connection, request)
        await connection.respond(200, JSON, encode({**reply, "id": str(reply["id"])}))


class DuplicateReply(FaultRecord, frozen=True, tag="duplicate_id"):
    """Answer twice on an event stream, the second time with another result."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = reply_to(connection, request)
        await connection.open_stream()
        await connection.write_chunk(event(reply) + event({**reply, "result": {"second": True}}))
        await connection.write_chunk(b"")


class RpcErrorReply(FaultRecord, frozen=True, tag="rpc_error_reply"):
    """Answer with a JSON-RPC error."""

    code: int
    message: str = "scripted error"
    status: StatusCode = 200

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        error = {"code": self.code, "message": self.message}
        await connection.respond(self.status, JSON, encode({"jsonrpc": "2.0", "id": request.id, "error": error}))


class ProtocolVersion(FaultRecord, frozen=True, tag="protocol_version"):
    """Answer ``initialize`` with a given protocol revision."""

    revision: Any

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        status, headers, reply = connection.server.answer(request)
        assert reply is not None
        reply["result"]["protocolVersion"] = self.revision
        await connection.respond(status, {**headers, **JSON}, encode(reply))
