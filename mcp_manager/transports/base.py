"""The interface between sessions and transports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from typing import Any, NamedTuple, Protocol

from mcp_manager._core.call_path import Channel, RequestIds
from mcp_manager._core.http_message import Exchange, Request
from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import CallError
from mcp_manager.protocol.methods import never_asks
from mcp_manager.protocol.session_loss import Refusal
from mcp_manager.protocol.tasks import asks_for_result, related_task

__all__ = [
    "CallListener",
    "Exchange",
    "FrameCheck",
    "LifeSigns",
    "MessageSink",
    "MessageTaker",
    "ProgressReport",
    "Request",
    "Sendable",
    "StreamListener",
    "Transport",
    "permit_all",
    "put_off",
    "sole_listener",
    "takes_every_result",
]


class ProgressReport(NamedTuple):
    """How far a call has come: ``total`` is the last value of ``progress``, ``None`` if unknown."""

    progress: float
    total: float | None = None
    message: str | None = None


Sendable = Message | Request
"""A request that gets its id when it is sent, as the caller wrote it or as it was encoded here."""


FrameCheck = Callable[[bytes], None]
"""``check(frame)`` raises a :class:`CallError` if a message may not be sent.

Transports call it right before they send, after all waits: what was permitted before may be forbidden by then.
"""


def permit_all(frame: bytes) -> None:
    """Permit every message."""


class CallListener:
    """Takes what a server sends for one call before its reply.

    Attributes
    ----------
    token
        The progress token in the params of the call, ``None`` without one.
    takes_messages
        Whether it takes requests of the server, log messages and other notifications; else progress alone.
    takes_every_result
        Whether it takes a result that does not complete the call: one that asks for input, or announces a task.
    has_answered
        Whether it was asked something, so that the result may depend on its answer.
    stands_still
        Whether the deadline of the call stands still while it answers; see :meth:`put_off`.
    context
        The context in which it answers requests; ``None`` for that of handlers.
    party
        Whom the call is made for, if that matters: see :func:`sole_listener`.
    """

    token: str | None = None
    party: str | None = None
    context: Context | None = None
    takes_messages: bool = False
    takes_every_result: bool = False
    has_answered: bool = False
    stands_still: bool = False

    __slots__ = ()

    def take_progress(self, params: bytes, report: ProgressReport) -> None:
        """Take a progress report, as received and decoded; must not raise or block."""

    def take_notification(self, method: str, params: bytes | None) -> None:
        """Take another notification; must not raise or block."""

    def answer(self, method: str, params: dict[str, Any], key: str = "") -> Any:
        """Return the answer to a request of the server, or an awaitable of it, which :meth:`aclose` ends.

        ``key`` is the name that the server gave the request, "" without one. It may raise anything.
        """
        raise NotImplementedError

    def put_off(self, deadline_ns: int) -> int:
        """Return a deadline of the call, put off by the time that its answers to the server have taken.

        ``deadline_ns`` is a time of :func:`time.monotonic_ns`; 0, for no deadline, stays 0. Must not raise.
        """
        return deadline_ns

    async def finish(self, deadline_ns: int) -> None:
        """Wait until all that was taken is handed over, or until the deadline, a time of :func:`time.monotonic_ns`."""

    async def aclose(self) -> None:
        """Take note that the call has ended: nothing more is handed over."""


def put_off(listener: CallListener | None, deadline_ns: int) -> int:
    """Return a deadline of a call, put off by the time that does not count; see :meth:`CallListener.put_off`."""
    return deadline_ns if listener is None else listener.put_off(deadline_ns)


def takes_every_result(listener: CallListener | None) -> bool:
    """Tell whether a call is given results that do not complete it; see :class:`CallListener`."""
    return listener is not None and listener.takes_every_result


def sole_listener(message: Message, exchanges: Iterable[Exchange]) -> CallListener | None:
    """Return the listener of the only request under way that can make a server ask or log something.

    On a channel that all messages share, nothing says which request a message belongs to. If there are several such
    requests, it goes to the latest of them if all are made for the same party: whichever it belongs to, it reaches
    nobody else. Otherwise, and if there is none, it belongs to nobody in particular: ``None``. A message of a task of
    2025-11-25 belongs to the request for the result of that task, whatever else is under way.
    """
    task_id = related_task(message.params)
    found: Exchange | None = None
    for exchange in exchanges:
        if never_asks(exchange.frame) if task_id is None else not asks_for_result(exchange.frame, task_id):
            continue
        if found is not None and not _is_of_one_party(found, exchange):
            return None
        found = exchange
    return None if found is None else found.listener


def _is_of_one_party(one: Exchange, other: Exchange) -> bool:
    """Return whether two requests are surely made for the same party."""
    first, second = one.listener, other.listener
    return first is not None and second is not None and first.party is not None and first.party == second.party


class MessageTaker(Protocol):
    """Takes the messages that are not the reply to an exchange."""

    def on_message(self, message: Message, listener: CallListener | None = None) -> None:
        """Take a request, a notification or an unmatched reply of the server; must not raise or block.

        Parameters
        ----------
        message
            The message.
        listener
            That of the request which it belongs to; ``None`` if it belongs to none, or nobody can tell.
        """

    def on_fault(self, kind: str, detail: str) -> None:
        """Count something that the server did wrong and that affects no call.

        Parameters
        ----------
        kind
            One of a few fixed phrases.
        detail
            More about it, without secrets.
        """


class MessageSink(MessageTaker, Protocol):
    """Takes what a transport reports to its session."""

    def on_given_up(self, exchange: Exchange, reason: str) -> None:
        """Note that nobody waits any longer for the reply to a request that may have been sent."""

    def on_closed(self, error: CallError) -> None:
        """Note, once, that the transport has closed for good without having been asked to."""

    async def is_lost(self, refusal: Refusal) -> bool:
        """Find out whether the session is lost, which the refusal of a message other than a request suggests."""


class StreamListener(Protocol):
    """Owns an event stream that is not the reply to a request."""

    def stream_opened(self) -> None:
        """Note that the server has started the stream; must not raise or block."""

    def take_named_event(self, name: str, data: bytes) -> None:
        """Take an event that is not a message; must not raise or block."""


class LifeSigns(Protocol):
    """Signs that a program works, apart from its answers to probes; ``messages`` counts what it has written."""

    messages: int

    def called_until_ns(self) -> int:
        """Return the latest deadline of its unanswered requests, including those given up; 0 if there are none."""


class Transport(Protocol):
    """Carries the messages of one MCP session."""

    @property
    def pid(self) -> int:
        """The process id of the transport's child, 0 if it has none."""

    @property
    def life_signs(self) -> LifeSigns | None:
        """The signs of life of the transport's child, ``None`` if it has none."""

    @property
    def has_request_streams(self) -> bool:
        """Whether every request has a response of its own, with header fields, that cancels the request when closed."""

    @property
    def keeps_session(self) -> bool:
        """Whether the server keeps a session that it can lose while the transport is open."""

    @property
    def last_words(self) -> str:
        """What a program wrote that is not a message and may explain why it does not answer; "" if nothing."""

    async def open(self) -> None:
        """Prepare to exchange frames; raises a :class:`CallError` with delivery ``not_sent``."""

    def settle(self, revision: str | None) -> None:
        """Set the protocol revision from now on; ``None`` before a handshake, which negotiates it."""

    async def listen(self) -> None:
        """Open the stream for unsolicited messages of the server, if it offers one; never fails.

        For revisions with a handshake: called after ``notifications/initialized`` was accepted, before the first
        request.
        """

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> Channel | None:
        """Return a channel by which the compiled call path sends requests itself, ``None`` without one."""

    def landed(self, exchange: Exchange, answer: Any) -> Awaitable[Message]:
        """Return the reply to a request of the channel, given its result or exception; as :meth:`exchange`."""

    async def exchange(self, exchange: Exchange) -> Message:
        """Send a request and return the reply with its id, a result or an error.

        If it is cancelled, a late reply is dropped.

        Raises
        ------
        DeadlineExceededError
            The exchange's deadline passed.
        CallError
            No reply arrived for another reason.
        """

    async def exchange_lasting(self, exchange: Exchange) -> Message:
        """Send a request whose reply comes at the end of a long-lived stream; otherwise as :meth:`exchange`.

        Its connection does not count against ``max_connections``. Cancelling closes the stream.
        """

    async def notify(self, frame: bytes, deadline_ns: int, fields: bytes | None = None) -> None:
        """Send a message that gets no reply: a notification, or the reply to a request of the server.

        Parameters
        ----------
        frame
            The message.
        deadline_ns
            A time of :func:`time.monotonic_ns`, 0 if the caller bounds it.
        fields
            Header fields of this message alone, each with its line end.
        """

    def interrupt(self) -> None:
        """Fail every exchange under way with a :class:`ConnectionLostError`, because the session is being stopped."""

    async def aclose(self, grace_s: float) -> None:
        """End the session in the order that the specification demands, in steps of ``grace_s`` seconds; idempotent."""
