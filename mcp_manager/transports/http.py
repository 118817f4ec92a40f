"""Streamable HTTP (2025-11-25, basic/transports): one POST per message, JSON or SSE replies."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar

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
from mcp_manager._core.jsonrpc import Message
from mcp_manager.auth import Challenge, parse_challenge
from mcp_manager.errors import (
    AuthError,
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    Delivery,
    ProtocolError,
    SessionLostError,
)
from mcp_manager.protocol.revisions import HANDSHAKE_REVISIONS
from mcp_manager.transports import _http_status as http_status
from mcp_manager.transports._http_reply import ReplyReader
from mcp_manager.transports.base import MessageSink, StreamListener
from mcp_manager.transports.deadline_timer import remaining_s
from mcp_manager.transports.http_ordinary import OrdinaryPath
from mcp_manager.transports.http_pool import connecting_server
from mcp_manager.transports.http_settings import HttpSettings
from mcp_manager.transports.lanes import Lane
from mcp_manager.transports.resumption import Resumptions
from mcp_manager.transports.standing_stream import StandingStream

__all__ = ["HttpTransport"]

T = TypeVar("T")

_ACCEPT_EVENTS: Final = "text/event-stream"
_ACCEPT: Final = f"application/json, {_ACCEPT_EVENTS}"
_SESSION_HEADER: Final = "Mcp-Session-Id"
_VERSION_HEADER: Final = "MCP-Protocol-Version"
# 2025-11-25, session management: visible ASCII.
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_MAX_REDIRECTS: Final = 3
# Of one request: a nonce, a token, more scopes.
_MAX_CHALLENGES: Final = 3


class HttpTransport:
    """Exchange frames with one MCP endpoint over the shared pool.

    Nearly every exchange goes over a lane: a connection that aiohttp opened and a compiled wire speaks on. What a wire
    is not made for, such as a redirect, takes the ordinary way of an aiohttp request.

    Parameters
    ----------
    settings
        The endpoint, and how it is reached.
    sink
        Takes requests and notifications that arrive on event streams, and the news of a session that is gone.
    """

    def __init__(self, settings: HttpSettings, sink: MessageSink) -> None:
        pool, server_id, authorization = settings.pool, settings.server_id, settings.authorization
        self._pool = pool
        self._endpoint = URL(settings.url)
        self._at = f" at {settings.endpoint}" if settings.endpoint is not None else ""
        self._server_id = server_id
        self._sink = sink
        self._limit = settings.max_response_bytes
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s)
        self._headers = {**settings.headers, "Accept": _ACCEPT, "Accept-Encoding": "identity"}
        self._head = render_head("POST", self._endpoint, self._headers)
        self._resumptions = Resumptions(self.get, self._bounded, sink, self._deliver)
        self._reader = ReplyReader(server_id, self._resumptions, self._limit)
        self._ordinary = OrdinaryPath(pool, self._reader, self._timeout, self._limit, settings.endpoint)
        # What needs a proof of its own cannot be rendered in advance.
        prepared = authorization is None or not authorization.per_request
        self._lanes = pool.lanes(self._endpoint, settings.endpoint) if settings.lanes and prepared else None
        self._authorization = authorization
        self._unsubscribe = authorization.subscribe(self._take_token) if authorization is not None else None
        self._channel: Channel | None = None
        self._settled = False
        self._resumes = False
        self._standing: StandingStream | None = None
        self._closed = False
        self._stopped = False
        self._waits: set[asyncio.Timeout] = set()
        self._token_generation = 0
        self._channel_generation = 0
        if authorization is not None:
            self._take_token()

    @property
    def pid(self) -> int:
        """Always 0: the server is nobody's child."""
        return 0

    @property
    def session_id(self) -> str | None:
        """The id the server gave this session, or ``None`` when it keeps none."""
        return self._headers.get(_SESSION_HEADER)

    @property
    def has_request_streams(self) -> bool:
        """Always true: one POST per request."""
        return True

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
        self._headers.pop(_VERSION_HEADER, None)
        if revision is None:
            self._headers.pop(_SESSION_HEADER, None)
        else:
            self._headers[_VERSION_HEADER] = revision
        self._render()

    async def open(self) -> None:
        """Do nothing: a connection is taken from the pool with the first request."""

    async def listen(self) -> None:
        """Open the stream on which the server speaks by itself; see :meth:`Transport.listen`."""
        if self._standing is not None or self._closed or self._stopped:
            return
        if not self._pool.admit_stream():
            self._sink.on_fault("no connection is left for an event stream", "raise max_connections")
            return
        self._standing = self._reader.listener = StandingStream(
            self.get, lambda: self.session_id is not None, self._sink, self._session_gone
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
        """POST a request and return its reply; see :meth:`Transport.exchange`.

        Raises :class:`SessionLostError` on a 404 that answers a session id: the request was not executed.
        """
        if self._authorization is None:
            return await self._reply_to(exchange, await self._send(self._head, exchange))
        return await self._reply_to(exchange, await self._send_authorized(exchange))

    async def exchange_lasting(self, exchange: Exchange) -> Message:
        """POST a request whose event stream stays open; see :meth:`Transport.exchange_lasting`."""
        try:
            if self._authorization is None:
                answer = await self._send_ordinarily("POST", self._endpoint, exchange, lasting=True)
            else:
                answer = await self._authorized("POST", exchange, lambda: self._send_lasting(exchange))
        except BaseException as error:
            self._explain(error, exchange)
        return await self._reply_to(exchange, answer)

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> Channel | None:
        """Return where the session's requests can go straight to an idle lane; see :meth:`Transport.channel`."""
        if self._lanes is not None:
            self._channel_generation = self._token_generation
            self._channel = Channel(self._lanes.wires, ids, self._reader, self._limit, self._head, session, dialect)
        return self._channel

    async def landed(self, exchange: Exchange, answer: Any) -> Message:
        """Read what the channel brought back; see :meth:`Transport.landed`."""
        if isinstance(answer, BaseException):
            answer = await self._go_on(answer, exchange)
        if self._authorization is not None and type(answer) is WireReply and answer.status in (401, 403):
            answer = await self._send_authorized(exchange, answer)
        return await self._reply_to(exchange, answer)

    async def _reply_to(self, exchange: Exchange, answer: WireReply | Message) -> Message:
        if not self._settled:
            self._take_session_id(exchange.head or answer)
        if type(answer) is WireReply and answer.status in (307, 308):
            answer = await self._follow(answer, exchange)
        if type(answer) is WireReply:
            try:
                return self._reader.read(answer, exchange, self._endpoint, has_session=_SESSION_HEADER in self._headers)
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
        if self._authorization is None:
            reply = await self._send(self._head, exchange)
        else:
            reply = await self._send_authorized(exchange)
        if type(reply) is WireReply and reply.status in (307, 308):
            reply = await self._follow(reply, exchange)
        if type(reply) is WireReply and not 200 <= reply.status < 300:
            http_status.raise_for_status(
                reply, self._server_id, self._endpoint, has_session=self.session_id is not None
            )

    def interrupt(self) -> None:
        """End every exchange under way; see :meth:`Transport.interrupt`."""
        self._stopped = True
        if self._standing is not None:
            self._standing.stop()
        if self._lanes is not None:
            self._lanes.wires.interrupt(self._reader)
        for wait in self._waits:
            # They belong to their callers' tasks: their time is up, nothing else happens to them.
            if not wait.expired():
                wait.reschedule(0.0)

    async def aclose(self, grace_s: float) -> None:
        """DELETE the session if the server gave one (SHOULD), ignoring what it answers."""
        if self._closed:
            return
        self._closed = True
        self._ordinary.close()
        if self._unsubscribe is not None:
            self._unsubscribe()
        standing = self._standing.stop() if self._standing is not None else None
        if standing is not None:
            await asyncio.wait({standing})
        if self.session_id is not None and grace_s > 0:
            exchange = Exchange(b"", 0, time.monotonic_ns() + round(grace_s * 1e9))
            with contextlib.suppress(CallError):
                if self._authorization is not None and self._authorization.per_request:
                    exchange.fields = _lines(self._authorization.fields("DELETE", str(self._endpoint)))
                await self._send(render_head("DELETE", self._endpoint, self._headers), exchange, "DELETE")

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
        if self._authorization is None:
            return await self._send_get(exchange)
        if not last_event_id:
            exchange.fields = None
        return await self._authorized("GET", exchange, lambda: self._send_get(exchange))

    async def _send_get(self, exchange: Exchange) -> WireReply | Message:
        return await self._transmit(render_head("GET", self._endpoint, self._headers_for("GET")), exchange, "GET")

    async def _send_lasting(self, exchange: Exchange) -> WireReply | Message:
        return await self._send_ordinarily("POST", self._endpoint, exchange, lasting=True)

    def _take_token(self) -> None:
        """Send every request with the token of now."""
        assert self._authorization is not None
        header = self._authorization.header()
        self._token_generation = self._authorization.generation
        if header is not None:
            self._headers[header[0]] = header[1]
            self._render()

    async def _send_authorized(self, exchange: Exchange, refusal: WireReply | None = None) -> WireReply | Message:
        """POST a request with credentials; ``refusal`` is what it met that went over the channel."""
        return await self._authorized("POST", exchange, lambda: self._send(self._head, exchange), refusal)

    async def _authorized(
        self,
        verb: str,
        exchange: Exchange,
        send: Callable[[], Awaitable[WireReply | Message]],
        refusal: WireReply | None = None,
    ) -> WireReply | Message:
        """Send a request, and again with what a 401 or 403 says it lacked: by then, nothing has been executed."""
        authorization = self._authorization
        assert authorization is not None
        own_fields = exchange.fields
        # What went over the channel may have left with an earlier token than that of now.
        generation = self._token_generation if self._token_generation == self._channel_generation else -1
        is_renewed = False
        if refusal is None:
            await self._authorizing(exchange, authorization.make_ready())
        for attempt in range(_MAX_CHALLENGES + 1):
            if refusal is None:
                generation = authorization.generation
                if authorization.per_request:
                    exchange.fields = (own_fields or b"") + _lines(authorization.fields(verb, str(self._endpoint)))
                reply = await send()
                if type(reply) is not WireReply:
                    return reply
                authorization.take_nonce(reply.header("dpop-nonce") or "")
                if reply.status not in (401, 403):
                    return reply
                refusal = reply
            challenge = _challenge_of(refusal, dpop=authorization.per_request)
            is_current = refusal.status == 401 and challenge.error != "use_dpop_nonce"
            is_current = is_current and generation == authorization.generation
            # One new token: a user must not be asked for a second one, which would be refused as well.
            if attempt == _MAX_CHALLENGES or (is_current and is_renewed):
                break
            is_renewed = is_renewed or is_current
            if not await self._authorizing(exchange, authorization.challenged(challenge, generation)):
                return refusal
            refusal, exchange.sent = None, False
        assert refusal is not None
        if refusal.status == 401:
            authorization.refused_again()
        return refusal

    async def _authorizing(self, exchange: Exchange, wanted: Awaitable[T]) -> T:
        """Wait for an authorization within the exchange's deadline; it goes on without whoever gives up."""
        delivery: Delivery = "rejected" if exchange.sent else "not_sent"
        try:
            async with self._bounded(exchange):
                return await wanted
        except WireError as error:
            if error.kind == STOPPED:
                exchange.sent = False
                self._explain_wire(error, exchange)
            raise AuthError(
                "the authorization was not completed within the deadline",
                server_id=self._server_id,
                delivery=delivery,
                retryable=True,
                hint="it goes on: call again once the user has agreed",
            ) from None
        except AuthError as error:
            raise error.for_caller(delivery) from None

    async def _send(self, head: bytes, exchange: Exchange, verb: str = "POST") -> WireReply | Message:
        """Send a request and return what came back, explaining what goes wrong."""
        try:
            return await self._transmit(head, exchange, verb)
        except BaseException as error:
            return await self._go_on(error, exchange)

    async def _transmit(self, head: bytes, exchange: Exchange, verb: str) -> WireReply | Message:
        """Send a request over a lane, or the ordinary way where there is none."""
        if self._lanes is None:
            return await self._send_ordinarily(verb, self._endpoint, exchange)
        lane = self._lanes.wires.take() or await self._connect(exchange)
        answer = lane.send(head, exchange, self._reader, self._limit)
        try:
            reply: WireReply | Message = await answer
        except BaseException:
            lane.abandon(answer)
            raise
        return reply

    async def _go_on(self, error: BaseException, exchange: Exchange) -> Message:
        """Return the reply that a stream of events still owes, or raise what a failure means."""
        reconnection = self._resumptions.reconnection(error, exchange) if self._resumes else None
        if reconnection is None:
            self._explain(error, exchange)
        if not self._settled and exchange.head is not None:
            self._take_session_id(exchange.head)
        try:
            return await self._resumptions.reply_to(exchange, reconnection)
        except BaseException as failure:
            self._explain(failure, exchange)

    def move_to(self, endpoint: URL) -> None:
        """Send everything to another place of the same origin from now on."""
        self._endpoint = endpoint
        self._render()

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

    def _session_gone(self, status: int) -> None:
        self._sink.on_closed(
            SessionLostError(f"the server no longer knows the session (HTTP {status})", server_id=self._server_id)
        )

    async def _connect(self, exchange: Exchange) -> Lane:
        assert self._lanes is not None
        connecting_server.set(self._server_id)
        async with self._bounded(exchange):
            while True:
                lane = await self._lanes.connect(self._timeout)
                if lane.idle:
                    return lane

    async def _send_ordinarily(
        self, verb: str, url: URL, exchange: Exchange, *, lasting: bool = False
    ) -> WireReply | Message:
        connecting_server.set(self._server_id)
        async with self._bounded(exchange):
            headers = self._headers_for(verb)
            return await self._ordinary.exchange(verb, url, headers, exchange, lasting=lasting)

    def _headers_for(self, verb: str) -> Mapping[str, str]:
        return self._headers if verb != "GET" else {**self._headers, "Accept": _ACCEPT_EVENTS}

    @contextlib.asynccontextmanager
    async def _bounded(self, exchange: Exchange) -> AsyncIterator[None]:
        """Bound what is awaited by the exchange's deadline and by :meth:`interrupt`."""
        wait = asyncio.timeout(remaining_s(exchange.deadline_ns))
        self._waits.add(wait)
        try:
            async with wait:
                yield
        except TimeoutError:
            if not wait.expired():
                raise
            raise WireError(STOPPED if self._stopped else EXPIRED) from None
        finally:
            self._waits.discard(wait)

    async def _follow(self, reply: WireReply, exchange: Exchange) -> WireReply | Message:
        """Send a request on to where the endpoint has moved, if that is the same server, and stay there.

        307 and 308 keep method and body (RFC 9110, sections 15.4.8 and 15.4.9) and mean that nothing was executed.
        Another origin must not get the credentials, nor decide where requests go.
        """
        asked = self._endpoint
        for _ in range(_MAX_REDIRECTS):
            target = http_status.redirect_target(reply, asked)
            if target is None or target.scheme != self._endpoint.scheme or target.origin() != self._endpoint.origin():
                return reply
            try:
                exchange.sent = False
                answer = await self._send_ordinarily("POST", target, exchange)
            except BaseException as error:
                self._explain(error, exchange)
            if type(answer) is not WireReply or answer.status not in (307, 308):
                if type(answer) is not WireReply or 200 <= answer.status < 300:
                    self._endpoint = target
                    self._render()
                    if not self._settled:
                        self._take_session_id(exchange.head or answer)
                return answer
            reply, asked = answer, target
        return reply

    def _take_session_id(self, head: WireReply | Message) -> None:
        if type(head) is not WireReply or _SESSION_HEADER in self._headers or not 200 <= head.status < 300:
            return
        session_id = head.header("mcp-session-id")
        if session_id is None:
            return
        if not _SESSION_ID.fullmatch(session_id):
            raise self._reader.broken("the session id has characters other than visible ASCII, or too many")
        self._headers[_SESSION_HEADER] = session_id
        self._render()

    def _render(self) -> None:
        self._head = render_head("POST", self._endpoint, self._headers)
        if self._channel is not None:
            self._channel.head = self._head

    def _explain(self, error: BaseException, exchange: Exchange) -> NoReturn:
        """Raise what a failure means; tell the server where nobody waits for its reply any more."""
        if isinstance(error, asyncio.CancelledError):
            self._give_up(exchange, "cancelled by the caller")
            raise error
        if isinstance(error, WireError):
            self._explain_wire(error, exchange)
        if isinstance(error, CallError) or not isinstance(error, aiohttp.ClientError | OSError):
            raise error
        # A TimeoutError is an OSError: here it is that of a connection attempt.
        # The text of a ClientResponseError quotes the URL with its query: never pass it on.
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) or not exchange.sent:
            raise ConnectError(
                f"cannot connect to {http_status.origin(self._endpoint)}{self._at}: {http_status.reason_of(error)}",
                server_id=self._server_id,
            ) from None
        if isinstance(error, aiohttp.ClientResponseError):
            raise self._reader.broken("the reply is not valid HTTP") from None
        self._raise_lost(http_status.reason_of(error))

    def _explain_wire(self, error: WireError, exchange: Exchange) -> NoReturn:
        kind = error.kind
        if kind == MALFORMED:
            raise self._reader.broken(f"the reply is not valid HTTP: {error.detail}") from None
        if kind == OVERSIZE:
            raise self._reader.oversize(error.size) from None
        if kind == UNANSWERED:
            raise self._reader.unanswered(error.detail) from None
        delivery: Delivery = "unknown" if exchange.sent else "not_sent"
        if kind == EXPIRED:
            self._give_up(exchange, "deadline exceeded")
            raise DeadlineExceededError(
                "no reply within the deadline", server_id=self._server_id, delivery=delivery
            ) from None
        if kind == STOPPED:
            raise ConnectionLostError(
                "the server was stopped during the call", server_id=self._server_id, delivery=delivery
            ) from None
        cause = error.__cause__
        self._raise_lost("the server closed it" if cause is None else http_status.reason_of(cause))

    def _give_up(self, exchange: Exchange, reason: str) -> None:
        if exchange.sent and exchange.request_id > 0:
            self._sink.on_given_up(exchange, reason)

    def _raise_lost(self, reason: str) -> NoReturn:
        raise ConnectionLostError(
            f"the connection to {http_status.origin(self._endpoint)} broke before the reply: {reason}",
            server_id=self._server_id,
            delivery="unknown",
        ) from None


def _challenge_of(reply: WireReply, *, dpop: bool) -> Challenge:
    """Read all ``WWW-Authenticate`` fields: each scheme may have its own."""
    return parse_challenge(reply.status, reply.header_values("www-authenticate"), dpop=dpop)


def _lines(fields: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode("latin-1")


def render_head(verb: str, url: URL, headers: Mapping[str, str]) -> bytes:
    """Render the head of a request up to where the length of its body belongs (RFC 9112, section 3)."""
    lines = [f"{verb} {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if verb == "POST":
        lines.append("Content-Type: application/json")
    lines.append("Content-Length: ")
    return "\r\n".join(lines).encode("latin-1")
