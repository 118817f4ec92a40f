"""One connection of a client: HTTP/1.1 with keep-alive, and what faults use to break it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

__all__ = ["Connection", "Fault", "Host", "Request", "Unplayable", "encode", "event", "head"]

_REASONS: Final = {200: "OK", 202: "Accepted", 204: "No Content", 400: "Bad Request", 404: "Not Found"}


class Unplayable(ValueError):
    """A fault cannot be played for a request, which is then answered correctly."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request as it arrived.

    ``verb`` is the HTTP method, ``method`` the JSON-RPC method or ``None``. ``number`` is the number of the request and
    ``connection`` that of its connection, both counted from 0 for each server. Header names are in lower case.
    """

    number: int
    connection: int
    verb: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    message: Any
    version: str = "HTTP/1.1"

    @property
    def is_last(self) -> bool:
        """Whether the client sends no other request on the connection, and may wait for its end."""
        options = {option.strip() for option in self.headers.get("connection", "").lower().split(",")}
        return "close" in options or (self.version == "HTTP/1.0" and "keep-alive" not in options)

    @property
    def method(self) -> str | None:
        method = self.message.get("method") if isinstance(self.message, dict) else None
        return method if isinstance(method, str) else None

    @property
    def id(self) -> Any:
        return self.message.get("id") if isinstance(self.message, dict) else None

    @property
    def params(self) -> Any:
        return self.message.get("params") if isinstance(self.message, dict) else None


class Fault(Protocol):
    """What a server does instead of answering correctly; see :mod:`mcp_manager.testing.faults`."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        """Play the fault; ``request`` is ``None`` on a new connection from which nothing was read yet."""


class Host(Protocol):
    """What a connection needs of its server."""

    sse: bool

    def answer(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        """Return the status, headers and JSON-RPC reply of a correct answer."""

    def cookie_fields(self, request: Request) -> dict[str, str]:
        """Return the header field that sets a cookie in the answer."""

    def begin_session(self) -> str:
        """Create a session and return its id."""

    def expire_sessions(self) -> None:
        """Forget all sessions."""

    @property
    def requests(self) -> list[Request]:
        """All requests so far."""

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; raises ``TimeoutError`` after a while."""

    def connected(self, connection: Connection) -> Fault | None:
        """Record a connection; return the fault to play before reading, or ``None``."""

    def disconnected(self, connection: Connection) -> None:
        """Record that a connection is closed."""

    def control(self, request: Request) -> tuple[int, bytes] | None:
        """Return the status and JSON of a request that controls the server; ``None`` for any other request."""

    def record(self, request: Request) -> Request:
        """Record a request and return it with its number."""

    async def before(self, request: Request) -> None:
        """Wait before a request is answered."""

    def take_fault(self, request: Request) -> Fault | None:
        """Return the fault to play for a request; ``None`` to answer correctly."""

    def news(self) -> None:
        """Report a change to whoever waits for one."""


class Connection(asyncio.Protocol):
    """One connection of a client, HTTP/1.1 with keep-alive, and the operations that faults use to break it."""

    def __init__(self, server: Host, number: int) -> None:
        self.server = server
        self.number = number
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self.server.disconnected(self)

    # Operations for faults

    async def write(self, data: bytes) -> None:
        """Send raw bytes."""
        assert self._transport is not None
        await self._writable.wait()
        if self._transport.is_closing():
            await self.hang()
        self._transport.write(data)

    async def respond(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", *, reason: str = ""
    ) -> None:
        """Send a whole HTTP response with ``Content-Length``."""
        fields = {**(headers or {}), "Content-Length": str(len(body))}
        if status == 204:
            del fields["Content-Length"]
        await self.write(head(status, fields, reason) + body)

    async def open_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of a chunked event stream."""
        fields = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **(headers or {})}
        await self.write(head(200, fields))

    async def write_chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; an empty one ends it."""
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def answer(self, request: Request) -> None:
        """Answer correctly."""
        status, headers, reply = self.server.answer(request)
        headers = {**headers, **self.server.cookie_fields(request)}
        if reply is None:
            await self.respond(status, headers)
        elif self.server.sse and status == 200:
            await self.open_stream(headers)
            await self.write_chunk(event(reply))
            await self.write_chunk(b"")
        else:
            await self.respond(status, {**headers, "Content-Type": "application/json"}, encode(reply))
        self.server.news()

    def reset(self) -> None:
        """Close with a TCP reset (RFC 9293, section 3.5.2: SO_LINGER 0)."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        """Close in an orderly way after everything written is sent."""
        assert self._transport is not None
        self._transport.close()

    def end_writing(self) -> None:
        """Close only the server's direction of the connection."""
        assert self._transport is not None
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    async def hang(self) -> None:
        """Do nothing until the client disconnects, which cancels this."""
        await asyncio.Event().wait()

    async def _serve(self) -> None:
        fault = self.server.connected(self)
        if fault is not None:
            with contextlib.suppress(Unplayable):
                await fault.play(self, None)
        assert self._transport is not None
        while not self._transport.is_closing():
            try:
                request = await self._read_request()
            except ValueError:
                await self.respond(400)
                self.close()
                return
            try:
                await self._respond_to(request)
            except Exception:
                # It is reported as an error of the loop; the client need not wait for what will never come.
                self.reset()
                raise
            if request.is_last:
                self.close()
            # Nothing may keep an answered request in memory.
            del request

    async def _respond_to(self, request: Request) -> None:
        controlled = self.server.control(request)
        if controlled is not None:
            status, body = controlled
            await self.respond(status, {"Content-Type": "application/json"}, body)
            return
        request = self.server.record(request)
        await self.server.before(request)
        fault = self.server.take_fault(request)
        try:
            await (self.answer(request) if fault is None else fault.play(self, request))
        except Unplayable:
            await self.answer(request)

    async def _read_request(self) -> Request:
        raw_head = (await self._read_until(b"\r\n\r\n")).decode("latin-1")
        start, *lines = raw_head.rstrip("\r\n").split("\r\n")
        verb, path, version = start.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = await self._read_chunks()
        else:
            length = headers.get("content-length", "0")
            if not (length.isascii() and length.isdigit()):
                raise ValueError(f"{length} is no length")
            body = await self._read_exactly(int(length))
        try:
            message = json.loads(body) if body else None
        except (ValueError, RecursionError):
            message = None
        return Request(
            number=-1,
            connection=self.number,
            verb=verb,
            path=path,
            headers=headers,
            body=body,
            message=message,
            version=version,
        )

    async def _read_chunks(self) -> bytes:
        chunks = []
        while size := int((await self._read_until(b"\r\n")).partition(b";")[0], 16):
            chunks.append(await self._read_exactly(size))
            await self._read_exactly(2)
        while await self._read_until(b"\r\n") != b"\r\n":
            pass
        return b"".join(chunks)

    async def _read_until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            await self._more()
        return self._take(end + len(mark))

    async def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    async def _more(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def head(status: int, fields: Mapping[str, str], reason: str = "") -> bytes:
    """Encode the head of an HTTP response."""
    lines = [f"HTTP/1.1 {status} {reason or _REASONS.get(status, 'Scripted')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def encode(message: object) -> bytes:
    """Encode a JSON-RPC message."""
    return json.dumps(message).encode()


def event(message: object) -> bytes:
    """Encode a JSON-RPC message as one server-sent event."""
    return b"event: message\ndata: " + encode(message) + b"\n\n"
