"""How a connection ends, or does not."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

from mcp_manager.testing.faults.record import JSON, FaultRecord, needed, reply_to
from mcp_manager.testing.scripted import Connection, Request, encode

__all__ = ["Answer", "Bytes", "Close", "Hold", "LastAnswer", "NeverEndingHead", "SilentLastAnswer"]


class Answer(FaultRecord, frozen=True, tag="answer"):
    """Answer properly, between the faults of a script."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        await connection.answer(request)


class LastAnswer(FaultRecord, frozen=True, tag="last_answer"):
    """Answer properly with ``Connection: close``, and close the connection."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        body = encode(reply_to(connection, request))
        await connection.respond(200, {**JSON, "Connection": "close"}, body)
        connection.close()


class SilentLastAnswer(FaultRecord, frozen=True, tag="silent_last_answer"):
    """Answer properly and end the connection without ``Connection: close`` (RFC 9112, section 9.5).

    ``reset`` ends it with a TCP reset; ``half`` closes only the server's direction, and reads nothing more.
    """

    reset: bool = False
    half: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        await connection.answer(request)
        if self.half:
            connection.end_writing()
            await connection.hang()
        elif self.reset:
            connection.reset()
        else:
            connection.close()


class Close(FaultRecord, frozen=True, tag="close"):
    """Close the connection without an answer."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        connection.close()


class Bytes(FaultRecord, frozen=True, tag="bytes"):
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
        request = needed(request)
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


class NeverEndingHead(FaultRecord, frozen=True, tag="never_ending_head"):
    """Send an endless response head slowly, until the client disconnects."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: ")
        while True:
            await connection.write(b"s")
            await asyncio.sleep(0.02)
