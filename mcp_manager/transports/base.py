"""The seam between a session and the bytes: what every transport takes and gives."""

from __future__ import annotations

from typing import Protocol

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import CallError

__all__ = ["Exchange", "MessageSink", "Transport"]


class Exchange:
    """One request on its way: the frame, its wire id, and whether a byte of it may have left.

    ``sent`` is what tells a deadline or a cancellation apart from a request that never started.
    """

    __slots__ = ("frame", "request_id", "sent")

    def __init__(self, frame: bytes, request_id: int) -> None:
        self.frame = frame
        self.request_id = request_id
        self.sent = False


class MessageSink(Protocol):
    """Where a transport delivers what is not the reply to an exchange."""

    def on_message(self, message: Message) -> None:
        """Take a request, notification or unmatched reply of the server; must not raise or block."""

    def on_closed(self, error: CallError) -> None:
        """Learn, once, that the transport is gone for good without having been asked to close."""


class Transport(Protocol):
    """Bytes in, bytes out, for one MCP session."""

    @property
    def pid(self) -> int:
        """The process id of the child behind it, 0 if there is none."""

    async def open(self) -> None:
        """Make ready to exchange frames; raises a :class:`CallError` with delivery ``not_sent``."""

    def settle(self, revision: str) -> None:
        """Learn the revision the handshake settled on."""

    async def exchange(self, exchange: Exchange) -> Message:
        """Send a request frame and return the reply carrying its id, result or error.

        Raises a :class:`CallError` when no reply arrived. Cancelling forgets the request; a late reply is dropped.
        """

    async def notify(self, frame: bytes) -> None:
        """Send a frame that gets no reply (a notification, or a reply to the server's request)."""

    async def aclose(self, grace_s: float) -> None:
        """End the session in the order the specification asks for, in steps of ``grace_s`` seconds; idempotent."""
