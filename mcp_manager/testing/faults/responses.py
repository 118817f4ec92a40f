"""Responses that are wrong as HTTP, or more than a client can take."""

from __future__ import annotations

import asyncio
import functools
import gzip
import zlib
from collections.abc import Callable, Mapping

import msgspec

from mcp_manager.testing.faults.record import JSON, Coding, Count, FaultRecord, Size, StatusCode, needed, reply_to
from mcp_manager.testing.scripted import Connection, Request, encode, event, head

__all__ = [
    "BadChunk",
    "Compressed",
    "Dripping",
    "GzipBomb",
    "HalfResponse",
    "InformationalFlood",
    "LengthMismatch",
    "Oversize",
    "Redirect",
    "Status",
]


_CODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}


@functools.lru_cache(maxsize=4)
def _zeros(coding: str, size: int) -> bytes:
    """Compress zero bytes, once for all: it takes longer than some deadlines."""
    return zlib.compress(bytes(size), 1) if coding == "deflate" else gzip.compress(bytes(size), 1)


class Status(FaultRecord, frozen=True, tag="status"):
    """Answer with a status, headers and body."""

    status: StatusCode
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.respond(self.status, self.headers, self.body)


class Redirect(FaultRecord, frozen=True, tag="redirect"):
    """Redirect the client to ``location``."""

    location: str
    status: StatusCode = 307

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.respond(self.status, {"Location": self.location})


class HalfResponse(FaultRecord, frozen=True, tag="half_response"):
    """Send half of a proper JSON response, then close the connection."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        body = encode(reply_to(connection, request))
        await connection.write(head(200, {**JSON, "Content-Length": str(len(body))}) + body[: len(body) // 2])
        connection.close()


class LengthMismatch(FaultRecord, frozen=True, tag="length_mismatch"):
    """Send a ``Content-Length`` that is ``extra`` bytes too large (or small, if negative), and close the connection."""

    extra: int

    async def play(self, connection: Connection, request: Request | None) -> None:
        body = encode(reply_to(connection, request))
        await connection.write(head(200, {**JSON, "Content-Length": str(len(body) + self.extra)}) + body)
        connection.close()


class BadChunk(FaultRecord, frozen=True, tag="bad_chunk"):
    """Send a chunk whose size is not a number."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.write(head(200, {**JSON, "Transfer-Encoding": "chunked"}) + b"not-a-size\r\n{}\r\n0\r\n\r\n")
        connection.close()


class GzipBomb(FaultRecord, frozen=True, tag="gzip_bomb"):
    """Send ``size`` zero bytes, compressed although the client accepts only ``identity``."""

    size: Size = 64 * 2**20
    coding: Coding = "gzip"

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.respond(200, {**JSON, "Content-Encoding": self.coding}, _zeros(self.coding, self.size))


class Compressed(FaultRecord, frozen=True, tag="compressed"):
    """Send the proper reply compressed although the client accepts only ``identity``; truncated with ``cut``."""

    coding: Coding = "gzip"
    sse: bool = False
    cut: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = reply_to(connection, request)
        body = _CODINGS[self.coding.lower()](event(reply) if self.sse else encode(reply))
        content_type = "text/event-stream" if self.sse else "application/json"
        fields = {"Content-Type": content_type, "Content-Encoding": self.coding}
        await connection.respond(200, fields, body[:-9] if self.cut else body)


class InformationalFlood(FaultRecord, frozen=True, tag="informational_flood"):
    """Send ``count`` interim responses (RFC 9110, section 15.2) before a proper answer."""

    count: Count
    status: StatusCode = 103

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        for _ in range(self.count):
            await connection.write(head(self.status, {}))
            # Lets the server detect a client that disconnects in between.
            await asyncio.sleep(0)
        await connection.answer(request)


class Oversize(FaultRecord, frozen=True, tag="oversize"):
    """Answer with a valid reply of about ``size`` bytes, with ``chunked`` in chunks and without a length."""

    size: Size
    chunked: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        result = {"content": [{"type": "text", "text": "x" * self.size}]}
        body = encode({"jsonrpc": "2.0", "id": request.id, "result": result})
        if not self.chunked:
            await connection.respond(200, JSON, body)
            return
        await connection.write(head(200, {**JSON, "Transfer-Encoding": "chunked"}))
        for start in range(0, len(body), 65536):
            await connection.write_chunk(body[start : start + 65536])
        await connection.write_chunk(b"")


class Dripping:
    """Answer with a valid reply of about ``size`` bytes in chunks of ``width`` bytes, with ``sse`` as an event stream.

    The chunks are made beforehand and many are written at once, so that the client does most of the work.
    """

    def __init__(self, size: int, width: int, *, sse: bool = False) -> None:
        self._width = width
        self._sse = sse
        self._padding = self._chunks(b"x" * size)

    def _chunks(self, data: bytes) -> bytes:
        pieces = (data[at : at + self._width] for at in range(0, len(data), self._width))
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        result = {"content": [{"type": "text", "text": "|"}]}
        before, after = encode({"jsonrpc": "2.0", "id": request.id, "result": result}).split(b"|")
        if self._sse:
            await connection.open_stream()
            before, after = b"data: " + before, after + b"\n\n"
        else:
            await connection.write(head(200, {**JSON, "Transfer-Encoding": "chunked"}))
        await connection.write(self._chunks(before))
        for start in range(0, len(self._padding), 65536):
            await connection.write(self._padding[start : start + 65536])
        await connection.write(self._chunks(after))
        await connection.write_chunk(b"")
