"""Streamable HTTP (2025-11-25, basic/transports): one POST per message, JSON or SSE replies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final, NoReturn

import aiohttp
from yarl import URL

from mcp_manager._core.call_path import Channel, RequestIds
from mcp_manager._core.http_message import EXPIRED, Exchange, WireError, WireReply
from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.auth import Authorization
from mcp_manager.errors import (
    AuthError,
    CallError,
    ConnectError,
    ProtocolError,
)
from mcp_manager.protocol.revisions import BATCHING_REVISIONS, HANDSHAKE_REVISIONS
from mcp_manager.transports.base import MessageSink, StreamListener
from mcp_manager.transports.containment import Containment
from mcp_manager.transports.http import status as http_status
from mcp_manager.transports.http.authorized_sender import AuthorizedSender
from mcp_manager.transports.http.connections.permits import ConnectionWait
from mcp_manager.transports.http.endpoint_search import EndpointSearch
from mcp_manager.transports.http.failures import HttpFailures
from mcp_manager.transports.http.options import HttpOptions
from mcp_manager.transports.http.reply import ReplyReader
from mcp_manager.transports.http.request_headers import RequestHeaders, field_lines
from mcp_manager.transports.http.request_sender import RequestSender
from mcp_manager.transports.http.resending import may_resend
from mcp_manager.transports.http.resumption import Resumptions
from mcp_manager.transports.http.session_ids import SESSION_HEADER, is_session_id, session_id_in, with_stray
from mcp_manager.transports.http.standing_stream import StandingStream
from mcp_manager.transports.http.waits import Waits

__all__ = ["HttpTransport"]

_MAX_REDIRECTS: Final = 3


class HttpTransport:
    """Exchange messages with one MCP endpoint.

    This class applies MCP's rules; :class:`RequestSender` sends the requests.

    Parameters
    ----------
    options
        The endpoint, and how it is reached.
    sink
        Takes the requests and notifications that arrive on event streams, and faults of the server.
    """

    def __init__(self, options: HttpOptions, sink: MessageSink) -> None:
        server_id = options.server_id
        self._pool = options.pool
        self._failures = HttpFailures(options)
        self._server_id = server_id
        self._sink = sink
        self._limit = options.max_response_bytes
        self._secrets = options.secrets
        self._waits = Waits(options.pool, server_id, options.connect_timeout_s)
        self._headers = RequestHeaders(options, sink)
        self._resumptions = Resumptions(self.get, self._waits.bounded, sink, self._deliver)
        self._reader = ReplyReader(server_id, self._resumptions, self._limit, options.secrets, options.credentials)
        self._reader.on_cookies = self._headers.cookies.take
        self._sender = RequestSender(options, self._headers, self._waits, self._reader, sink)
        self._authorized: AuthorizedSender | None = None
        # Until a session is made: where to look for the endpoint of a URL without a path.
        self._search: EndpointSearch | None = None
        if options.bare_origin is not None:
            self._search = EndpointSearch(options.bare_origin, self._reader)
        # Sessions that the server has created besides the one in use; they are deleted at the end.
        self._strays: tuple[str, ...] = ()
        self._settled = False
        self._resumes = False
        self._standing: StandingStream | None = None
        self._closed = False
        self._authorizations = options.authorizations
        self._authorize(options.authorization)

    @property
    def pid(self) -> int:
        """Always 0: the server is not a child process."""
        return 0

    @property
    def life_signs(self) -> None:
        """Always ``None``: the server is not a child process."""

    @property
    def endpoint(self) -> URL:
        """The URL that requests go to."""
        return self._headers.endpoint

    @property
    def session_id(self) -> str | None:
        """The session id that the server has assigned, ``None`` without one."""
        return self._headers.session_id

    @property
    def has_request_streams(self) -> bool:
        """Always true: each request is a POST with a response of its own."""
        return True

    @property
    def keeps_session(self) -> bool:
        """Whether a handshake has completed: a server may keep a session even if it assigns no session id."""
        return self._settled and self._resumes

    @property
    def last_words(self) -> str:
        """Always empty: a response that is not a message is quoted in the error of its request."""
        return ""

    def settle(self, revision: str | None) -> None:
        """Send ``MCP-Protocol-Version`` from now on (MUST after the handshake), and keep the session id.

        ``None``, before a handshake, drops both.
        """
        self._settled = revision is not None
        # Revisions without a handshake cannot resume a stream: if it breaks, its request is lost.
        self._resumes = revision is None or revision in HANDSHAKE_REVISIONS
        self._reader.may_batch = revision is None or revision in BATCHING_REVISIONS
        if revision is None:
            self._strays = with_stray(self._strays, self.session_id, None)
        self._headers.set_revision(revision)

    async def open(self) -> None:
        """Do nothing: a connection is taken from the pool with the first request."""

    async def listen(self) -> None:
        """Open the standing GET stream; see :meth:`Transport.listen`."""
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
        # Most servers refuse the stream; the session must not keep the object for its whole life.
        self._standing = self._reader.listener = None

    def listen_with(self, listener: StreamListener) -> None:
        """Set the owner of the stream that stays open."""
        self._reader.listener = listener

    async def exchange(self, exchange: Exchange) -> Message:
        """POST a request and return its reply; see :meth:`Transport.exchange`."""
        answer = await self._post(exchange)
        if self._search is not None and type(answer) is WireReply:
            answer = await self._search.answer(answer, exchange, self)
        return await self._reply_to(exchange, answer)

    async def exchange_lasting(self, exchange: Exchange) -> Message:
        """POST a request whose event stream stays open; see :meth:`Transport.exchange_lasting`."""
        try:
            if self._authorized is None:
                answer = await self._send_lasting(exchange)
            else:
                answer = await self._authorized.send(
                    "POST", self._headers.endpoint, exchange, lambda: self._send_lasting(exchange)
                )
        except BaseException as error:
            self._explain(error, exchange)
        return await self._reply_to(exchange, answer)

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> Channel | None:
        """Return a channel over the lanes, ``None`` if requests do not go over lanes; see :meth:`Transport.channel`."""
        self._sender.has_answered = True
        if self._search is not None:
            self._search.settle(self._headers.endpoint)
            self._search = None
        wires = self._sender.wires
        if wires is not None:
            if self._authorized is not None:
                self._authorized.channel_made()
            head = self._headers.post_head
            self._headers.channel = Channel(wires, ids, self._reader, self._limit, head, session, dialect)
        return self._headers.channel

    async def landed(self, exchange: Exchange, answer: Any) -> Message:
        """Return the reply to a request of the channel; see :meth:`Transport.landed`."""
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
            # Some servers create a session for every request without one, even if they refuse the request.
            self._note_stray(head)
        return reply

    async def _reply_in(self, exchange: Exchange, answer: WireReply | Message) -> Message:
        if type(answer) is WireReply and answer.status in (307, 308):
            answer = await self._follow(answer, exchange)
        if type(answer) is WireReply:
            try:
                has_session = self.session_id is not None
                return self._reader.read(answer, exchange, self._headers.endpoint, has_session=has_session)
            except AuthError as error:
                self._note_challenge(error)
                raise
            except ProtocolError:
                if answer.status == 200 and exchange.wire is not None:
                    # It may be the reply to another request. Then every later one would be, too.
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
                self._reader.refuse(reply, self._headers.endpoint, has_session=self.session_id is not None)
            except AuthError as error:
                self._note_challenge(error)
                raise

    def _note_challenge(self, error: AuthError) -> None:
        """Mark the error as challenged if credentials are obtained: everything possible was already done."""
        error.is_challenged = error.is_challenged or self._authorized is not None

    def interrupt(self) -> None:
        """Fail every exchange under way; see :meth:`Transport.interrupt`."""
        if self._standing is not None:
            self._standing.stop()
        self._sender.interrupt()
        self._waits.stop()

    async def aclose(self, grace_s: float) -> None:
        """DELETE the session if the server has assigned an id (SHOULD), and stray sessions; responses are ignored."""
        if self._closed:
            return
        self._closed = True
        self._headers.cookies.close()
        self._sender.drop_ending_streams()
        if self._authorized is not None:
            self._authorized.close()
        try:
            standing = self._standing.stop() if self._standing is not None else None
            if standing is not None:
                await asyncio.wait({standing})
            if grace_s > 0:
                await self._end_sessions(grace_s)
        finally:
            self._sender.leave()

    async def _end_sessions(self, grace_s: float) -> None:
        deadline_ns = time.monotonic_ns() + round(grace_s * 1e9)
        await asyncio.gather(*(self._delete(each, deadline_ns) for each in (self.session_id, *self._strays) if each))

    async def _delete(self, session_id: str, deadline_ns: int) -> None:
        exchange = Exchange(b"", 0, deadline_ns)
        exchange.fields = field_lines({SESSION_HEADER: session_id})
        with contextlib.suppress(CallError):
            if self._authorized is not None:
                exchange.fields += self._authorized.proof("DELETE", self._headers.endpoint) or b""
            await self._send("DELETE", self._headers.delete_head(), exchange)

    async def get(self, exchange: Exchange, last_event_id: str = "") -> WireReply | Message:
        """GET an event stream.

        Parameters
        ----------
        exchange
            The request whose reply the stream has; one with the id :data:`STANDING` has no reply.
        last_event_id
            The event to resume after, "" to start from now.

        Returns
        -------
        WireReply or Message
            The reply to the exchange, or the response if it is not a stream.

        Raises
        ------
        WireError, aiohttp.ClientError, OSError
            As they come from the wire or from aiohttp; :data:`UNANSWERED` is the end of the stream.
        """
        if last_event_id:
            exchange.fields = b"Last-Event-ID: " + last_event_id.encode() + b"\r\n"
        if self._authorized is None:
            return await self._send_get(exchange)
        if not last_event_id:
            exchange.fields = None
        return await self._authorized.send("GET", self._headers.endpoint, exchange, lambda: self._send_get(exchange))

    async def _send_get(self, exchange: Exchange) -> WireReply | Message:
        return await self._sender.send("GET", self._headers.get_head(), exchange)

    async def _send_lasting(self, exchange: Exchange) -> WireReply | Message:
        exchange.began_ns = exchange.began_ns or time.monotonic_ns()
        return await self._sender.send_plainly("POST", self._headers.endpoint, exchange, lasting=True)

    async def _post(self, exchange: Exchange, refusal: WireReply | None = None) -> WireReply | Message:
        """POST a request with credentials; ``refusal`` is the response if the channel sent it and it was refused."""
        if self._authorized is None:
            return await self._send("POST", self._headers.post_head, exchange)
        return await self._authorized.send(
            "POST",
            self._headers.endpoint,
            exchange,
            lambda: self._send("POST", self._headers.post_head, exchange),
            refusal,
        )

    async def post_following(self, exchange: Exchange) -> WireReply | Message:
        """POST a request and follow redirects; see :class:`Movable`."""
        answer = await self._post(exchange)
        if type(answer) is WireReply and answer.status in (307, 308):
            return await self._follow(answer, exchange)
        return answer

    def go_to(self, endpoint: URL) -> None:
        """Send everything to another URL of the same origin, with the credentials for it; see :class:`Movable`."""
        self._headers.move_to(endpoint)
        if self._authorizations is not None:
            self._authorize(self._authorizations.of(str(endpoint)))

    def _authorize(self, authorization: Authorization | None) -> None:
        """Send the credentials of an authorization from now on."""
        if self._authorized is not None:
            self._authorized.close()
        if authorization is not None:
            self._authorized = AuthorizedSender(
                self._server_id, authorization, self._waits, self._secrets, self._headers.set_credentials
            )
            self._authorized.take_token()

    async def _send(self, verb: str, head: bytes, exchange: Exchange) -> WireReply | Message:
        """Send a request and return what came back; failures become a :class:`CallError`."""
        exchange.began_ns = exchange.began_ns or time.monotonic_ns()
        try:
            return await self._sender.send(verb, head, exchange)
        except BaseException as error:
            return await self._go_on(error, exchange)

    async def _recovered(self, error: BaseException, exchange: Exchange) -> WireReply | Message:
        """Return what comes back after a request over the channel failed: sent again, or resumed, where possible."""
        try:
            if not may_resend(error, exchange, "POST"):
                return await self._go_on(error, exchange)
            try:
                return await self._sender.send_again(error, "POST", self._headers.post_head, exchange)
            except BaseException as failure:
                return await self._go_on(failure, exchange)
        finally:
            # An exception's traceback holds this frame.
            del error

    async def _go_on(self, error: BaseException, exchange: Exchange) -> Message:
        """Return the reply by resuming the event stream, or raise the :class:`CallError` for a failure."""
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
        """Send everything to another URL of the same origin from now on."""
        self._sender.has_answered = True
        self._headers.move_to(endpoint)

    def refuse(self, reply: WireReply) -> NoReturn:
        """Raise the error for a response that came in place of a stream."""
        self._reader.refuse(reply, self._headers.endpoint, has_session=False)

    def explain(self, error: BaseException, exchange: Exchange) -> NoReturn:
        """Raise the :class:`CallError` for a failure of :meth:`get`."""
        self._explain(error, exchange)

    def _deliver(self, reply: Message) -> bool:
        """Give a reply from the standing stream to its request, and return whether the request still waits.

        A server should answer on the response to the request (2025-11-25, basic/transports), but some use this stream.
        """
        return self._standing is not None and self._sender.deliver(reply)

    async def _follow(self, reply: WireReply, exchange: Exchange) -> WireReply | Message:
        """Follow redirects within the endpoint's origin, and use the new URL from then on.

        307 and 308 keep method and body (RFC 9110, sections 15.4.8 and 15.4.9) and mean that nothing was executed.
        Redirects to another origin are not followed, because that origin must not get the credentials.
        """
        asked = self._headers.endpoint
        for _ in range(_MAX_REDIRECTS):
            target = http_status.redirect_target(reply, asked)
            if target is None or target.origin() != self._headers.endpoint.origin():
                return reply
            try:
                exchange.sent = False
                answer = await self._sender.send_plainly("POST", target, exchange)
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
        if type(head) is not WireReply or self.session_id is not None or not 200 <= head.status < 300:
            return
        session_id = session_id_in(head)
        if session_id is None:
            return
        if not is_session_id(session_id):
            raise self._reader.broken("the session id has characters other than visible ASCII, or too many")
        self._headers.set(SESSION_HEADER, session_id)

    def _note_stray(self, head: WireReply | Message) -> None:
        """Keep the id of a session that came with a failure, so that it is deleted at the end."""
        self._strays = with_stray(self._strays, session_id_in(head), self.session_id)

    def _note_unanswered(self, exchange: Exchange) -> None:
        """Keep the id of a session whose reply broke off or was given up."""
        if exchange.head is not None:
            self._note_stray(exchange.head)

    def _explain(self, error: BaseException, exchange: Exchange) -> NoReturn:
        """Raise the :class:`CallError` for a failure; notify the sink if the reply is no longer awaited."""
        try:
            if isinstance(error, asyncio.CancelledError):
                self._give_up(exchange, "cancelled by the caller")
                raise error
            if isinstance(error, WireError):
                if error.kind == EXPIRED:
                    self._give_up(exchange, "deadline exceeded")
                where, first = self._headers.endpoint, not self._sender.has_answered
                raise self._failures.of_wire(error, where, exchange, self._reader, first=first) from None
            if isinstance(error, CallError) or not isinstance(error, aiohttp.ClientError | OSError):
                raise error
            if ConnectionWait.is_exhaustion(error) and not exchange.sent:
                message, hint = self._pool.shortage(ConnectionWait(), "")
                error = ConnectError(message, server_id=self._server_id, hint=hint)
                error.is_local = True
                raise error from None
            # A TimeoutError, which is an OSError, comes from a connection attempt here.
            # The text of a ClientResponseError quotes the URL with its query: never pass it on.
            explained = self._failures.of(error, self._headers.endpoint, exchange, first=not self._sender.has_answered)
            error = explained or self._reader.broken("the reply is not valid HTTP")
            del explained
            raise error from None
        finally:
            # An exception's traceback holds this frame.
            del error

    def _give_up(self, exchange: Exchange, reason: str) -> None:
        if exchange.sent and exchange.request_id > 0:
            self._sink.on_given_up(exchange, reason)
