"""One session over one channel that carries messages both ways: replies are matched by their ids."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, NoReturn

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.deadlines import Deadline
from mcp_manager._core.jsonrpc import Message
from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import CallError, ConnectError, ConnectionLostError, DeadlineExceededError
from mcp_manager.protocol.revisions import BATCHING_REVISIONS
from mcp_manager.runtime.deadline_timer import DeadlineTimer
from mcp_manager.transports.base import CallListener, Exchange, FrameCheck, MessageSink, put_off, sole_listener
from mcp_manager.transports.containment import Containment

__all__ = ["DuplexTransport", "Waiting"]

# How many given-up requests are remembered; a reply to an older one is counted as a stray reply.
_MAX_FORGOTTEN: Final = 1024


class Waiting(Deadline):
    """A request that waits for its reply, and its deadline."""

    __slots__ = ("_transport", "bad_lines", "exchange", "reply")

    def __init__(
        self, exchange: Exchange, reply: asyncio.Future[Message], transport: DuplexTransport, bad_lines: int
    ) -> None:
        self.exchange: Exchange = exchange
        self.reply: asyncio.Future[Message] = reply
        # The number of lines that were not messages when it was sent.
        self.bad_lines: int = bad_lines
        self._transport = transport

    def expired(self) -> None:
        """Fail the request: its deadline has passed, unless its listener puts that off."""
        if not self.reply.done() and not self._transport.wait_on(self):
            self.reply.set_exception(self._transport.expired(self.exchange, self.bad_lines))


class DuplexTransport(ABC):
    """Match the replies of a server with the requests that wait for them.

    Parameters
    ----------
    config
        The server's configuration.
    server_id
        Names the server in errors.
    sink
        Takes the server's requests and notifications, its faults, and its end.
    timer
        Takes the deadlines of calls.
    secrets
        Masks the server's credentials.
    check
        Checks each message right before it is sent.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        server_id: str,
        sink: MessageSink,
        timer: DeadlineTimer,
        secrets: Secrets,
        check: FrameCheck,
    ) -> None:
        self._server_id = server_id
        self._sink = sink
        self._check = check
        self._request_timeout_ns = round(config.request_timeout_s * 1e9)
        self._secrets = secrets
        self._containment = Containment(server_id, secrets)
        self._wheel = timer.wheel
        self._lag = timer.lag
        self._pending: dict[int, Waiting] = {}
        # The deadlines of given-up requests.
        self._forgotten: dict[int, int] = {}
        # As long as one of them may still be worked on, and the party of all of them, if they have the same.
        self._doubtful_until_ns = 0
        self._doubtful_party: str | None = None
        self._opened = False
        self._closing = False
        self._failure: CallError | None = None
        self._may_batch = True
        # The last line that was not a message, masked and printable, and the number of such lines.
        self._bad_line = ""
        self._bad_lines = 0

    @abstractmethod
    async def _write(self, exchange: Exchange) -> None:
        """Hand a message to the server; raises ``BrokenPipeError`` if it takes none any more."""

    @abstractmethod
    def _broken(self) -> CallError:
        """Make the error for a message that the server takes no more, although it has not ended."""

    def expired(self, exchange: Exchange, bad_lines: int = -1) -> DeadlineExceededError:
        """Make the error for a missed deadline; its hint quotes a line that is not a message and came meanwhile."""
        is_telling = 0 <= bad_lines < self._bad_lines
        error = DeadlineExceededError(
            "no reply within the deadline",
            server_id=self._server_id,
            delivery="unknown" if exchange.sent else "not_sent",
            hint=f"meanwhile it wrote a line that is not a message: {self._bad_line}" if is_telling else "",
        )
        self._lag.excuse(error, exchange.began_ns, exchange.deadline_ns)
        return error

    def wait_on(self, waiting: Waiting) -> bool:
        """Wait on for the reply to a request whose deadline its listener puts off; return whether it does."""
        exchange = waiting.exchange
        due_ns = put_off(exchange.listener, exchange.deadline_ns)
        if due_ns <= time.monotonic_ns():
            return False
        self._wheel.add(waiting, due_ns)
        return True

    def called_until_ns(self) -> int:
        """Return the latest deadline of its unanswered requests; see :class:`LifeSigns`."""
        exchanges = (each.exchange for each in self._pending.values())
        waiting = (put_off(each.listener, each.deadline_ns) for each in exchanges)
        return max([0, *waiting, *self._forgotten.values()])

    @property
    def keeps_session(self) -> bool:
        """Always false: the channel is the session."""
        return False

    @property
    def has_request_streams(self) -> bool:
        """Always false: all messages share one channel."""
        return False

    def settle(self, revision: str | None) -> None:
        """Accept batches from now on only if the revision has them; no version is sent with the messages."""
        self._may_batch = revision is None or revision in BATCHING_REVISIONS

    async def listen(self) -> None:  # noqa: B027 (that is what it does)
        """Do nothing: the channel is open in both directions."""

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> None:  # noqa: B027 (there is none)
        """Return ``None``: all requests share one channel."""

    def landed(self, exchange: Exchange, answer: Any) -> NoReturn:
        """Never called: there is no channel."""
        raise NotImplementedError

    async def exchange(self, exchange: Exchange) -> Message:
        """Send a request and wait for the reply with its id; see :meth:`Transport.exchange`."""
        self._check_open()
        request_id = exchange.request_id
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        exchange.began_ns = time.monotonic_ns()
        waiting = Waiting(exchange, reply, self, self._bad_lines)
        self._pending[request_id] = waiting
        if exchange.deadline_ns:
            self._wheel.add(waiting, exchange.deadline_ns)
        try:
            try:
                await self._write(exchange)
                exchange.sent = True
            except BrokenPipeError:
                # The server is about to end; its end fails the reply with a more specific error.
                pass
            return await reply
        except DeadlineExceededError:
            if exchange.sent:
                self._sink.on_given_up(exchange, "deadline exceeded")
            raise
        except asyncio.CancelledError:
            if exchange.sent:
                self._sink.on_given_up(exchange, "cancelled by the caller")
            raise
        finally:
            self._wheel.remove(waiting)
            if self._pending.pop(request_id, None) is not None and exchange.sent:
                self._forget(request_id, exchange)
            if reply.done() and not reply.cancelled():
                reply.exception()
            # They have the exception, whose traceback holds this frame.
            del reply, waiting

    async def exchange_lasting(self, exchange: Exchange) -> Message:
        """Send a request; see :meth:`Transport.exchange_lasting`."""
        return await self.exchange(exchange)

    async def notify(self, frame: bytes, deadline_ns: int, fields: bytes | None = None) -> None:
        """Send a message that gets no reply."""
        self._check_open()
        try:
            await self._write(Exchange(frame, 0, deadline_ns))
        except BrokenPipeError:
            error = self._failure or self._broken()
            raise error.for_caller("not_sent") from None

    def interrupt(self) -> None:
        """Fail every exchange under way; see :meth:`Transport.interrupt`."""
        self._fail_pending(ConnectionLostError("the server was stopped during the call", server_id=self._server_id))

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure.for_caller("not_sent")
        if not self._opened:
            raise ConnectError("the server was not started", server_id=self._server_id)

    def _forget(self, request_id: int, exchange: Exchange) -> None:
        """Remember a given-up request, so that its late reply is dropped silently."""
        party = None if exchange.listener is None else exchange.listener.party
        self._doubtful_party = party if not self._is_doubtful or party == self._doubtful_party else None
        if len(self._forgotten) >= _MAX_FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]
        # A given-up request explains a busy program for request_timeout_s at the most, not for its own longer deadline.
        self._doubtful_until_ns = time.monotonic_ns() + self._request_timeout_ns
        self._forgotten[request_id] = min(exchange.deadline_ns, self._doubtful_until_ns)

    @property
    def _is_doubtful(self) -> bool:
        """Whether the server may still work on a request that was given up."""
        return bool(self._forgotten) and time.monotonic_ns() < self._doubtful_until_ns

    def _take_reply(self, message: Message) -> bool:
        request_id = message.id
        if isinstance(request_id, int) and request_id in self._pending:
            reply = self._pending.pop(request_id).reply
            if not reply.done():
                reply.set_result(message)
            return True
        if isinstance(request_id, int) and request_id in self._forgotten:
            del self._forgotten[request_id]
        else:
            self._tell(self._sink.on_fault, "a reply that nobody waits for", "")
        return False

    def _take_unasked(self, message: Message) -> None:
        """Pass on a request or a notification of the server."""
        self._tell(self._sink.on_message, message, self._sole_listener(message))

    def _sole_listener(self, message: Message) -> CallListener | None:
        """Return the listener of the only call that a message can belong to; see :func:`sole_listener`."""
        listener = sole_listener(message, (each.exchange for each in self._pending.values()))
        if listener is None or not self._is_doubtful:
            return listener
        # It may belong to a request that was given up, perhaps by another party.
        return listener if listener.party is not None and listener.party == self._doubtful_party else None

    def _faulty(self, kind: str, detail: str) -> None:
        self._tell(self._sink.on_fault, kind, detail)

    def _tell(self, listener: Callable[..., None], *news: object) -> None:
        """Call a method of the sink; an exception there must not stop the reading."""
        try:
            listener(*news)
        except Exception as error:
            # Logged: it is not the server's fault.
            self._containment.failure(error, "unknown")

    def _fail(self, error: CallError) -> None:
        """Fail every call under way; later calls fail with the first error."""
        if self._failure is None:
            self._failure = error
        self._fail_pending(error)

    def _fail_pending(self, error: CallError) -> None:
        pending = list(self._pending.values())
        self._pending.clear()
        for waiting in pending:
            if not waiting.reply.done():
                waiting.reply.set_exception(error.for_caller("unknown" if waiting.exchange.sent else "not_sent"))
