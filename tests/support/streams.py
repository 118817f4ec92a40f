"""Servers that use streams: the standing GET stream, replies that are resumed, and HTTP+SSE of 2024-11-05."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_manager.testing.scripted import Connection, Fault, Request, ScriptedServer, encode, event

__all__ = [
    "ANY",
    "Batch",
    "Cut",
    "HttpSseServer",
    "OpenStream",
    "Result",
    "ResumedReply",
    "StandingStreams",
    "answers",
    "notification",
    "with_id",
]

_WAIT_S: Final = 10.0
ANY: Final = "notifications/message"
"""The notification that tests send on streams."""


def notification(number: int, method: str = ANY) -> dict[str, Any]:
    """Return a notification with a number as its data."""
    return {"jsonrpc": "2.0", "method": method, "params": {"level": "info", "data": number}}


def with_id(event_id: str, message: object = None, retry_ms: int | None = None) -> bytes:
    """Encode an event with an id; without a message it only tells the client the id to resume from."""
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    data = b"" if message is None else encode(message)
    return b"id: " + event_id.encode() + b"\n" + retry + b"data: " + data + b"\n\n"


def answers(server: ScriptedServer) -> dict[Any, Any]:
    """Return the results that a client has sent to a server, by request id."""
    return {each.message["id"]: each.message["result"] for each in server.requests if "result" in (each.message or {})}


class OpenStream:
    """A stream that a client holds open; usable from any thread."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self.request = request
        self.connection = connection
        self._loop = asyncio.get_running_loop()

    @property
    def last_event_id(self) -> str | None:
        """The event id that the client wants to resume from."""
        return self.request.headers.get("last-event-id")

    def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece as its own chunk."""
        self._run(self._write(pieces))

    def say(self, *messages: object) -> None:
        """Send messages, each as an event without an id."""
        self.send(*(event(message) for message in messages))

    def end(self, *, retry_ms: int | None = None) -> None:
        """End the stream in an orderly way, optionally with a ``retry`` field."""
        self._run(self._end(b"" if retry_ms is None else b"retry: %d\n\n" % retry_ms))

    def reset(self) -> None:
        """Break the connection."""
        self._loop.call_soon_threadsafe(self.connection.reset)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            await self.connection.write_chunk(piece)

    async def _end(self, last: bytes) -> None:
        if last:
            await self.connection.write_chunk(last)
        await self.connection.write_chunk(b"")
        self.connection.close()


@dataclass
class StandingStreams:
    """Answer GET requests with streams that stay open until the test or the client ends them.

    ``first`` is sent on each stream when it opens.
    """

    first: bytes = b""
    opened: list[OpenStream] = field(default_factory=list)

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        # Recorded before the client can see the stream: nothing else runs until the head is written.
        self.opened.append(OpenStream(connection, request))
        await connection.open_stream()
        if self.first:
            await connection.write_chunk(self.first)
        connection.server.news()
        await connection.hang()

    async def wait(self, server: ScriptedServer, count: int = 1) -> OpenStream:
        """Wait until ``count`` streams were opened; return the last of these."""
        await server.wait_until(lambda: len(self.opened) >= count)
        return self.opened[count - 1]


@dataclass(frozen=True)
class Cut:
    """The end of one connection of a stream: after how many bytes, and whether in an orderly way."""

    after: int
    graceful: bool = True


class ResumedReply:
    """A reply after other messages on a resumable stream, of which each connection carries a part.

    It answers both the POST with the request and the GETs that resume after the last event.

    Parameters
    ----------
    cuts
        How the connections without the reply end; the connection after them carries all that is left.
    others
        How many notifications come before the reply.
    retry_ms
        The ``retry`` field of the first event in milliseconds; ``None`` for none.
    """

    def __init__(self, cuts: Sequence[Cut], others: int = 0, retry_ms: int | None = 1) -> None:
        self._cuts = iter(cuts)
        self._others = others
        self._retry_ms = retry_ms
        self._events: list[bytes] = []
        self.asked_from: list[str | None] = []

    @property
    def first_size(self) -> int:
        """The length of the first event, which has only an id."""
        return len(with_id("0", None, self._retry_ms))

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        if request.verb == "POST":
            _, _, reply = connection.server.answer(request)
            messages = [*(notification(number) for number in range(self._others)), reply]
            self._events = [with_id("0", None, self._retry_ms)]
            self._events += [with_id(str(number), message) for number, message in enumerate(messages, 1)]
            rest = b"".join(self._events)
        else:
            last = request.headers.get("last-event-id")
            self.asked_from.append(last)
            rest = b"".join(self._events[int(last or -1) + 1 :])
        await connection.open_stream()
        cut = next(self._cuts, None)
        if cut is None:
            await connection.write_chunk(rest)
            await connection.write_chunk(b"")
            return
        part = rest[: min(cut.after, len(rest) - 1)]
        if part:
            await connection.write_chunk(part)
        if cut.graceful:
            await connection.write_chunk(b"")
            connection.close()
        else:
            connection.reset()


class HttpSseServer(ScriptedServer):
    """Serve MCP over HTTP+SSE: ``/sse`` is the stream, and names the URL for POST requests.

    Parameters
    ----------
    endpoint
        The data of the ``endpoint`` event, with ``{n}`` for the number of the stream; ``None`` for no such event.
    """

    def __init__(self, *, endpoint: str | None = "/messages?session={n}") -> None:
        super().__init__(sessions=False)
        self._endpoint = endpoint
        self._numbers = itertools.count()
        self._open: dict[str, OpenStream] = {}
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/sse"

    @property
    def streams(self) -> list[OpenStream]:
        """All streams that were opened."""
        with self._guard:
            return list(self._open.values())

    def take_fault(self, request: Request) -> Fault | None:
        return super().take_fault(request) or _HttpSse(self)

    async def play_stream(self, connection: Connection, request: Request) -> None:
        """Open a stream and send its ``endpoint`` event."""
        await connection.open_stream(self.cookie_fields(request))
        number = str(next(self._numbers))
        with self._guard:
            self._open[number] = OpenStream(connection, request)
        if self._endpoint is not None:
            where = self._endpoint.format(n=number, port=self.port)
            await connection.write_chunk(b"event: endpoint\ndata: " + where.encode() + b"\n\n")
        self.news()
        await connection.hang()

    async def play_message(self, connection: Connection, request: Request) -> None:
        """Accept a message and answer it on the stream that it belongs to."""
        reply = self.reply_to(request)
        stream = self.stream_of(request)
        if stream is None:
            await connection.respond(404, {}, b"Could not find session")
            return
        if reply is not None:
            await stream.connection.write_chunk(event(reply))
        await connection.respond(202, self.cookie_fields(request), b"Accepted")
        self.news()

    def stream_of(self, request: Request) -> OpenStream | None:
        """Return the stream that a POST belongs to, if it is open."""
        with self._guard:
            stream = self._open.get(request.path.rpartition("session=")[2])
        return stream if stream is not None and stream.connection in self.connections else None

    def reply_to(self, request: Request) -> dict[str, Any] | None:
        """Return the reply to a message, ``None`` if it gets none."""
        if request.method is None or request.id is None:
            return None
        if request.method == "initialize":
            return self._initialize(request)[2] | {"id": request.id}
        return self._result(request)


@dataclass(frozen=True)
class _HttpSse:
    server: HttpSseServer

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        if request.path.startswith("/sse"):
            if request.verb == "GET":
                await self.server.play_stream(connection, request)
            else:
                await connection.respond(405, {"Allow": "GET"})
        elif request.verb == "POST":
            await self.server.play_message(connection, request)
        else:
            await connection.respond(404)


@dataclass(frozen=True)
class Batch:
    """Answer with a batch: the reply between two notifications."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        _, _, reply = connection.server.answer(request)
        batch = json.dumps([notification(0), reply, notification(1)]).encode()
        await connection.respond(200, {"Content-Type": "application/json"}, batch)


@dataclass(frozen=True)
class Result:
    """Answer with a result."""

    result: object

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        reply = encode({"jsonrpc": "2.0", "id": request.id, "result": self.result})
        await connection.respond(200, {"Content-Type": "application/json"}, reply)
