"""Requests that aiohttp.web has read, and event streams over it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

__all__ = ["EVENT_FIELDS", "WebEventStream", "WebRequest"]

EVENT_FIELDS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
# A client that reads this much too slowly is given up.
_MOST_QUEUED: Final = 4 * 1024 * 1024


class WebEventStream:
    """An event stream over aiohttp.web; see :class:`~mcp_manager.gateway.channels.EventStream`.

    Parameters
    ----------
    fields
        Further header fields.
    """

    def __init__(self, fields: CIMultiDict[str] | None = None) -> None:
        self.on_gone: Callable[[], None] | None = None
        self._fields = CIMultiDict(EVENT_FIELDS) if fields is None else CIMultiDict({**EVENT_FIELDS, **fields})
        self._pieces: deque[bytes] = deque()
        self._queued = 0
        self._is_ended = False
        self._is_gone = False
        self._news = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether the client still reads."""
        return not self._is_ended and not self._is_gone

    def send(self, events: bytes) -> None:
        """Send events; a client that is more than 4 MiB behind is given up."""
        if self.is_open:
            self._pieces.append(events)
            self._queued += len(events)
            if self._queued > _MOST_QUEUED and len(self._pieces) > 1:
                self.give_up()
            self._news.set()

    def end(self) -> None:
        """End the response."""
        self._is_ended = True
        self._news.set()

    def give_up(self) -> None:
        """Take note that the client is gone, or close its connection. Idempotent."""
        if self.is_open:
            self._is_gone = True
            if self._transport is not None:
                # It may be waiting for the client to read.
                self._transport.abort()
            called, self.on_gone = self.on_gone, None
            if called is not None:
                called()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send what comes until the end; called by the handler of the request, which is cancelled if the client goes."""
        response = web.StreamResponse(headers=self._fields)
        if self._is_gone:
            if request.transport is not None:
                request.transport.abort()
            return response
        self._transport = request.transport
        try:
            await response.prepare(request)
            while True:
                while self._pieces:
                    piece = self._pieces.popleft()
                    await response.write(piece)
                    self._queued -= len(piece)
                if self._is_gone:
                    break
                if self._is_ended:
                    await response.write_eof()
                    break
                self._news.clear()
                await self._news.wait()
        except ConnectionError:
            # The client is gone, which is no fault of this program.
            self.give_up()
        except asyncio.CancelledError:
            self.give_up()
            raise
        finally:
            self._transport = None
        return response


class WebRequest:
    """A request to an endpoint that aiohttp.web has read; see :class:`~mcp_manager.gateway.channels.Incoming`."""

    def __init__(self, request: web.Request, body: bytes) -> None:
        self._request = request
        self._answer: asyncio.Future[web.Response | WebEventStream] = asyncio.get_running_loop().create_future()
        self.on_gone: Callable[[], None] | None = None
        self.method: str = request.method
        self.body: bytes = body
        self.path: str = request.raw_path.partition("?")[0]

    @property
    def peer(self) -> object:
        """The address of the client, as sockets name it; ``None`` once it is gone."""
        transport = self._request.transport
        return None if transport is None else transport.get_extra_info("peername")

    def header(self, name: bytes) -> bytes | None:
        """Return a header field."""
        values = self._request.headers.getall(name.decode("ascii"), ())
        return ", ".join(values).encode("utf-8", "surrogateescape") if values else None

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return all header fields."""
        return list(self._request.raw_headers)

    def reply(self, status: int, body: bytes, fields: bytes = b"") -> None:
        """Send the whole response."""
        if not self._answer.done():
            headers = parsed(fields)
            if body:
                headers.setdefault("Content-Type", "application/json")
            self._answer.set_result(web.Response(status=status, body=body, headers=headers))

    def open_events(self, fields: bytes = b"") -> WebEventStream:
        """Begin an event stream."""
        stream = WebEventStream(parsed(fields))
        if self._answer.done():
            stream.give_up()
        else:
            self._answer.set_result(stream)
        return stream

    async def serve(self) -> web.StreamResponse:
        """Return the response when it comes; called by the handler, which is cancelled if the client goes."""
        try:
            answer = await self._answer
        except asyncio.CancelledError:
            called, self.on_gone = self.on_gone, None
            if self._answer.done() and not self._answer.cancelled():
                answer = self._answer.result()
                if isinstance(answer, WebEventStream):
                    answer.give_up()
            elif called is not None:
                called()
            raise
        return await answer.serve(self._request) if isinstance(answer, WebEventStream) else answer


def parsed(fields: bytes) -> CIMultiDict[str]:
    """Return header fields that are given as complete lines."""
    lines = fields.decode("utf-8", "surrogateescape").split("\r\n")
    return CIMultiDict((name, value) for name, _, value in (line.partition(": ") for line in lines) if name)
