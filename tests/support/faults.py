"""The faults that a :class:`support.scripted.ScriptedServer` plays instead of a proper answer."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.scripted import Connection, Request, encode, event, head

__all__ = [
    "Answer",
    "BadChunk",
    "Bytes",
    "Close",
    "Compressed",
    "CutShort",
    "Dripping",
    "DuplicateReply",
    "GzipBomb",
    "HalfResponse",
    "Hold",
    "InformationalFlood",
    "LastAnswer",
    "LengthMismatch",
    "Moods",
    "NeverEndingHead",
    "Oversize",
    "ProtocolVersion",
    "Redirect",
    "Reply",
    "Reset",
    "Result",
    "RpcErrorReply",
    "SilentLastAnswer",
    "SseByteByByte",
    "SseComments",
    "SseEvents",
    "SseNeverEnds",
    "SseTruncated",
    "StaleReplies",
    "Status",
    "StringId",
    "TruncatedJson",
    "WrongId",
]

_JSON = {"Content-Type": "application/json"}
_CODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}


@dataclass(frozen=True)
class Answer:
    """Answer properly, between the faults of a script."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        await connection.answer(request)


# The connection


@dataclass(frozen=True)
class LastAnswer:
    """Answer properly with ``Connection: close``, and close the connection."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        body = encode(_reply(connection, request))
        await connection.respond(200, {**_JSON, "Connection": "close"}, body)
        connection.close()


@dataclass(frozen=True)
class SilentLastAnswer:
    """Answer properly and end the connection without ``Connection: close`` (RFC 9112, section 9.5).

    ``reset`` ends it with a TCP reset; ``half`` closes only the server's direction, and reads nothing more.
    """

    reset: bool = False
    half: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        await connection.answer(request)
        if self.half:
            connection.end_writing()
            await connection.hang()
        elif self.reset:
            connection.reset()
        else:
            connection.close()


@dataclass(frozen=True)
class Reset:
    """Read the request and reset the connection without an answer."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        connection.reset()


@dataclass(frozen=True)
class Close:
    """Close the connection without an answer."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        connection.close()


@dataclass(frozen=True)
class Bytes:
    """Send raw bytes and close the connection."""

    data: bytes = b"\x00\xff\xfe not HTTP at all \r\n\r\n"

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.write(self.data)
        connection.close()


@dataclass
class Hold:
    """Hold the request until :meth:`release` and then answer it properly; otherwise until the client disconnects."""

    _released: threading.Event = field(default_factory=threading.Event)
    _held: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        await self.wait()
        await connection.answer(request)

    async def wait(self) -> None:
        """Wait for the release."""
        gate = asyncio.Event()
        self._held.append((asyncio.get_running_loop(), gate))
        if not self._released.is_set():
            await gate.wait()

    def release(self) -> None:
        """Release all held requests; later ones are answered at once."""
        self._released.set()
        for loop, gate in list(self._held):
            loop.call_soon_threadsafe(gate.set)


@dataclass(frozen=True)
class NeverEndingHead:
    """Send an endless response head slowly, until the client disconnects."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: ")
        while True:
            await connection.write(b"s")
            await asyncio.sleep(0.02)


# HTTP


