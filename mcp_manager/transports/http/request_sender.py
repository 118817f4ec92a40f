"""Sends the requests of one transport over lanes or as plain aiohttp requests, and again if a connection had closed."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from mcp_manager._core.http_message import Exchange, WireError, WireReply
from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.wire import WirePool
from mcp_manager.transports.base import MessageTaker
from mcp_manager.transports.http.connections.clients import connecting_server
from mcp_manager.transports.http.connections.lanes import Lane
from mcp_manager.transports.http.connections.route import connect_timeout
from mcp_manager.transports.http.options import HttpOptions
from mcp_manager.transports.http.plain_requests import HttpRequest, PlainRequests
from mcp_manager.transports.http.reply import ReplyReader
from mcp_manager.transports.http.request_headers import RequestHeaders
from mcp_manager.transports.http.resending import is_unsent, may_resend
from mcp_manager.transports.http.waits import Waits

__all__ = ["RequestSender"]


class RequestSender:
    """Send requests and return what came back: a response, or the reply from an event stream.

    Parameters
    ----------
    options
        The endpoint, the pool and the route.
    headers
        The header fields of the requests.
    waits
        Bounds what a request waits for.
    reader
        Takes the events of event streams.
    sink
        Counts the requests that were sent twice.

    ``has_answered`` says whether the server has answered before; until it has, a failure may come from a wrong setting.
    """

    __slots__ = (
        "_check",
        "_headers",
        "_lanes",
        "_limit",
        "_plain",
        "_reader",
        "_server_id",
        "_sink",
        "_timeout",
        "_waits",
        "has_answered",
    )

    def __init__(
        self, options: HttpOptions, headers: RequestHeaders, waits: Waits, reader: ReplyReader, sink: MessageTaker
    ) -> None:
        self._server_id = options.server_id
        self._headers = headers
        self._waits = waits
        self._reader = reader
        self._sink = sink
        self._limit = options.max_response_bytes
        self._check = options.check
        self._timeout = connect_timeout(options.connect_timeout_s, options.route)
        lanes = options.pool.lanes(headers.endpoint, options.endpoint, options.route)
        self._plain = PlainRequests(options.pool, reader, self._timeout, self._limit, lanes, options.check)
        # A head that needs a proof of its own cannot be rendered in advance.
        is_prepared = options.authorization is None or not options.authorization.per_request
        can_carry = options.lanes and is_prepared and options.route.carries_lanes(headers.endpoint)
        self._lanes = lanes.joined() if can_carry else None
        self.has_answered: bool = False

    @property
    def wires(self) -> WirePool | None:
        """The lanes to the endpoint, ``None`` if all requests are plain aiohttp requests."""
        return self._lanes.wires if self._lanes is not None else None

    async def send(self, verb: str, head: bytes, exchange: Exchange) -> WireReply | Message:
        """Send a request, and again if its connection closed and :func:`may_resend` allows it.

        Raises
        ------
        WireError, aiohttp.ClientError, OSError
            As they come from the wire or from aiohttp.
        """
        try:
            if self._lanes is None:
                return await self.send_plainly(verb, self._headers.endpoint, exchange)
            return await self._send_on(self._lanes.wires.take() or await self._connect(exchange), head, exchange)
        except (WireError, aiohttp.ClientError) as error:
            if not may_resend(error, exchange, verb):
                raise
            lost = error
        try:
            return await self.send_again(lost, verb, head, exchange)
        finally:
            # An exception's traceback holds this frame.
            del lost

    async def send_again(self, lost: BaseException, verb: str, head: bytes, exchange: Exchange) -> WireReply | Message:
        """Send a request again, on a new connection; raises ``lost`` if there is none to be had."""
        self._sink.on_fault("a connection that ended under a request", "it was sent again on another one")
        exchange.resent = True
        exchange.sent = not is_unsent(lost)
        try:
            if self._lanes is None:
                return await self.send_plainly(verb, self._headers.endpoint, exchange)
            lane = await self._connect(exchange)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            try:
                raise lost from None
            finally:
                # An exception's traceback holds this frame.
                del lost
        return await self._send_on(lane, head, exchange)

    async def send_plainly(
        self, verb: str, url: URL, exchange: Exchange, *, lasting: bool = False
    ) -> WireReply | Message:
        """Send a plain aiohttp request to a URL of the endpoint's origin.

        ``lasting`` is for a reply that stays open for long: its connection does not count against ``max_connections``.
        """
        connecting_server.set(self._server_id)
        # A proxy without a tunnel connects to the server with the first request, so that request bounds it.
        first_s = self._timeout.connect if exchange.request_id > 0 and not self.has_answered else None
        async with self._waits.connection_wait(exchange, self._headers.endpoint) as wait, asyncio.timeout(first_s):
            request = HttpRequest(verb, url, self._headers.fields_for(verb, url))
            return await self._plain.exchange(request, exchange, None if lasting else wait)

    def deliver(self, reply: Message) -> bool:
        """Give a reply to the request that still waits for it on a lane; tell whether there was one."""
        if self._lanes is None or type(reply.id) is not int or not 0 < reply.id < 1 << 63:
            return False
        return self._lanes.wires.deliver(self._reader, reply.id, reply)

    def interrupt(self) -> None:
        """End every request that is on a lane with :data:`STOPPED`."""
        if self._lanes is not None:
            self._lanes.wires.interrupt(self._reader)

    def drop_ending_streams(self) -> None:
        """Close the event streams that have delivered their reply and not ended yet."""
        self._plain.close()

    def leave(self) -> None:
        """Stop using the lanes; call it once, at the end."""
        if self._lanes is not None:
            self._lanes.leave()

    async def _send_on(self, lane: Lane, head: bytes, exchange: Exchange) -> WireReply | Message:
        try:
            self._check(exchange.frame)
        except BaseException:
            # Nobody else would give it back.
            lane.close()
            raise
        answer = lane.send(head, exchange, self._reader, self._limit)
        try:
            reply: WireReply | Message = await answer
        except BaseException:
            lane.abandon(answer)
            if (
                answer.done()
                and not answer.cancelled()
                and answer.exception() is None
                and type(answer.result()) is WireReply
            ):
                # The caller was cancelled in the moment the response came.
                exchange.head = answer.result()
            # It has the exception, whose traceback holds this frame.
            del answer
            raise
        return reply

    async def _connect(self, exchange: Exchange) -> Lane:
        assert self._lanes is not None
        connecting_server.set(self._server_id)
        async with self._waits.connection_wait(exchange, self._headers.endpoint) as wait:
            while True:
                lane = await self._lanes.connect(self._timeout, wait)
                if lane.idle:
                    return lane
