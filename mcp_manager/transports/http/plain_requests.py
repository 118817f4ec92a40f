"""Sends plain aiohttp requests, for everything that a lane cannot carry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from mcp_manager._core.event_stream import EventStream
from mcp_manager._core.http_message import (
    LOST,
    MALFORMED,
    OVERSIZE,
    STANDING,
    UNANSWERED,
    Exchange,
    WireError,
    WireReply,
)
from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.sse import SseLimitError
from mcp_manager.errors import CallError
from mcp_manager.runtime.background import background_task
from mcp_manager.runtime.read_budget import CoroutineReader, read_budget
from mcp_manager.transports.base import FrameCheck
from mcp_manager.transports.http.connections.clients import request_check
from mcp_manager.transports.http.connections.endpoint import dialled
from mcp_manager.transports.http.connections.lanes import LanePool
from mcp_manager.transports.http.connections.paced_content import PacedContent
from mcp_manager.transports.http.connections.paced_responses import flood_taker
from mcp_manager.transports.http.connections.permits import ConnectionWait, Permit
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.connections.route import proxy_fields, request_options

__all__ = ["EventTaker", "HttpRequest", "PlainRequests", "read_body"]

# How long an event stream may take to end after it has delivered the reply before its connection is dropped.
_STREAM_END_S: Final = 1.0
# Only a proxy answers 407; 502 and 504 come from a proxy that could not reach the server, or lost it.
_PROXY_REFUSES: Final = frozenset({407, 502, 504})
_KEPT: Final = (
    "content-type",
    "content-encoding",
    "mcp-session-id",
    "retry-after",
    "location",
    "www-authenticate",
    "dpop-nonce",
    "allow",
)


class EventTaker(Protocol):
    """Takes the events of a stream."""

    def take_event(self, exchange: Exchange, data: bytes) -> Message | None:
        """Return the reply to the exchange if the event has it, ``None`` otherwise."""

    def take_named_event(self, name: str, data: bytes) -> None:
        """Take an event that is not a message, of a stream that stays open."""

    def stream_opened(self, exchange: Exchange) -> None:
        """Note that a stream that stays open has started."""

    def flooded(self) -> None:
        """Note that a stream delivers more than the read budget allows."""

    def take_cookies(self, values: Sequence[bytes]) -> None:
        """Take the values of ``Set-Cookie`` fields."""


class _MarkedPayload(aiohttp.BytesPayload):
    """A body that marks its exchange as sent just before its first byte is written."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange.frame, content_type="application/json")
        self._exchange = exchange

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._exchange.sent = True
        await super().write_with_length(writer, content_length)


class HttpRequest(NamedTuple):
    """An HTTP request without its body."""

    verb: str
    url: URL
    headers: Mapping[str, str]


