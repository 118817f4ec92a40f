"""Streamable HTTP (2025-11-25, basic/transports): one POST per message, JSON or SSE replies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import aiohttp
from yarl import URL

from mcp_manager._core.call_path import Channel, RequestIds
from mcp_manager._core.http_message import (
    EXPIRED,
    MALFORMED,
    OVERSIZE,
    STOPPED,
    UNANSWERED,
    Exchange,
    WireError,
    WireReply,
)
from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.config.redaction import is_credential
from mcp_manager.errors import (
    AuthError,
    CallError,
    ConnectError,
    ConnectionLostError,
    Delivery,
    ProtocolError,
)
from mcp_manager.protocol.revisions import BATCHING_REVISIONS, HANDSHAKE_REVISIONS
from mcp_manager.transports.base import MessageSink, StreamListener
from mcp_manager.transports.containment import Containment
from mcp_manager.transports.http import status as http_status
from mcp_manager.transports.http.authorized_sending import AuthorizedSending
from mcp_manager.transports.http.connections.clients import connecting_server
from mcp_manager.transports.http.connections.lanes import Lane
from mcp_manager.transports.http.connections.places import Wait
from mcp_manager.transports.http.connections.route import connect_timeout
from mcp_manager.transports.http.connections.user_agent import with_user_agent
from mcp_manager.transports.http.cookie_keeper import CookieKeeper
from mcp_manager.transports.http.failures import HttpFailures
from mcp_manager.transports.http.options import HttpOptions
from mcp_manager.transports.http.ordinary import OrdinaryPath
from mcp_manager.transports.http.reply import ReplyReader
from mcp_manager.transports.http.request_head import field_lines, render_head
from mcp_manager.transports.http.resending import is_unsent, may_resend
from mcp_manager.transports.http.resumption import Resumptions
from mcp_manager.transports.http.session_ids import SESSION_HEADER, is_session_id, session_id_in, with_stray
from mcp_manager.transports.http.standing_stream import StandingStream
from mcp_manager.transports.http.urls import exact_url
from mcp_manager.transports.http.waits import Waits

__all__ = ["HttpTransport"]

_ACCEPT_EVENTS: Final = "text/event-stream"
_ACCEPT: Final = f"application/json, {_ACCEPT_EVENTS}"
_VERSION_HEADER: Final = "MCP-Protocol-Version"
_MAX_REDIRECTS: Final = 3


class HttpTransport:
    """Exchange frames with one MCP endpoint over the shared pool.

    Nearly every exchange goes over a lane: a connection that aiohttp opened and a compiled wire speaks on. What a wire
    is not made for, such as a redirect, takes the ordinary way of an aiohttp request.

    Parameters
    ----------
    options
        The endpoint, and how it is reached.
    sink
        Takes requests and notifications that arrive on event streams, and the news of a session that is gone.
    """

    def __init__(self, options: HttpOptions, sink: MessageSink) -> None:
        pool, server_id, authorization = options.pool, options.server_id, options.authorization
        self._pool = pool
        self._endpoint = exact_url(options.url)
        self._failures = HttpFailures(options)
        self._server_id = server_id
        self._sink = sink
        self._limit = options.max_response_bytes
        self._waits = Waits(pool, server_id, options.connect_timeout_s)
        self._timeout = connect_timeout(options.connect_timeout_s, options.route)
        headers = with_user_agent(options.headers, pool.clients.user_agent)
        self._headers = {**headers, "Accept": _ACCEPT, "Accept-Encoding": "identity"}
        self._cookies = CookieKeeper(options, self._endpoint, self._headers, sink, self._render)
        self._resumptions = Resumptions(self.get, self._waits.bounded, sink, self._deliver)
        self._secrets = options.secrets
        self._reader = ReplyReader(server_id, self._resumptions, self._limit, options.secrets, _credentials_of(options))
        self._reader.on_cookies = self._cookies.take
        lanes = pool.lanes(self._endpoint, options.endpoint, options.route)
        self._ordinary = OrdinaryPath(pool, self._reader, self._timeout, self._limit, lanes)
        # What needs a proof of its own cannot be rendered in advance.
        prepared = authorization is None or not authorization.per_request
        can_carry = options.lanes and prepared and options.route.carries_lanes(self._endpoint)
        self._lanes = lanes.joined() if can_carry else None
        self._authorized: AuthorizedSending | None = None
        self._channel: Channel | None = None
        self._head = render_head("POST", self._endpoint, self._headers)
        # Sessions that the server made beside the one that is used.
        self._strays: tuple[str, ...] = ()
        self._settled = False
        # Whether anything but a failure is known of the server.
        self._met = False
        self._resumes = False
        self._standing: StandingStream | None = None
        self._closed = False
        if authorization is not None:
            self._authorized = AuthorizedSending(
                server_id, authorization, self._waits, options.secrets, self._set_header
            )
            self._authorized.take_token()

    @property
    def pid(self) -> int:
        """Always 0: the server is nobody's child."""
        return 0

    @property
    def life_signs(self) -> None:
        """Nothing: there is no program of ours."""

    @property
    def session_id(self) -> str | None:
        """The id the server gave this session, or ``None`` when it keeps none."""
        return self._headers.get(SESSION_HEADER)

    @property
    def has_request_streams(self) -> bool:
        """Always true: one POST per request."""
        return True

    @property
    def keeps_session(self) -> bool:
        """Whether a handshake was settled: a server without session ids may keep account of it all the same."""
        return self._settled and self._resumes

    @property
    def last_words(self) -> str:
        """Always empty: what is no message ends a request, and is told there."""
        return ""

    def settle(self, revision: str | None) -> None:
        """Send ``MCP-Protocol-Version`` from now on (MUST after the handshake) and keep the session id as it is.

        Before a handshake (``None``) there is no version, and the session id is yet to come.
        """
        self._settled = revision is not None
        # There is no such thing in the stateless era: a stream that breaks loses its request.
        self._resumes = revision is None or revision in HANDSHAKE_REVISIONS
        self._reader.may_batch = revision is None or revision in BATCHING_REVISIONS
        self._headers.pop(_VERSION_HEADER, None)
        if revision is None:
            self._strays = with_stray(self._strays, self._headers.pop(SESSION_HEADER, None), None)
        else:
            self._headers[_VERSION_HEADER] = revision
        self._render()

    async def open(self) -> None:
        """Do nothing: a connection is taken from the pool with the first request."""

    async def listen(self) -> None:
        """Open the stream on which the server speaks by itself; see :meth:`Transport.listen`."""
        if self._standing is not None or self._closed or self._waits.is_stopped:
            return
        if not self._pool.admit_stream():
            self._sink.on_fault("no connection is left for an event stream", "raise max_connections")
            return
        self._standing = self._reader.listener = StandingStream(
            self.get, Containment(self._server_id, self._secrets), self._sink
        )
        await self._standing.start(self._stream_ended)

    def _stream_ended(self) -> None:
        self._pool.release_stream()
        # A refused one is not worth its memory for as long as the session lasts.
        self._standing = self._reader.listener = None

    def listen_with(self, listener: StreamListener) -> None:
        """Tell somebody else of the stream that stands open."""
        self._reader.listener = listener

    async def exchange(self, exchange: Exchange) -> Message:
        """POST a request and return its reply; see :meth:`Transport.exchange`."""
        return await self._reply_to(exchange, await self._post(exchange))

    async def exchange_lasting(self, exchange: Exchange) -> Message:
        """POST a request whose event stream stays open; see :meth:`Transport.exchange_lasting`."""
        try:
            if self._authorized is None:
                answer = await self._send_lasting(exchange)
            else:
                answer = await self._authorized.send(
                    "POST", self._endpoint, exchange, lambda: self._send_lasting(exchange)
                )
        except BaseException as error:
            self._explain(error, exchange)
        return await self._reply_to(exchange, answer)

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> Channel | None:
        """Return where the session's requests can go straight to an idle lane; see :meth:`Transport.channel`."""
        self._met = True
        if self._lanes is not None:
            if self._authorized is not None:
                self._authorized.channel_made()
            self._channel = Channel(self._lanes.wires, ids, self._reader, self._limit, self._head, session, dialect)
        return self._channel

    async def landed(self, exchange: Exchange, answer: Any) -> Message:
        """Read what the channel brought back; see :meth:`Transport.landed`."""
        if isinstance(answer, BaseException):
            try:
                answer = await self._recovered(answer, exchange)
            except BaseException:
                # An exception's traceback holds this frame.
                del answer
                raise
        if self._authorized is not None and type(answer) is WireReply and answer.status in (401, 403):
            answer = await self._post(exchange, answer)
        return await self._reply_to(exchange, answer)

    async def _reply_to(self, exchange: Exchange, answer: WireReply | Message) -> Message:
        head = exchange.head or answer
        if not self._settled:
            self._take_session_id(head)
        try:
            reply = await self._reply_in(exchange, answer)
        except CallError:
            self._note_stray(head)
            raise
        if reply.kind == ERROR:
            # There are servers that make a session for whatever comes without one, also for what they refuse.
            self._note_stray(head)
        return reply

    async def _reply_in(self, exchange: Exchange, answer: WireReply | Message) -> Message:
        if type(answer) is WireReply and answer.status in (307, 308):
            answer = await self._follow(answer, exchange)
        if type(answer) is WireReply:
            try:
                return self._reader.read(answer, exchange, self._endpoint, has_session=SESSION_HEADER in self._headers)
            except AuthError as error:
                self._note_challenge(error)
                raise
            except ProtocolError:
                if answer.status == 200 and exchange.wire is not None:
                    # It may have been the reply to another request: then the next one would be, too.
                    exchange.wire.retire()
                raise
        return answer

    async def notify(self, frame: bytes, deadline_ns: int, fields: bytes | None = None) -> None:
        """POST a notification or a reply to the server; any 2xx means accepted (202 by the specification)."""
        exchange = Exchange(frame, 0, deadline_ns)
        exchange.fields = fields
        reply = await self._post(exchange)
        if type(reply) is WireReply and reply.status in (307, 308):
            reply = await self._follow(reply, exchange)
        if type(reply) is WireReply and not 200 <= reply.status < 300:
            try:
                self._reader.refuse(reply, self._endpoint, has_session=self.session_id is not None)
            except AuthError as error:
                self._note_challenge(error)
                raise

    def _note_challenge(self, error: AuthError) -> None:
        """Take a refusal for one of the credentials where they are obtained: all was done that they could be lacking."""
        error.is_challenged = error.is_challenged or self._authorized is not None

    def interrupt(self) -> None:
        """End every exchange under way; see :meth:`Transport.interrupt`."""
        if self._standing is not None:
            self._standing.stop()
        if self._lanes is not None:
            self._lanes.wires.interrupt(self._reader)
        self._waits.stop()

    async def aclose(self, grace_s: float) -> None:
        """DELETE the session if the server gave one (SHOULD), and those it made besides, ignoring what it answers."""
        if self._closed:
            return
        self._closed = True
        self._cookies.close()
        self._ordinary.close()
        if self._authorized is not None:
            self._authorized.close()
        try:
            standing = self._standing.stop() if self._standing is not None else None
            if standing is not None:
                await asyncio.wait({standing})
            if grace_s > 0:
                await self._end_sessions(grace_s)
        finally:
            if self._lanes is not None:
                self._lanes.leave()

    async def _end_sessions(self, grace_s: float) -> None:
        deadline_ns = time.monotonic_ns() + round(grace_s * 1e9)
        await asyncio.gather(*(self._delete(each, deadline_ns) for each in (self.session_id, *self._strays) if each))

    async def _delete(self, session_id: str, deadline_ns: int) -> None:
        exchange = Exchange(b"", 0, deadline_ns)
        exchange.fields = field_lines({SESSION_HEADER: session_id})
        headers = {name: value for name, value in self._headers.items() if name != SESSION_HEADER}
        with contextlib.suppress(CallError):
            if self._authorized is not None:
                exchange.fields += self._authorized.proof("DELETE", self._endpoint) or b""
            await self._send(render_head("DELETE", self._endpoint, headers), exchange, "DELETE")

    async def get(self, exchange: Exchange, last_event_id: str = "") -> WireReply | Message:
        """GET a stream of events, from the last one that was received on.

        Returns the reply to the exchange if the stream has it (one of the id :data:`STANDING` has none), or what was
        answered in place of a stream.

        Raises
        ------
        WireError, aiohttp.ClientError, OSError
            As they come: :data:`UNANSWERED` is the end of the stream.
        """
        if last_event_id:
            exchange.fields = b"Last-Event-ID: " + last_event_id.encode() + b"\r\n"
        if self._authorized is None:
            return await self._send_get(exchange)
        if not last_event_id:
            exchange.fields = None
        return await self._authorized.send("GET", self._endpoint, exchange, lambda: self._send_get(exchange))

    async def _send_get(self, exchange: Exchange) -> WireReply | Message:
        return await self._transmit(render_head("GET", self._endpoint, self._headers_for("GET")), exchange, "GET")

    async def _send_lasting(self, exchange: Exchange) -> WireReply | Message:
        exchange.began_ns = exchange.began_ns or time.monotonic_ns()
        return await self._send_ordinarily("POST", self._endpoint, exchange, lasting=True)

    def _set_header(self, name: str, value: str) -> None:
        self._headers[name] = value
        self._render()

    async def _post(self, exchange: Exchange, refusal: WireReply | None = None) -> WireReply | Message:
        """POST a request, with credentials if need be; ``refusal`` is what it met that went over the channel."""
        if self._authorized is None:
            return await self._send(self._head, exchange)
        return await self._authorized.send(
            "POST", self._endpoint, exchange, lambda: self._send(self._head, exchange), refusal
        )

    async def _send(self, head: bytes, exchange: Exchange, verb: str = "POST") -> WireReply | Message:
        """Send a request and return what came back, explaining what goes wrong."""
        exchange.began_ns = exchange.began_ns or time.monotonic_ns()
        try:
            return await self._transmit(head, exchange, verb)
        except BaseException as error:
            return await self._go_on(error, exchange)

    async def _transmit(self, head: bytes, exchange: Exchange, verb: str) -> WireReply | Message:
        """Send a request over a lane, or the ordinary way where there is none; once more if its connection had ended."""
        try:
            if self._lanes is None:
                return await self._send_ordinarily(verb, self._endpoint, exchange)
            return await self._send_on(self._lanes.wires.take() or await self._connect(exchange), head, exchange)
        except (WireError, aiohttp.ClientError) as error:
            if not may_resend(error, exchange, verb):
                raise
            lost = error
        try:
            return await self._resend(lost, head, exchange, verb)
        finally:
            # An exception's traceback holds this frame.
            del lost

    async def _recovered(self, error: BaseException, exchange: Exchange) -> WireReply | Message:
        """Go on from what a request over the channel met."""
        try:
            if not may_resend(error, exchange, "POST"):
                return await self._go_on(error, exchange)
            try:
                return await self._resend(error, self._head, exchange, "POST")
            except BaseException as failure:
                return await self._go_on(failure, exchange)
        finally:
            # An exception's traceback holds this frame.
            del error

    async def _resend(self, lost: BaseException, head: bytes, exchange: Exchange, verb: str) -> WireReply | Message:
        """Send a request once more, on a connection that was just made; without one, it is as ``lost`` as it was."""
        self._sink.on_fault("a connection that ended under a request", "it was sent again on another one")
        exchange.resent = True
        exchange.sent = not is_unsent(lost)
        try:
            if self._lanes is None:
                return await self._send_ordinarily(verb, self._endpoint, exchange)
            lane = await self._connect(exchange)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            try:
                raise lost from None
            finally:
                # An exception's traceback holds this frame.
                del lost
        return await self._send_on(lane, head, exchange)

    async def _send_on(self, lane: Lane, head: bytes, exchange: Exchange) -> WireReply | Message:
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
                # The caller was cancelled just when it had come.
                exchange.head = answer.result()
            # It has the exception, whose traceback holds this frame.
            del answer
            raise
        return reply

    async def _go_on(self, error: BaseException, exchange: Exchange) -> Message:
        """Return the reply that a stream of events still owes, or raise what a failure means."""
        self._note_unanswered(exchange)
        try:
            reconnection = self._resumptions.reconnection(error, exchange) if self._resumes else None
            if reconnection is None:
                self._explain(error, exchange)
        finally:
            # An exception's traceback holds this frame.
            del error
        try:
            return await self._resumptions.reply_to(exchange, reconnection)
        except BaseException as failure:
            self._explain(failure, exchange)

    def move_to(self, endpoint: URL) -> None:
        """Send everything to another place of the same origin from now on."""
        self._met = True
        self._endpoint = endpoint
        self._cookies.move_to(endpoint)

    def refuse(self, reply: WireReply) -> NoReturn:
        """Raise what a status that came in place of a stream stands for."""
        self._reader.refuse(reply, self._endpoint, has_session=False)

    def explain(self, error: BaseException, exchange: Exchange) -> NoReturn:
        """Raise what a failure of :meth:`get` means, as a :class:`CallError`."""
        self._explain(error, exchange)

    def _deliver(self, reply: Message) -> bool:
        """Give a reply that came on another stream to its request, whose response is still awaited; tell whether it is.

        A server that has both open should answer on the request's own (2025-11-25, basic/transports): some do not, and
        the answer is there.
        """
        if self._lanes is None or self._standing is None or type(reply.id) is not int or not 0 < reply.id < 1 << 63:
            return False
        return self._lanes.wires.deliver(self._reader, reply.id, reply)

    async def _connect(self, exchange: Exchange) -> Lane:
        assert self._lanes is not None
        connecting_server.set(self._server_id)
        async with self._waits.in_turn(exchange, self._endpoint) as wait:
            while True:
                lane = await self._lanes.connect(self._timeout, wait)
                if lane.idle:
                    return lane

    async def _send_ordinarily(
        self, verb: str, url: URL, exchange: Exchange, *, lasting: bool = False
    ) -> WireReply | Message:
        connecting_server.set(self._server_id)
        # To a proxy that is asked without a tunnel, the first request is what connecting is elsewhere.
        first_s = self._timeout.connect if exchange.request_id > 0 and not self._met else None
        async with self._waits.in_turn(exchange, self._endpoint) as wait, asyncio.timeout(first_s):
            headers = self._cookies.on(url, self._headers_for(verb))
            return await self._ordinary.exchange(verb, url, headers, exchange, None if lasting else wait)

    def _headers_for(self, verb: str) -> Mapping[str, str]:
        return self._headers if verb != "GET" else {**self._headers, "Accept": _ACCEPT_EVENTS}

    async def _follow(self, reply: WireReply, exchange: Exchange) -> WireReply | Message:
        """Send a request on to where the endpoint has moved, if that is the same server, and stay there.

        307 and 308 keep method and body (RFC 9110, sections 15.4.8 and 15.4.9) and mean that nothing was executed.
        Another origin must not get the credentials, nor decide where requests go.
        """
        asked = self._endpoint
        for _ in range(_MAX_REDIRECTS):
            target = http_status.redirect_target(reply, asked)
            if target is None or target.origin() != self._endpoint.origin():
                return reply
            try:
                exchange.sent = False
                answer = await self._send_ordinarily("POST", target, exchange)
            except BaseException as error:
                if exchange.head is not None:
                    self.move_to(target)
                    self._note_unanswered(exchange)
                self._explain(error, exchange)
            if type(answer) is not WireReply or answer.status not in (307, 308):
                if type(answer) is not WireReply or 200 <= answer.status < 300:
                    self.move_to(target)
                    if not self._settled:
                        self._take_session_id(exchange.head or answer)
                return answer
            reply, asked = answer, target
        return reply

    def _take_session_id(self, head: WireReply | Message) -> None:
        if type(head) is not WireReply or SESSION_HEADER in self._headers or not 200 <= head.status < 300:
            return
        session_id = session_id_in(head)
        if session_id is None:
            return
        if not is_session_id(session_id):
            raise self._reader.broken("the session id has characters other than visible ASCII, or too many")
        self._headers[SESSION_HEADER] = session_id
        self._render()

    def _note_stray(self, head: WireReply | Message) -> None:
        """Keep the id of a session that came with what is no success: it is to be ended with the one that is used."""
        self._strays = with_stray(self._strays, session_id_in(head), self.session_id)

    def _note_unanswered(self, exchange: Exchange) -> None:
        """Keep the id of a session whose reply broke off, or was given up."""
        if exchange.head is not None:
            self._note_stray(exchange.head)

    def _render(self) -> None:
        self._head = render_head("POST", self._endpoint, self._headers)
        if self._channel is not None:
            self._channel.head = self._head

    def _explain(self, error: BaseException, exchange: Exchange) -> NoReturn:
        """Raise what a failure means; tell the server where nobody waits for its reply any more."""
        try:
            if isinstance(error, asyncio.CancelledError):
                self._give_up(exchange, "cancelled by the caller")
                raise error
            if isinstance(error, WireError):
                self._explain_wire(error, exchange)
            if isinstance(error, CallError) or not isinstance(error, aiohttp.ClientError | OSError):
                raise error
            if Wait.is_scarcity(error) and not exchange.sent:
                message, hint = self._pool.lack(Wait(), "")
                error = ConnectError(message, server_id=self._server_id, hint=hint)
                error.is_local = True
                raise error from None
            # A TimeoutError is an OSError: here it is that of a connection attempt.
            # The text of a ClientResponseError quotes the URL with its query: never pass it on.
            explained = self._failures.of(error, self._endpoint, exchange, first=not self._met)
            error = explained or self._reader.broken("the reply is not valid HTTP")
            del explained
            raise error from None
        finally:
            # An exception's traceback holds this frame.
            del error

    def _explain_wire(self, error: WireError, exchange: Exchange) -> NoReturn:
        kind = error.kind
        if kind == MALFORMED:
            raise (
                self._failures.of_malformed(error, self._endpoint)
                or self._reader.broken(f"the reply is not valid HTTP: {error.detail}")
            ) from None
        if kind == OVERSIZE:
            raise self._reader.oversize(error.size) from None
        if kind == UNANSWERED:
            raise self._reader.unanswered(error.detail) from None
        delivery: Delivery = "unknown" if exchange.sent else "not_sent"
        if kind == EXPIRED:
            self._give_up(exchange, "deadline exceeded")
            raise self._failures.of_expired(exchange) from None
        if kind == STOPPED:
            raise ConnectionLostError(
                "the server was stopped during the call", server_id=self._server_id, delivery=delivery
            ) from None
        if is_unsent(error):
            exchange.sent = False
        raise self._failures.of_lost(error, self._endpoint, exchange, first=not self._met) from None

    def _give_up(self, exchange: Exchange, reason: str) -> None:
        if exchange.sent and exchange.request_id > 0:
            self._sink.on_given_up(exchange, reason)


def _credentials_of(options: HttpOptions) -> http_status.Credentials:
    if options.authorization is not None:
        return http_status.Credentials.OAUTH
    sent = options.secrets.are_sent or any(is_credential(name) for name in options.headers)
    return http_status.Credentials.FIXED if sent else http_status.Credentials.NONE
