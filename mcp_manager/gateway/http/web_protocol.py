"""The connections that aiohttp.web serves: limits and refusals as those of the compiled code, nothing about the software."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from mcp_manager._core.serving_limits import ServingLimits
from mcp_manager.gateway.http import refusals
from mcp_manager.protocol.error_codes import INVALID_REQUEST

__all__ = ["WebProtocol", "expected", "serving", "unsigned"]

_BAD_REQUEST: Final = refusals.refusal(INVALID_REQUEST, "The HTTP request is malformed")
_LONG_HEAD: Final = refusals.refusal(INVALID_REQUEST, "The header fields are longer than this server accepts")
_OTHER_CODING: Final = refusals.refusal(INVALID_REQUEST, "The only transfer coding that is known is chunked")
_OTHER_EXPECTATION: Final = refusals.refusal(INVALID_REQUEST, "The only expectation that can be met is 100-continue")
_OTHER_VERSION: Final = refusals.refusal(INVALID_REQUEST, "The version of HTTP is neither 1.0 nor 1.1")
_TOO_SLOW: Final = refusals.refusal(INVALID_REQUEST, "The request took too long to arrive")
_OLDEST: Final = (1, 0)
_LATEST: Final = (1, 1)
_TIMED_OUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b"
)

_LIMITS: Final = ServingLimits()
_HEAD_S: Final = _LIMITS.head_ns / 1e9
_BODY_S: Final = _LIMITS.body_ns / 1e9
_IDLE_S: Final = _LIMITS.idle_ns / 1e9
_WRITE_S: Final = _LIMITS.write_ns / 1e9
_LONGEST_HEAD: Final = 16 * 1024
# Bytes that may come before the first request of them begins to be served: more than event loops read in a row.
_MOST_UNSERVED: Final = 4 * 1024 * 1024


class WebProtocol(web.RequestHandler):
    """Serve a connection by aiohttp.web.

    aiohttp logs what a client does wrong with a traceback, and quotes it in a text. Both are for programs under
    development. It waits for a request as long as the client likes, so :meth:`look` ends that. Bodies are taken as they
    come: nobody needs compressed ones, and a short one can become a long one.

    Parameters
    ----------
    server
        Where aiohttp.web keeps its connections.

    Attributes
    ----------
    has_response
        Whether the response to the request that is being served has begun.
    """

    __slots__ = ("_arrived", "_begins_at", "_has_part", "_paused", "_serving", "_unsent", "has_response")

    def __init__(self, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            # None turns it off, which the types of aiohttp do not say.
            access_log=None,  # type: ignore[arg-type]
            max_line_size=_LONGEST_HEAD,
            max_field_size=_LONGEST_HEAD,
            auto_decompress=False,
        )
        self._serving: web.Request | None = None
        self._begins_at = time.monotonic()
        """Since when the client is waited for: for a request, for the rest of one, or until it reads."""
        self._has_part = False
        """Whether a part of a request has come."""
        self._arrived = 0
        self._paused = False
        self._unsent = 0
        self.has_response: bool = False

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._serving is None:
            if not self._has_part:
                self._has_part = True
                self._begins_at = time.monotonic()
            self._arrived += len(data)
            if self._arrived > _MOST_UNSERVED and self.transport is not None:
                self.transport.abort()
                return
        super().data_received(data)

    def pause_writing(self) -> None:
        """Take note that the client does not read."""
        super().pause_writing()
        self._paused = True
        self._unsent = self._queued()
        self._begins_at = time.monotonic()

    def resume_writing(self) -> None:
        """Take note that the client reads."""
        super().resume_writing()
        self._paused = False
        self._begins_at = time.monotonic()

    def began(self, request: web.Request) -> None:
        """Take note that a request is being served, whose body may still be missing."""
        self._serving = request
        self.has_response = False
        self._has_part = False
        self._arrived = 0
        self._begins_at = time.monotonic()

    def ended(self) -> None:
        """Take note that a request has its response."""
        self._serving = None
        self._begins_at = time.monotonic()

    def look(self, now: float) -> None:
        """End the connection if its client takes too long to send or to read.

        Parameters
        ----------
        now
            The time, in seconds of :func:`time.monotonic`.
        """
        transport = self.transport
        if transport is None:
            return
        waited_s = now - self._begins_at
        request = self._serving
        if self._paused:
            queued = self._queued()
            if queued < self._unsent:
                self._unsent, self._begins_at = queued, now
            elif waited_s > _WRITE_S:
                transport.abort()
        elif request is None:
            if waited_s > (_HEAD_S if self._has_part else _IDLE_S):
                self._give_up(transport, is_told=self._has_part)
        elif waited_s > _BODY_S and not request.content.is_eof():
            self._give_up(transport, is_told=not self.has_response)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to what is no request, or to one whose handler has failed."""
        if status >= 500:
            # It is logged, and a response that was begun is broken off.
            super().handle_error(request, status, exc, message)
        body = refusals.internal_error(None) if status >= 500 else _BAD_REQUEST
        if isinstance(exc, LineTooLong):
            status, body = 431, _LONG_HEAD
        response = _Unsigned(status=status, body=body, content_type="application/json")
        response.force_close()
        return response

    def _queued(self) -> int:
        transport = self.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def _give_up(self, transport: asyncio.Transport, *, is_told: bool) -> None:
        if is_told:
            transport.write(_TIMED_OUT % (len(_TOO_SLOW), _TOO_SLOW))
        transport.close()


@contextmanager
def serving(request: web.Request) -> Iterator[web.Response | None]:
    """Let the connection of a request know that it is served.

    Returns
    -------
    The refusal of a request whose framing the compiled code refuses as well: nobody in between must understand it in
    another way. ``None`` if there is nothing wrong with it.
    """
    protocol: Any = request.protocol
    if not isinstance(protocol, WebProtocol):
        yield None
        return
    protocol.began(request)
    try:
        yield _refusal_of(request)
    finally:
        protocol.ended()


async def expected(request: web.Request) -> web.StreamResponse | None:
    """Answer ``Expect``, which waits for the body; raises the refusal of anything but ``100-continue``."""
    if request.headers.getall("Expect", ()) and request.headers["Expect"].lower() != "100-continue":
        return _closing(417, _OTHER_EXPECTATION)
    size = request.content_length
    if size is not None and size > request.client_max_size:
        return _closing(413, refusals.TOO_LARGE)
    if request.version == _LATEST and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


def _refusal_of(request: web.Request) -> web.Response | None:
    version = request.version
    if version not in (_OLDEST, _LATEST):
        return _closing(505, _OTHER_VERSION)
    codings = request.headers.getall("Transfer-Encoding", ())
    if not codings:
        return None
    if version != _LATEST:
        # RFC 9112, section 6.1: its framing is faulty.
        return _closing(400, _BAD_REQUEST)
    return None if [each.lower() for each in codings] == ["chunked"] else _closing(501, _OTHER_CODING)


def _closing(status: int, body: bytes) -> web.Response:
    response = web.Response(status=status, body=body, content_type="application/json")
    response.force_close()
    return response


class _Unsigned(web.Response):
    """A response outside of the application, whose signals it does not get."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


async def unsigned(request: web.Request, response: web.StreamResponse) -> None:
    """Take the header field off that tells clients the versions of Python and aiohttp; a signal of the application.

    It also notes that there is a response, so that no other is sent if the rest of the request does not come.
    """
    response.headers.pop("Server", None)
    if isinstance(request.protocol, WebProtocol):
        request.protocol.has_response = True
