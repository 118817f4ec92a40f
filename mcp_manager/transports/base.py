"""The seam between a session and the bytes: what every transport takes and gives."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from mcp_manager._core.call_path import Channel, RequestIds
from mcp_manager._core.http_message import Exchange, Request
from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import CallError
from mcp_manager.protocol.session_loss import Refusal

__all__ = ["Exchange", "LifeSigns", "MessageSink", "MessageTaker", "Request", "Sendable", "StreamListener", "Transport"]


Sendable = Message | Request
"""What can be sent as a request, under an id that is not known yet: a request as it came, or as it was encoded."""


class MessageTaker(Protocol):
    """Where messages go that are not the reply to an exchange."""

    def on_message(self, message: Message) -> None:
        """Take a request, notification or unmatched reply of the server; must not raise or block."""

    def on_fault(self, kind: str, detail: str) -> None:
        """Count what the server sent that it should not, and that harms no call.

        ``kind`` is one of a few fixed phrases, ``detail`` quotes nothing secret.
        """


class MessageSink(MessageTaker, Protocol):
    """What a transport tells its session."""

    def on_given_up(self, exchange: Exchange, reason: str) -> None:
        """Learn that nobody waits for the reply to an exchange any more, of which a byte may have left."""

    def on_closed(self, error: CallError) -> None:
        """Learn, once, that the transport is gone for good without having been asked to close."""

    async def is_lost(self, refusal: Refusal) -> bool:
        """Find out whether the session is lost, as the refusal of something that is no request suggests."""


class StreamListener(Protocol):
    """Who keeps a stream of events open that is no reply's."""

    def stream_opened(self) -> None:
        """Learn that the server has begun it; must not raise or block."""

    def take_named_event(self, name: str, data: bytes) -> None:
        """Take an event that is no message; must not raise or block."""


class LifeSigns(Protocol):
    """What a program shows of itself beside the answers to probes: ``messages`` is how many it has written."""

    messages: int

    def called_until_ns(self) -> int:
        """Return the latest deadline of the requests it has not answered, those that were given up included; 0 without any."""


class Transport(Protocol):
    """Bytes in, bytes out, for one MCP session."""

    @property
    def pid(self) -> int:
        """The process id of the child behind it, 0 if there is none."""

    @property
    def life_signs(self) -> LifeSigns | None:
        """What the child behind it shows of itself, ``None`` without one."""

    @property
    def has_request_streams(self) -> bool:
        """Whether every request has a response of its own: then it has header fields too, and closing it cancels."""

    @property
    def keeps_session(self) -> bool:
        """Whether the server knows a session that it can lose while the transport lives."""

    @property
    def last_words(self) -> str:
        """What a program wrote that is no message, and may tell why it does not answer; "" where there is none."""

    async def open(self) -> None:
        """Make ready to exchange frames; raises a :class:`CallError` with delivery ``not_sent``."""

    def settle(self, revision: str | None) -> None:
        """Learn the revision that is spoken from now on; ``None`` before a handshake, which decides on it."""

    async def listen(self) -> None:
        """Open what the server needs to speak without being asked, if it offers it; never fails.

        For the handshake era, once ``notifications/initialized`` was accepted and before anything is asked.
        """

    def channel(self, session: object, ids: RequestIds, dialect: Any = None) -> Channel | None:
        """Return where the session's requests can be sent past this transport, ``None`` if nowhere."""

    def landed(self, exchange: Exchange, answer: Any) -> Awaitable[Message]:
        """Return the reading of what the channel brought back, or of the exception that it raised; as :meth:`exchange`."""

    async def exchange(self, exchange: Exchange) -> Message:
        """Send a request frame and return the reply carrying its id, result or error.

        Raises a :class:`CallError` when no reply arrived: :class:`DeadlineExceededError` when the exchange's deadline
        passed. Cancelling forgets the request; a late reply is dropped.
        """

    async def exchange_lasting(self, exchange: Exchange) -> Message:
        """Send a request whose reply ends a stream that stays open for long; otherwise as :meth:`exchange`.

        It takes no place of those that calls wait for. Cancelling closes the stream.
        """

    async def notify(self, frame: bytes, deadline_ns: int, fields: bytes | None = None) -> None:
        """Send a frame that gets no reply (a notification, or a reply to the server's request).

        ``deadline_ns`` is a time of :func:`time.monotonic_ns`, 0 where the caller bounds it; ``fields`` are as those of
        an exchange.
        """

    def interrupt(self) -> None:
        """End every exchange under way with a :class:`ConnectionLostError`: the session is being stopped."""

    async def aclose(self, grace_s: float) -> None:
        """End the session in the order the specification asks for, in steps of ``grace_s`` seconds; idempotent."""
