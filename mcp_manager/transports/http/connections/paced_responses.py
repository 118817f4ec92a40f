"""Feeds aiohttp's response parser within the read budget: aiohttp itself parses all that it is given at once."""

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

# The size of what is parsed at once, halved when parsing takes long and doubled when it does not.
_FIRST_PIECE: Final = 4096
_SMALLEST_PIECE: Final = 512
_LARGEST_PIECE: Final = 1 << 16
_LONG_NS: Final = 100_000
# The most bytes in a row without any body: a head with all interim responses before it, chunk extensions, or trailers.
_MAX_SILENT: Final = 1 << 17


class BrokenFramingError(ClientPayloadError):
    """A body is not framed as HTTP/1.1 demands, or its chunk extensions or trailers are too long."""


class FloodTaker(Protocol):
    """Is notified of floods."""

    def flooded(self) -> None:
        """Note that reading has had to wait for a second."""


flood_taker: ContextVar[FloodTaker | None] = ContextVar("flood_taker", default=None)
"""Who is notified of a flood in the response to the request that is sent in this context."""


class PacedResponses(ResponseHandler):
    """Parse responses as aiohttp does, but no more in a time slice than the read budget allows.

    Interim responses (RFC 9110, section 15.2) are skipped; their length is bounded together with the head that follows.
    The length of chunk extensions and trailers (RFC 9112, section 7.1) is bounded, too. The :data:`flood_taker` of the
    request is notified when reading has had to wait for a second.
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
        # Weak: an idle connection must not keep objects of a removed server alive.
        self._flood_taker: weakref.ref[FloodTaker] | None = None

    @property
    def should_close(self) -> bool:
        """Whether the connection cannot carry another request."""
        return bool(self._unparsed) or super().should_close

    @property
    def _is_behind(self) -> bool:
        return self._waits or bool(self._unparsed)

    def set_response_params(self, **params: Any) -> None:
        """Start waiting for a response."""
        self._silent = self._body_size = 0
        taker = flood_taker.get()
        self._flood_taker = None if taker is None else weakref.ref(taker)
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes as far as the budget allows; aiohttp passes ``b""`` to go on with what it has kept."""
        if not data:
            super().data_received(data)
            return
        self._unparsed = self._unparsed[self._at :] + data if self._unparsed else data
        self._at = 0
        if not self._waits:
            self._parse()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take a response whose head was parsed, unless it is an interim one."""
        if not 100 <= data[0].code < 200 or data[0].code == 101:
            super().feed_data(data, size)

    def resume_reading(self, *options: Any, **more: Any) -> None:
        """Read on, as aiohttp has room again, unless this connection waits for a time slice."""
        # asyncio keeps the context in which reading resumes.
        bare_context().run(super().resume_reading, *options, **more)
        if self._unparsed and not self._waits:
            self._parse()
        if self._waits and self.transport is not None:
            self.transport.pause_reading()
        if self._ended is not None and not self._is_behind:
            self.connection_lost(*self._ended)

    def close(self) -> None:
        """Close the connection; if it has ended, the unread rest is dropped."""
        super().close()
        if self._ended is not None:
            self.connection_lost(*self._ended)

    def abort(self) -> None:
        """See :meth:`close`."""
        super().abort()
        if self._ended is not None:
            self.connection_lost(*self._ended)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note the end of the connection, and report it only when everything before it is parsed."""
        if self._is_behind and self.transport is not None:
            self._ended = (exc,)
            return
        self._leave()
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Pass on the error, also to the reader of a body, which aiohttp's parser has dropped by then."""
        super().set_exception(exc, *cause)
        payload = self._payload
        if isinstance(exc, HttpProcessingError) and payload is not None and not payload.is_eof():
            payload.set_exception(BrokenFramingError(exc.message))
            # Otherwise the end of the connection would replace this error.
            self._payload = None

    def read_on(self) -> None:
        """Go on in a new time slice; see :class:`~mcp_manager.runtime.read_budget.Reader`."""
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
        """Notify the flood taker."""
        taker = None if self._flood_taker is None else self._flood_taker()
        if taker is not None:
            taker.flooded()

    def _parse(self) -> None:
        last_ns = self._budget.clock()
        while self._at < len(self._unparsed) and not self._reading_paused:
            if self.transport is None or self.exception() is not None:
                # Closed, or failed.
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
                # Only a full piece that aiohttp has parsed to its end shows that a larger one may be fast enough.
                self._piece = min(_LARGEST_PIECE, self._piece * 2)
            if not self._budget.spend(took_ns) and self._at < len(self._unparsed):
                self._wait()
                return
        if not self._reading_paused:
            self._unparsed, self._at = b"", 0

    def _bound_silence(self, size: int) -> None:
        """Count parsed bytes, and close the connection if too many in a row had no body in them."""
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
