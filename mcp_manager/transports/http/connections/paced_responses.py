"""aiohttp's side of a connection, fed by budget of the loop: it parses whatever it is given at once."""

from __future__ import annotations

import asyncio
import weakref
from contextvars import ContextVar
from typing import Any, Final, Protocol

from aiohttp import ClientPayloadError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.read_budget import read_budget

__all__ = ["BrokenFramingError", "FloodTaker", "PacedResponses", "flood_taker"]

# Parsed at once; what takes long is fed in ever smaller pieces, what does not in larger ones.
_FIRST_PIECE: Final = 4096
_SMALLEST_PIECE: Final = 512
_LARGEST_PIECE: Final = 1 << 16
_LONG_NS: Final = 100_000
# Bytes in a row that may come and be no body: a head with all interim responses before it, or what is said of a chunk.
_MAX_SILENT: Final = 1 << 17


class BrokenFramingError(ClientPayloadError):
    """A body is not framed as HTTP/1.1 says, or has chunk extensions or trailers without end."""


class FloodTaker(Protocol):
    """Who wants to know of a flood."""

    def flooded(self) -> None:
        """Learn that reading has had to wait for a second."""


flood_taker: ContextVar[FloodTaker | None] = ContextVar("flood_taker", default=None)
"""Who is told of a flood in the response to the request that this context sends."""


class PacedResponses(ResponseHandler):
    """Parse what a server sends as aiohttp does, but no more in a turn of the loop than there is time for.

    Interim responses (RFC 9110, section 15.2) are passed over, and bounded together with the head that they precede. So are
    chunk extensions and trailers (RFC 9112, section 7.1).

    Who sent the request is told where reading has had to wait for a second; see :data:`flood_taker`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._budget = read_budget()
        self._unparsed = b""
        self._at = 0
        self._piece = _FIRST_PIECE
        self._silent = 0
        self._body_size = 0
        self._waits = False
        self._ended: tuple[BaseException | None] | None = None
        # Of the last request; an idle connection must not keep what belongs to a server that is gone.
        self._flood_taker: weakref.ref[FloodTaker] | None = None

    @property
    def should_close(self) -> bool:
        """Whether the connection is no good for another request."""
        return bool(self._unparsed) or super().should_close

    @property
    def _is_behind(self) -> bool:
        return self._waits or bool(self._unparsed)

    def set_response_params(self, **params: Any) -> None:
        """Begin to wait for a response."""
        self._silent = self._body_size = 0
        taker = flood_taker.get()
        self._flood_taker = None if taker is None else weakref.ref(taker)
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parse what came, or what there is time for; nothing came where aiohttp goes on with what it kept itself."""
        if not data:
            super().data_received(data)
            return
        self._unparsed = self._unparsed[self._at :] + data if self._unparsed else data
        self._at = 0
        if not self._waits:
            self._parse()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take a response whose head was parsed."""
        if not 100 <= data[0].code < 200 or data[0].code == 101:
            super().feed_data(data, size)

    def resume_reading(self, *options: Any, **more: Any) -> None:
        """Read on, as aiohttp has room again, unless it is not this one's turn."""
        # asyncio keeps the context in which it is told to read.
        bare_context().run(super().resume_reading, *options, **more)
        if self._unparsed and not self._waits:
            self._parse()
        if self._waits and self.transport is not None:
            self.transport.pause_reading()
        if self._ended is not None and not self._is_behind:
            self.connection_lost(*self._ended)

    def close(self) -> None:
        """Close the connection; of one that has ended, nobody reads the rest any more."""
        super().close()
        if self._ended is not None:
            self.connection_lost(*self._ended)

    def abort(self) -> None:
        """See :meth:`close`."""
        super().abort()
        if self._ended is not None:
            self.connection_lost(*self._ended)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take the end of the connection, after what came before it: a reader that is behind still gets all of it."""
        if self._is_behind and self.transport is not None:
            self._ended = (exc,)
            return
        self._leave()
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Learn what ends the connection; whoever reads a body learns it too, which aiohttp's parser has let go of by then."""
        super().set_exception(exc, *cause)
        payload = self._payload
        if isinstance(exc, HttpProcessingError) and payload is not None and not payload.is_eof():
            payload.set_exception(BrokenFramingError(exc.message))
            # Otherwise the end of the connection would take its place.
            self._payload = None

    def read_on(self) -> None:
        """Go on, in a new turn; see :class:`~mcp_manager.runtime.read_budget.Reader`."""
        self._waits = False
        self._parse()
        if self._waits:
            return
        if self._ended is not None:
            if not self._is_behind:
                self.connection_lost(*self._ended)
        elif self.transport is not None and not self._reading_paused:
            self.transport.resume_reading()

    def flooded(self) -> None:
        """Pass on that the server floods."""
        taker = None if self._flood_taker is None else self._flood_taker()
        if taker is not None:
            taker.flooded()

    def _parse(self) -> None:
        last_ns = self._budget.clock()
        while self._at < len(self._unparsed) and not self._reading_paused:
            if self.transport is None or self.exception() is not None:
                # Nobody wants it any more.
                break
            piece = self._unparsed[self._at : self._at + self._piece]
            self._at += len(piece)
            super().data_received(piece)
            self._bound_silence(len(piece))
            now_ns = self._budget.clock()
            took_ns, last_ns = now_ns - last_ns, now_ns
            if took_ns > _LONG_NS:
                self._piece = max(_SMALLEST_PIECE, self._piece // 2)
            elif len(piece) == self._piece and not self._reading_paused:
                # A smaller piece, or one that aiohttp has kept the rest of, says nothing of larger ones.
                self._piece = min(_LARGEST_PIECE, self._piece * 2)
            if not self._budget.spend(took_ns) and self._at < len(self._unparsed):
                self._wait()
                return
        if not self._reading_paused:
            self._unparsed, self._at = b"", 0

    def _bound_silence(self, size: int) -> None:
        """Count bytes that were parsed, and end the connection where too many in a row brought no body."""
        payload = None if self._payload is None or self._payload.is_eof() else self._payload
        if payload is not None and payload.total_bytes != self._body_size:
            self._silent, self._body_size = 0, payload.total_bytes
            return
        self._silent += size
        if self._silent <= _MAX_SILENT or self.transport is None:
            return
        self.transport.close()
        what = (
            "head is too long, interim responses included"
            if payload is None
            else "chunk extensions or trailers are too long"
        )
        self.set_exception(HttpProcessingError(code=400, message=f"its {what}"))

    def _wait(self) -> None:
        self._waits = True
        if self.transport is not None:
            self.transport.pause_reading()
        self._budget.wait(self)

    def _leave(self) -> None:
        self._waits = False
        self._ended = None
        self._unparsed, self._at = b"", 0
        self._budget.leave(self)
