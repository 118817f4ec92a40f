"""HTTP+SSE (2024-11-05, basic/transports): one event stream delivers all messages, POSTs to its endpoint send them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final, NamedTuple, NoReturn

from yarl import URL

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.http_message import LOST, STANDING, UNANSWERED, Exchange, WireError, WireReply
from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import (
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ProtocolError,
)
from mcp_manager.protocol.session_loss import Refusal
from mcp_manager.runtime.background import background_task, bare_context
from mcp_manager.transports.base import CallListener, MessageSink, sole_listener
from mcp_manager.transports.containment import Containment
from mcp_manager.transports.exchange_timeout import exchange_timeout
from mcp_manager.transports.http import status as http_status
from mcp_manager.transports.http.options import HttpOptions
from mcp_manager.transports.http.transport import HttpTransport
from mcp_manager.transports.http.urls import exact_url, resolve

__all__ = ["HttpSseTransport"]

_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_ENDPOINT_BYTES: Final = 8192
# How long a POST may still take once its reply has come on the stream.
_ACKNOWLEDGED_S: Final = 1.0
# How many given-up requests are remembered.
_MAX_GIVEN_UP: Final = 1024
# How long a server may still work on them.
_DOUBTFUL_NS: Final = 60 * 10**9


class _Waiting(NamedTuple):
    """A request that waits for its reply."""

    exchange: Exchange
    reply: asyncio.Future[Message]


class HttpSseTransport:
    """Exchange messages with a server that speaks the transport of 2024-11-05.

    The stream is the session. When it ends, every call under way fails with delivery ``unknown``, and the next call
    opens a new session. The stream does not count against ``max_connections``; the POSTs do.

    Parameters
    ----------
    options, sink
        As for :class:`HttpTransport`; the URL is that of the stream.
    """

    def __init__(self, options: HttpOptions, sink: MessageSink) -> None:
        self._url = exact_url(options.url)
        self._server_id = options.server_id
        self._sink = sink
        self._lag = options.pool.lag
        self._containment = Containment(options.server_id, options.secrets)
        # It sends; this class handles what arrives.
        self._http = HttpTransport(options, self)
        self._http.listen_with(self)
        self._pending: dict[int, _Waiting] = {}
        # The requests that were given up, on which the server may still work until then.
        self._given_up: set[int] = set()
        self._doubtful_until_ns = 0
        self._named: asyncio.Event = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._failure: CallError | None = None
        self._has_endpoint = False
        self._closing = False

    @property
    def pid(self) -> int:
        """Always 0: the server is not a child process."""
        return 0

    @property
    def life_signs(self) -> None:
        """Always ``None``: the server is not a child process."""

    @property
    def has_request_streams(self) -> bool:
        """Always false: all replies share one stream."""
        return False

    @property
    def keeps_session(self) -> bool:
        """Whether a session was started; its id is part of the endpoint that the stream names."""
        return self._http.keeps_session

    @property
    def last_words(self) -> str:
        """Always empty: whatever is not a message is counted as a fault of the stream."""
        return ""

    def settle(self, revision: str | None) -> None:
        """Send ``MCP-Protocol-Version`` from now on: servers of this transport ignore it or require it."""
        self._http.settle(revision)

    async def open(self) -> None:
        """Open the stream and wait for the endpoint that it names; the caller must bound it in time.

        Raises
        ------
        CallError
            There is no such stream, or it names an endpoint of another origin.
        """
        self._reading = background_task(self._read(), "read the stream of a session", context=bare_context())
        await self._named.wait()
        self._check_open()

    async def listen(self) -> None:
        """Do nothing: the stream is already open."""

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> None:
        """Return ``None``: replies do not come on the connection of the request."""

    def landed(self, exchange: Exchange, answer: Any) -> NoReturn:
        """Never called: there is no channel."""
        raise NotImplementedError

    async def exchange(self, exchange: Exchange) -> Message:
        """POST a request and wait for its reply on the stream; see :meth:`Transport.exchange`."""
        self._check_open()
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[exchange.request_id] = _Waiting(exchange, reply)
        exchange.began_ns = time.monotonic_ns()
        try:
            with exchange_timeout(exchange) as waiting:
                async with waiting:
                    await self._post(exchange, reply)
                    return await reply
        except TimeoutError as error:
            if isinstance(error, CallError):
                self._give_up(exchange, error.delivery != "not_sent", "deadline exceeded")
                raise
            self._give_up(exchange, True, "deadline exceeded")
            late = DeadlineExceededError("no reply within the deadline", server_id=self._server_id, delivery="unknown")
            self._lag.excuse(late, exchange.began_ns, exchange.deadline_ns)
            try:
                raise late from None
            finally:
                # Its traceback holds this frame.
                del late
        except asyncio.CancelledError:
            self._give_up(exchange, True, "cancelled by the caller")
            raise
        finally:
            self._pending.pop(exchange.request_id, None)
            if reply.done() and not reply.cancelled():
                reply.exception()
            # It has the exception, whose traceback holds this frame.
            del reply

    async def exchange_lasting(self, exchange: Exchange) -> Message:
        """Send as :meth:`exchange`: the revisions of this transport have no long-lived replies."""
        return await self.exchange(exchange)

    async def notify(self, frame: bytes, deadline_ns: int, fields: bytes | None = None) -> None:
        """POST a message that gets no reply; any 2xx means accepted."""
        self._check_open()
        await self._http.notify(frame, deadline_ns)

    def interrupt(self) -> None:
        """Fail every exchange under way; see :meth:`Transport.interrupt`."""
        self._closing = True
        self._fail(ConnectionLostError("the server was stopped during the call", server_id=self._server_id))
        self._http.interrupt()

    async def aclose(self, grace_s: float) -> None:
        """Close the stream, which ends the session and fails the calls under way; idempotent."""
        self._closing = True
        self._fail(ConnectionLostError("the session was closed during the call", server_id=self._server_id))
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        await self._http.aclose(0.0)

    # Reading the stream

    def stream_opened(self) -> None:
        """Do nothing; see :class:`StreamListener`. The session starts with the endpoint."""

    def take_named_event(self, name: str, data: bytes) -> None:
        """Take the endpoint."""
        if name != "endpoint":
            return
        if self._has_endpoint:
            self._sink.on_fault("a second endpoint", "")
            return
        endpoint = self._endpoint_in(data)
        if endpoint is None:
            self._fail(
                ProtocolError(
                    "the stream names an endpoint that is not a URL of the same origin",
                    server_id=self._server_id,
                    delivery="not_sent",
                )
            )
            return
        self._has_endpoint = True
        self._http.move_to(endpoint)
        self._named.set()

    def on_message(self, message: Message, listener: CallListener | None = None) -> None:
        """Take a message of the stream, which belongs to no request; see :class:`MessageSink`."""
        waiting = self._pending.get(message.id) if message.method is None and isinstance(message.id, int) else None
        if waiting is None or waiting.reply.done():
            if message.method is None and isinstance(message.id, int):
                self._given_up.discard(message.id)
            self._sink.on_message(message, self._sole_listener(message))
        else:
            waiting.reply.set_result(message)

    def _sole_listener(self, message: Message) -> CallListener | None:
        if self._given_up and time.monotonic_ns() < self._doubtful_until_ns:
            return None
        return sole_listener(message, (each.exchange for each in self._pending.values()))

    def on_fault(self, kind: str, detail: str) -> None:
        """Pass on a fault; see :class:`MessageSink`."""
        self._sink.on_fault(kind, detail)

    def on_given_up(self, exchange: Exchange, reason: str) -> None:
        """Never called: requests are given up here."""

    def on_closed(self, error: CallError) -> None:
        """Never called: the stream is read here."""

    async def is_lost(self, refusal: Refusal) -> bool:
        """Never called: a refusal of the stream ends the session."""
        return False

    # Internals

    async def _post(self, exchange: Exchange, reply: asyncio.Future[Message]) -> None:
        """POST a request; stop waiting for the POST a second after the reply, or the end of the stream, has come."""
        loop = asyncio.get_running_loop()
        sending = asyncio.timeout(None)

        def overtaken(_: asyncio.Future[Message]) -> None:
            # The callback may already be scheduled when the POST ends.
            with contextlib.suppress(RuntimeError):
                sending.reschedule(loop.time() + _ACKNOWLEDGED_S)

        try:
            async with sending:
                reply.add_done_callback(overtaken)
                try:
                    # Some servers accept a request only with its reply; the caller bounds both, because the deadline
                    # may stand still meanwhile.
                    stands_still = exchange.listener is not None and exchange.listener.stands_still
                    await self.notify(exchange.frame, 0 if stands_still else exchange.deadline_ns)
                finally:
                    reply.remove_done_callback(overtaken)
        except TimeoutError:
            if not sending.expired():
                raise

    async def _read(self) -> None:
        """Read the stream to its end, and then end the session."""
        exchange = Exchange(b"", STANDING, 0)
        try:
            answer = await self._get(exchange)
            self._fail(self._no_stream(answer))
        except CallError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(ConnectError("the server is being stopped", server_id=self._server_id, retryable=False))
            raise
        except Exception as error:
            # Callers that wait for the endpoint or for a reply must not wait for ever.
            self._fail(self._containment.failure_of_fault(error, "unknown"))

    async def _get(self, exchange: Exchange) -> WireReply:
        answer: WireReply | Message
        for _ in range(_MAX_REDIRECTS):
            try:
                answer = await self._http.get(exchange)
            except WireError as error:
                if exchange.head is None or error.kind not in (LOST, UNANSWERED):
                    self._http.explain(error, exchange)
                raise ConnectionLostError(
                    "the event stream that carries all replies has ended", server_id=self._server_id, delivery="unknown"
                ) from None
            except Exception as error:
                self._http.explain(error, exchange)
            assert type(answer) is WireReply
            target = http_status.redirect_target(answer, self._url) if answer.status in _REDIRECTS else None
            if target is None or target.origin() != self._url.origin():
                return answer
            self._url = target
            self._http.move_to(target)
        assert type(answer) is WireReply
        return answer

    def _no_stream(self, answer: WireReply) -> CallError:
        if 200 <= answer.status < 300:
            return ProtocolError(
                "the server answered GET with something other than an event stream",
                server_id=self._server_id,
                delivery="rejected",
            )
        try:
            self._http.refuse(answer)
        except CallError as error:
            if answer.status in (404, 405):
                error.hint = 'set url to the event stream, most often /sse, or transport to "http"'
            return error

    def _fail(self, error: CallError) -> None:
        """End the session, once: fail the calls under way, and notify the sink unless it was closed on purpose."""
        if self._failure is not None:
            return
        self._failure = error
        for waiting in self._pending.values():
            if not waiting.reply.done():
                waiting.reply.set_exception(error.for_caller("unknown"))
        was_open = self._named.is_set()
        self._named.set()
        if was_open and not self._closing:
            self._sink.on_closed(error)

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure.for_caller("not_sent")
        if not self._has_endpoint:
            raise ConnectError("the transport was not opened", server_id=self._server_id)

    def _give_up(self, exchange: Exchange, sent: bool, reason: str) -> None:
        if sent:
            if len(self._given_up) < _MAX_GIVEN_UP:
                self._given_up.add(exchange.request_id)
            self._doubtful_until_ns = time.monotonic_ns() + _DOUBTFUL_NS
            self._sink.on_given_up(exchange, reason)

    def _endpoint_in(self, data: bytes) -> URL | None:
        """Parse the URL to POST to. It must have the same origin, because the POSTs carry credentials."""
        if len(data) > _MAX_ENDPOINT_BYTES:
            return None
        try:
            endpoint = resolve(self._url, data.decode())
            same = endpoint.origin() == self._url.origin() and endpoint.raw_user is None
        except ValueError:
            return None
        return endpoint if same else None
