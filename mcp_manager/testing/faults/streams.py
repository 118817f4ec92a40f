"""Event streams that break, or do not end."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from mcp_manager.testing.faults.record import FaultRecord, reply_to
from mcp_manager.testing.scripted import Connection, Request, event

__all__ = ["CutShort", "SseByteByByte", "SseComments", "SseEvents", "SseNeverEnds", "SseTruncated"]


class SseEvents(FaultRecord, frozen=True, tag="sse_events"):
    """Send messages and raw bytes on an event stream, then the proper reply, and end the stream."""

    before: tuple[Any, ...] = ()

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        for each in self.before:
            await connection.write_chunk(each if isinstance(each, bytes) else event(each))
        await connection.write_chunk(event(reply_to(connection, request)))
        await connection.write_chunk(b"")


class SseNeverEnds(FaultRecord, frozen=True, tag="sse_never_ends"):
    """Open an event stream, send the proper reply ``with_reply``, and keep it open until the client disconnects."""

    with_reply: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        if self.with_reply:
            await connection.write_chunk(event(reply_to(connection, request)))
        await connection.hang()


class SseComments(FaultRecord, frozen=True, tag="sse_comments"):
    """Send only comments on an event stream, until the client disconnects."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        for number in itertools.count():
            await connection.write_chunk(b": still here %d\n\n" % number)
            await asyncio.sleep(0.01)


class SseTruncated(FaultRecord, frozen=True, tag="sse_truncated"):
    """End an event stream in the middle of the reply; the HTTP response is complete unless ``cut``."""

    cut: bool = False

    async def play(self, connection: Connection, request: Request | None) -> None:
        whole = event(reply_to(connection, request))
        await connection.open_stream()
        await connection.write_chunk(whole[: len(whole) // 2])
        if self.cut:
            connection.close()
        else:
            await connection.write_chunk(b"")


class SseByteByByte(FaultRecord, frozen=True, tag="sse_byte_by_byte"):
    """Send the proper reply as an event stream with one byte per chunk, CRLF line ends and a comment before it."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        whole = b"\xef\xbb\xbf: a comment\r\nid: 1\r\nretry: 10\r\n" + event(reply_to(connection, request)).replace(
            b"\n", b"\r\n"
        )
        await connection.open_stream()
        for byte in whole:
            await connection.write_chunk(bytes([byte]))
        await connection.write_chunk(b"")


class CutShort(FaultRecord, frozen=True, tag="cut_short"):
    """Send the head of an event stream and close the connection."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        connection.close()
