"""Servers under load: answers of others, and moods."""

from __future__ import annotations

import asyncio
import random

from mcp_manager.testing.faults.connections import LastAnswer
from mcp_manager.testing.faults.record import JSON, needed, reply_to
from mcp_manager.testing.faults.streams import SseEvents, SseNeverEnds
from mcp_manager.testing.scripted import Connection, Request, encode, event, head

__all__ = ["Moods", "StaleReplies"]


class StaleReplies:
    """Answer each request of a connection with the reply to the previous one; the first gets its own."""

    def __init__(self) -> None:
        self._before: dict[int, Request] = {}

    async def play(self, connection: Connection, request: Request | None) -> None:
        request = needed(request)
        before = self._before.get(connection.number)
        self._before[connection.number] = request
        await connection.answer(before or request)


class Moods:
    """Answer at random from a seed: at once or late, in one piece or many, on a stream, or not at all."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.answered_twice: int = 0
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
        body = encode(reply_to(connection, request))
        await connection.respond(200, JSON, body)

    async def _in_pieces(self, connection: Connection, request: Request | None) -> None:
        body = encode(reply_to(connection, request))
        whole = head(200, {**JSON, "Content-Length": str(len(body))}) + body
        place = self._random.randrange(1, len(whole))
        await connection.write(whole[:place])
        await self._pause()
        await connection.write(whole[place:])

    async def _in_chunks(self, connection: Connection, request: Request | None) -> None:
        body = encode(reply_to(connection, request))
        place = self._random.randrange(1, len(body))
        await connection.write(head(200, {**JSON, "Transfer-Encoding": "chunked"}))
        await connection.write_chunk(body[:place])
        await self._pause()
        await connection.write_chunk(body[place:])
        await connection.write_chunk(b"")

    async def _streamed(self, connection: Connection, request: Request | None) -> None:
        await SseEvents((b": hello\n\n",)).play(connection, request)

    async def _streamed_with_a_late_end(self, connection: Connection, request: Request | None) -> None:
        await connection.open_stream()
        await connection.write_chunk(event(reply_to(connection, request)))
        await self._pause()
        await connection.write_chunk(b"")

    async def _streamed_without_an_end(self, connection: Connection, request: Request | None) -> None:
        await SseNeverEnds(with_reply=True).play(connection, request)

    async def _last(self, connection: Connection, request: Request | None) -> None:
        await LastAnswer().play(connection, request)

    async def _twice(self, connection: Connection, request: Request | None) -> None:
        body = encode(reply_to(connection, request))
        whole = head(200, {**JSON, "Content-Length": str(len(body))}) + body
        self.answered_twice += 1
        await connection.write(whole + whole)

    async def _reset(self, connection: Connection, request: Request | None) -> None:
        connection.reset()

    async def _reset_after_executing(self, connection: Connection, request: Request | None) -> None:
        reply_to(connection, request)
        connection.reset()
