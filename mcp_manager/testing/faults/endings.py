"""Answers that break off, stall, or never come, each at a point that the test chooses."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from mcp_manager.testing.faults.record import JSON, FaultRecord, Seconds, reply_to
from mcp_manager.testing.scripted import Connection, Request, encode, event, head

__all__ = ["AcceptedWithoutAnswer", "Point", "Reset", "Stall", "TruncateStream"]

Point = Literal["request", "execution", "headers", "half"]
"""When a fault begins: the request is read and not executed; it is executed and nothing is sent; the head of the response is
sent; half of its body is sent, too."""


class Reset(FaultRecord, frozen=True, tag="reset"):
    """Reset the connection, at the given point. On a new connection: at once."""

    after: Point = "request"

    async def play(self, connection: Connection, request: Request | None) -> None:
        if request is not None:
            await _advance(connection, request, self.after)
        connection.reset()


class Stall(FaultRecord, frozen=True, tag="stall"):
    """Send nothing from a point on, for ``s`` seconds, and then the rest; ``None`` for ever."""

    after: Point = "request"
    s: Seconds | None = None

    async def play(self, connection: Connection, request: Request | None) -> None:
        if request is None:
            await _pause(connection, self.s)
            return
        rest = await _advance(connection, request, self.after)
        await _pause(connection, self.s)
        if rest is None:
            await connection.answer(request)
        else:
            await connection.write(rest)


class TruncateStream(FaultRecord, frozen=True, tag="truncate_stream"):
    """Execute the request, send half of the reply, and close the connection in an orderly way."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        if request is not None:
            await _advance(connection, request, "half")
        connection.close()


class AcceptedWithoutAnswer(FaultRecord, frozen=True, tag="accepted_without_answer"):
    """Execute the request, and say ``202 Accepted`` without a reply; a program says nothing."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply_to(connection, request)
        await connection.respond(202)


async def _advance(connection: Connection, request: Request, point: Point) -> bytes | None:
    """Answer up to a point; return what is left to send, ``None`` if the request was not executed."""
    if point == "request":
        return None
    first, body = _response(connection, reply_to(connection, request))
    match point:
        case "execution":
            return first + body
        case "headers":
            await connection.write(first)
            return body
        case "half":
            await connection.write(first + body[: len(body) // 2])
            return body[len(body) // 2 :]


def _response(connection: Connection, reply: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return the head and the body of the proper response."""
    if not connection.server.sse:
        body = encode(reply)
        return head(200, {**JSON, "Content-Length": str(len(body))}), body
    data = event(reply)
    fields = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
    # In two chunks, so that a client gets the first half of the event at once.
    chunks = [data[: len(data) // 2], data[len(data) // 2 :], b""]
    return head(200, fields), b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


async def _pause(connection: Connection, seconds: float | None) -> None:
    await (connection.hang() if seconds is None else asyncio.sleep(seconds))