class PlainRequests:
    """Carry exchanges by plain aiohttp requests, with the same results as a wire.

    Parameters
    ----------
    pool
        The manager's connections.
    taker
        Takes the events of event streams.
    timeout
        Bounds a connection attempt.
    limit
        The longest reply, or event of a stream, in bytes.
    lanes
        The lanes to the same destination; the requests count against the same bound.
    check
        Checks each message right before it is sent.
    """

    def __init__(
        self,
        pool: HttpPool,
        taker: EventTaker,
        timeout: aiohttp.ClientTimeout,
        limit: int,
        lanes: LanePool,
        check: FrameCheck,
    ) -> None:
        self._check = check
        self._endpoint = lanes.endpoint
        self._route = lanes.route
        self._lanes = lanes
        self._pool = pool
        self._taker = taker
        self._timeout = timeout
        self._limit = limit
        # Tasks that read the rest of a stream; the set is made with the first of them.
        self._ending: set[asyncio.Task[None]] | None = None

    async def exchange(
        self, request: HttpRequest, exchange: Exchange, wait: ConnectionWait | None
    ) -> WireReply | Message:
        """Send a request and return its response, or the reply to the exchange from an event stream.

        Parameters
        ----------
        request
            The HTTP request.
        exchange
            The body, and what becomes of it.
        wait
            The wait for a connection. ``None`` if the response is a stream that stays open: its connection does not
            count against ``max_connections``, because a few such streams would leave none for calls.

        Raises
        ------
        WireError
            As from a wire; :data:`LOST` has the reason as its cause.
        aiohttp.ClientError, OSError, TimeoutError
            There is no connection, or it broke.
        """
        if wait is None:
            return await self._request(self._pool.clients.lasting, request, exchange, None)
        while True:
            async with self._pool.permit(self._lanes, wait) as permit:
                # Also before a connection is made, which a refused request does not need.
                self._check(exchange.frame)
                try:
                    is_fresh = exchange.resent or self._lanes.is_doubted
                    client = self._pool.clients.fresh if is_fresh else self._pool.clients.shared
                    return await self._request(client, request, exchange, permit)
                except (aiohttp.ClientError, OSError) as error:
                    if exchange.reused:
                        self._lanes.doubt()
                    if exchange.sent or not wait.is_exhaustion(error):
                        raise
            await self._pool.permits.pause(wait)

    def close(self) -> None:
        """Close the streams that have delivered their reply and not ended yet."""
        for task in self._ending or ():
            task.cancel()

    async def _request(
        self,
        client: aiohttp.ClientSession,
        request: HttpRequest,
        exchange: Exchange,
        permit: Permit | None,
    ) -> WireReply | Message:
        exchange.head = None
        url = request.url
        request = request._replace(headers=self._headers_of(request, exchange))
        target = self._route.connected(dialled(url, self._endpoint))
        response = await self._pool.clients.connecting(target, partial(self._respond, client, request, exchange))
        reply: WireReply | Message | None = None
        try:
            if response.status in _PROXY_REFUSES and self._route.proxy is not None and url.scheme == "http":
                raise aiohttp.ClientHttpProxyError(response.request_info, (), status=response.status)
            reply = await self._read(response, exchange, permit)
        finally:
            # Releasing an unfinished response closes its connection, so that nobody reads the rest as another reply.
            if reply is None or not self._let_stream_end(response):
                response.release()
        return reply

    async def _respond(
        self, client: aiohttp.ClientSession, request: HttpRequest, exchange: Exchange
    ) -> aiohttp.ClientResponse:
        url = request.url
        options = await request_options(self._route, self._pool.tls, url, self._endpoint)
        token = flood_taker.set(self._taker)
        checking = request_check.set(partial(self._check, exchange.frame))
        try:
            return await client.request(
                request.verb,
                dialled(url, self._endpoint),
                **options,
                data=_MarkedPayload(exchange) if exchange.frame else None,
                headers=request.headers,
                timeout=self._timeout,
                allow_redirects=False,
                trace_request_ctx=exchange,
            )
        finally:
            request_check.reset(checking)
            flood_taker.reset(token)

    def _headers_of(self, request: HttpRequest, exchange: Exchange) -> Mapping[str, str]:
        """Return all header fields: those of the request, of its route and of this exchange alone."""
        headers = request.headers
        if self._endpoint is not None:
            headers = {"Host": request.url.host_port_subcomponent or "", **headers}
        if self._route.proxy is not None:
            headers = {**headers, **proxy_fields(self._route, request.url)}
        return headers if exchange.fields is None else {**headers, **_pairs(exchange.fields)}

    async def _read(
        self, response: aiohttp.ClientResponse, exchange: Exchange, permit: Permit | None
    ) -> WireReply | Message:
        headers = [
            (name.encode("ascii"), value.encode("utf-8", "surrogateescape"))
            for name in _KEPT
            for value in response.headers.getall(name, ())
        ]
        cookies = response.headers.getall("set-cookie", ())
        if cookies:
            self._taker.take_cookies([value.encode("utf-8", "surrogateescape") for value in cookies])
        head = WireReply(response.status, headers, b"")
        if exchange.request_id == 0 and head.is_event_stream and response.status == 200:
            return head
        if exchange.frame:
            # The head may name a new session, even if the rest is lost.
            exchange.head = head
        if response.status == 200 and head.is_event_stream:
            exchange.head = head
            if exchange.request_id == STANDING and permit is not None:
                # A stream that stays open must not block calls.
                permit.release()
                self._taker.stream_opened(exchange)
            return await self._read_stream(response, exchange)
        return WireReply(response.status, headers, await read_body(response, self._limit))

    async def _read_stream(self, response: aiohttp.ClientResponse, exchange: Exchange) -> Message:
        budget = read_budget()
        stream = EventStream(exchange, self._taker, self._limit, budget)
        reading = CoroutineReader(budget, self._taker.flooded)
        content = PacedContent(response.content, budget, reading)
        try:
            while True:
                try:
                    chunk = await content.read()
                except (aiohttp.ClientError, OSError) as error:
                    raise _ended(LOST, stream) from error
                if not chunk:
                    raise _ended(UNANSWERED, stream)
                reply: Message | None = stream.take(chunk)
                while reply is None and stream.is_behind:
                    # Meanwhile nothing is read: backpressure holds the server back.
                    await reading.next_slice()
                    reply = stream.work()
                if reply is not None:
                    # The messages behind the reply get one time slice; their errors must not spoil the reply.
                    with contextlib.suppress(SseLimitError, CallError):
                        stream.work()
                    return reply
        except SseLimitError as error:
            raise WireError(MALFORMED, str(error)) from None
        finally:
            reading.close()
            stream.stop()

    def _let_stream_end(self, response: aiohttp.ClientResponse) -> bool:
        """Read the rest of a stream in the background, to reuse its connection; return whether there is any."""
        if response.content.is_eof():
            return False
        if self._ending is None:
            self._ending = set()
        background_task(self._drain(response), "read the rest of a stream", among=self._ending)
        return True

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        try:
            async with asyncio.timeout(_STREAM_END_S):
                while not response.content.at_eof():
                    await response.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        finally:
            response.release()


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body of a response; raises :class:`WireError` if it is longer than ``limit`` bytes."""
    if response.content_length is not None and response.content_length > limit:
        raise WireError(OVERSIZE, size=response.content_length)
    budget = read_budget()
    reading = CoroutineReader(budget)
    content = PacedContent(response.content, budget, reading)
    try:
        first = await content.read()
        # One growing buffer, not a list: a body that arrives byte by byte must not cost an object per byte.
        body: bytes | bytearray = first
        while chunk := await content.read():
            if body is first:
                body = bytearray(first)
            body += chunk
            if len(body) > limit:
                break
    finally:
        reading.close()
    if len(body) > limit:
        raise WireError(OVERSIZE, size=len(body))
    return bytes(body)


def _ended(kind: int, stream: EventStream) -> WireError:
    error = WireError(kind)
    error.last_event_id = stream.parser.last_event_id
    error.retry_ms = stream.parser.retry_ms
    return error


def _pairs(fields: bytes) -> dict[str, str]:
    lines = fields.decode().split("\r\n")
    return dict(line.split(": ", 1) for line in lines if line)
