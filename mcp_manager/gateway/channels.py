"""Where requests of clients come from, and where what answers them goes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mcp_manager.gateway.security.accounting import Sender, Usage

__all__ = ["Channel", "EventStream", "Incoming"]


class EventStream(Protocol):
    """A response of server-sent events that is under way.

    ``on_gone`` is called once if the client closes the connection before :meth:`end`.
    """

    on_gone: Callable[[], None] | None

    @property
    def is_open(self) -> bool:
        """Whether the client still reads."""

    def send(self, events: bytes) -> None:
        """Send complete events, as they are on the wire; nothing happens once the client is gone."""

    def end(self) -> None:
        """End the response. Idempotent."""


class Incoming(Protocol):
    """One HTTP request of a client with its whole body, and the way to its response.

    ``on_gone`` is called once if the client closes the connection before the response is complete.
    """

    on_gone: Callable[[], None] | None

    @property
    def method(self) -> str:
        """The method of HTTP."""

    @property
    def path(self) -> str:
        """The path of the URL, without its query."""

    @property
    def peer(self) -> object:
        """The address of the client, as sockets name it; ``None`` once it is gone."""

    @property
    def body(self) -> bytes:
        """The body."""

    def header(self, name: bytes) -> bytes | None:
        """Return a header field by its lower-case name, ``None`` without it; several are joined by ``, ``."""

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return all header fields, with their names as they came: for a request that is passed on as it is."""

    def reply(self, status: int, body: bytes, fields: bytes = b"") -> None:
        """Send the whole response; nothing happens once the client is gone.

        Parameters
        ----------
        status
            The status.
        body
            JSON, or nothing.
        fields
            Further header fields, as complete lines that end with ``\\r\\n``.
        """

    def open_events(self, fields: bytes = b"") -> EventStream:
        """Begin a response of server-sent events. It may last: the header fields and the body are gone from then on."""


class Channel(Protocol):
    """The way back to the client for one request: over HTTP, over stdio, or over HTTP+SSE.

    ``on_gone`` is called once if the client goes before :meth:`finish`. ``on_quiet`` is called once over HTTP if
    nothing is sent for so long that the connection needs a sign of life: it may begin an event stream.

    ``usage`` is what the request uses of its limits until its reply, and ``sender`` counts further messages that came
    with it; both are ``None`` if nothing is counted.
    """

    usage: Usage | None
    sender: Sender | None

    on_gone: Callable[[], None] | None
    on_quiet: Callable[[], object] | None

    @property
    def can_send(self) -> bool:
        """Whether something can be sent before the reply: over HTTP, whether the client accepts an event stream."""

    def send(self, message: bytes) -> None:
        """Send a notification or a request of the server, before the reply."""

    def open_events(self, fields: bytes = b"") -> EventStream | None:
        """Begin an event stream, whose events the caller writes itself: also the reply, after which it ends the stream.

        From then on, none of the other methods is called, and ``on_gone`` of the stream is called in place of that of
        the channel. ``None`` where messages are not events, as over stdio, or if the client accepts no event stream.
        """

    def finish(self, message: bytes, status: int = 200, fields: bytes = b"") -> None:
        """Send the reply, the only one. ``status`` and ``fields`` matter over HTTP, before anything was sent."""

    def accept(self) -> None:
        """End without a reply, as for a notification: 202 over HTTP, or the end of the stream if it has begun."""