@dataclass(frozen=True)
class Status:
    """Answer with a status, headers and body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.respond(self.status, self.headers, self.body)


@dataclass(frozen=True)
class Redirect:
    """Redirect the client to ``location``."""

    location: str
    status: int = 307

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.respond(self.status, {"Location": self.location})


@dataclass(frozen=True)
class HalfResponse:
    """Send half of a proper JSON response, then close the connection."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        body = encode(_reply(connection, request))
        await connection.write(head(200, {**_JSON, "Content-Length": str(len(body))}) + body[: len(body) // 2])
        connection.close()


@dataclass(frozen=True)
class LengthMismatch:
    """Send a ``Content-Length`` that is ``extra`` bytes too large (or small, if negative), and close the connection."""

    extra: int

    async def play(self, connection: Connection, request: Request | None) -> None:
        body = encode(_reply(connection, request))
        await connection.write(head(200, {**_JSON, "Content-Length": str(len(body) + self.extra)}) + body)
        connection.close()


@dataclass(frozen=True)
class BadChunk:
    """Send a chunk whose size is not a number."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.write(head(200, {**_JSON, "Transfer-Encoding": "chunked"}) + b"not-a-size\r\n{}\r\n0\r\n\r\n")
        connection.close()


@dataclass(frozen=True)
class GzipBomb:
    """Send ``size`` zero bytes, compressed although the client accepts only ``identity``."""

    size: int = 64 * 2**20
    coding: str = "gzip"

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.respond(
            200, {**_JSON, "Content-Encoding": self.coding}, _CODINGS[self.coding](bytes(self.size))
        )


@dataclass(frozen=True)
class Compressed:
    """Send the proper reply compressed although the client accepts only ``identity``; truncated with ``cut``."""

    coding: str = "gzip"
    sse: bool = False
    cut: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = _reply(connection, request)
        body = _CODINGS[self.coding.lower()](event(reply) if self.sse else encode(reply))
        content_type = "text/event-stream" if self.sse else "application/json"
        fields = {"Content-Type": content_type, "Content-Encoding": self.coding}
        await connection.respond(200, fields, body[:-9] if self.cut else body)


@dataclass(frozen=True)
class InformationalFlood:
    """Send ``count`` interim responses (RFC 9110, section 15.2) before a proper answer."""

    count: int
    status: int = 103

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        for _ in range(self.count):
            await connection.write(head(self.status, {}))
            # Lets the server detect a client that disconnects in between.
            await asyncio.sleep(0)
        await connection.answer(request)


@dataclass(frozen=True)
class Oversize:
    """Answer with a valid reply of about ``size`` bytes, with ``chunked`` in chunks and without a length."""

    size: int
    chunked: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        result = {"content": [{"type": "text", "text": "x" * self.size}]}
        body = encode({"jsonrpc": "2.0", "id": request.id, "result": result})
        if not self.chunked:
            await connection.respond(200, _JSON, body)
            return
        await connection.write(head(200, {**_JSON, "Transfer-Encoding": "chunked"}))
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
        assert request is not None
        result = {"content": [{"type": "text", "text": "|"}]}
        before, after = encode({"jsonrpc": "2.0", "id": request.id, "result": result}).split(b"|")
        if self._sse:
            await connection.open_stream()
            before, after = b"data: " + before, after + b"\n\n"
        else:
            await connection.write(head(200, {**_JSON, "Transfer-Encoding": "chunked"}))
        await connection.write(self._chunks(before))
        for start in range(0, len(self._padding), 65536):
            await connection.write(self._padding[start : start + 65536])
        await connection.write(self._chunks(after))
        await connection.write_chunk(b"")


# JSON-RPC


@dataclass(frozen=True)
class Reply:
    """Answer with HTTP 200 and a given body."""

    body: bytes
    content_type: str = "application/json"

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.respond(200, {"Content-Type": self.content_type}, self.body)


@dataclass(frozen=True)
class Result:
    """Answer with a given result."""

    result: Any

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        reply = {"jsonrpc": "2.0", "id": request.id, "result": self.result}
        await connection.respond(200, _JSON, encode(reply))


@dataclass(frozen=True)
class TruncatedJson:
    """Answer with the first half of the proper reply, in a complete HTTP response."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        body = encode(_reply(connection, request))
        await connection.respond(200, _JSON, body[: len(body) // 2])


@dataclass(frozen=True)
class WrongId:
    """Answer with the id of no request."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = _reply(connection, request)
        await connection.respond(200, _JSON, encode({**reply, "id": 987_654_321}))


@dataclass(frozen=True)
class StringId:
    """Answer with the id as a string: another id by JSON-RPC 2.0, section 5, but a common fault."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = _reply(connection, request)
        await connection.respond(200, _JSON, encode({**reply, "id": str(reply["id"])}))


@dataclass(frozen=True)
class DuplicateReply:
    """Answer twice on an event stream, the second time with another result."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        reply = _reply(connection, request)
        await connection.open_stream()
        await connection.write_chunk(event(reply) + event({**reply, "result": {"second": True}}))
        await connection.write_chunk(b"")


@dataclass(frozen=True)
class RpcErrorReply:
    """Answer with a JSON-RPC error."""

    code: int
    message: str = "scripted error"
    status: int = 200

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        error = {"code": self.code, "message": self.message}
        await connection.respond(self.status, _JSON, encode({"jsonrpc": "2.0", "id": request.id, "error": error}))


@dataclass(frozen=True)
class ProtocolVersion:
    """Answer ``initialize`` with a given protocol revision."""

    revision: Any

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        status, headers, reply = connection.server.answer(request)
        assert reply is not None
        reply["result"]["protocolVersion"] = self.revision
        await connection.respond(status, {**headers, **_JSON}, encode(reply))


# Event streams


@dataclass(frozen=True)
class SseEvents:
    """Send messages and raw bytes on an event stream, then the proper reply, and end the stream."""

    before: tuple[Any, ...] = ()

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        for each in self.before:
            await connection.write_chunk(each if isinstance(each, bytes) else event(each))
        await connection.write_chunk(event(_reply(connection, request)))
        await connection.write_chunk(b"")


@dataclass(frozen=True)
class SseNeverEnds:
    """Open an event stream, send the proper reply ``with_reply``, and keep it open until the client disconnects."""

    with_reply: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        if self.with_reply:
            await connection.write_chunk(event(_reply(connection, request)))
        await connection.hang()


@dataclass(frozen=True)
class SseComments:
    """Send only comments on an event stream, until the client disconnects."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        for number in itertools.count():
            await connection.write_chunk(b": still here %d\n\n" % number)
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class SseTruncated:
    """End an event stream in the middle of the reply; the HTTP response is complete unless ``cut``."""

    cut: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        whole = event(_reply(connection, request))
        await connection.open_stream()
        await connection.write_chunk(whole[: len(whole) // 2])
        if self.cut:
            connection.close()
        else:
            await connection.write_chunk(b"")


@dataclass(frozen=True)
class SseByteByByte:
    """Send the proper reply as an event stream with one byte per chunk, CRLF line ends and a comment before it."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        whole = b"\xef\xbb\xbf: a comment\r\nid: 1\r\nretry: 10\r\n" + event(_reply(connection, request)).replace(
            b"\n", b"\r\n"
        )
        await connection.open_stream()
        for byte in whole:
            await connection.write_chunk(bytes([byte]))
        await connection.write_chunk(b"")


@dataclass(frozen=True)
class CutShort:
    """Send the head of an event stream and close the connection."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        connection.close()


# Load


class StaleReplies:
    """Answer each request of a connection with the reply to the previous one; the first gets its own."""

    def __init__(self) -> None:
        self._before: dict[int, Request] = {}

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        before = self._before.get(connection.number)
        self._before[connection.number] = request
        await connection.answer(before or request)


class Moods:
    """Answer at random from a seed: at once or late, in one piece or many, on a stream, or not at all."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.answered_twice = 0
        self._moods = {
            self._whole: 30,
            self._in_pieces: 15,
            self._in_chunks: 15,
            self._streamed: 15,
            self._streamed_with_a_late_end: 10,
            self._streamed_without_an_end: 0.5,
            self._last: 5,
            self._twice: 3,
            self._reset: 2,
            self._reset_after_executing: 3,
        }

    async def play(self, connection: Connection, request: Request | None) -> None:
        [mood] = self._random.choices(list(self._moods), list(self._moods.values()))
        if self._random.random() < 0.5:
            await self._pause()
        await mood(connection, request)

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.random() * 0.004)

    async def _whole(self, connection: Connection, request: Request | None) -> None:
        body = encode(_reply(connection, request))
        await connection.respond(200, _JSON, body)

    async def _in_pieces(self, connection: Connection, request: Request | None) -> None:
        body = encode(_reply(connection, request))
        whole = head(200, {**_JSON, "Content-Length": str(len(body))}) + body
        place = self._random.randrange(1, len(whole))
        await connection.write(whole[:place])
        await self._pause()
        await connection.write(whole[place:])

    async def _in_chunks(self, connection: Connection, request: Request | None) -> None:
        body = encode(_reply(connection, request))
        place = self._random.randrange(1, len(body))
        await connection.write(head(200, {**_JSON, "Transfer-Encoding": "chunked"}))
        await connection.write_chunk(body[:place])
        await self._pause()
        await connection.write_chunk(body[place:])
        await connection.write_chunk(b"")

    async def _streamed(self, connection: Connection, request: Request | None) -> None:
        await SseEvents((b": hello\n\n",)).play(connection, request)

    async def _streamed_with_a_late_end(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        await connection.write_chunk(event(_reply(connection, request)))
        await self._pause()
        await connection.write_chunk(b"")

    async def _streamed_without_an_end(self, connection: Connection, request: Request | None) -> None:
        await SseNeverEnds(with_reply=True).play(connection, request)

    async def _last(self, connection: Connection, request: Request | None) -> None:
        await LastAnswer().play(connection, request)

    async def _twice(self, connection: Connection, request: Request | None) -> None:
        body = encode(_reply(connection, request))
        whole = head(200, {**_JSON, "Content-Length": str(len(body))}) + body
        self.answered_twice += 1
        await connection.write(whole + whole)

    async def _reset(self, connection: Connection, request: Request | None) -> None:
        connection.reset()

    async def _reset_after_executing(self, connection: Connection, request: Request | None) -> None:
        _reply(connection, request)
        connection.reset()


def _reply(connection: Connection, request: Request | None) -> dict[str, Any]:
    assert request is not None
    status, _, reply = connection.server.answer(request)
    assert status == 200 and reply is not None, "this fault needs a request with a proper reply"
    return reply
