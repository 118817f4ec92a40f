"""The way back for one POST: a JSON response, or an event stream as soon as something comes before the reply."""

from __future__ import annotations

from collections.abc import Callable

from mcp_manager.gateway import messages
from mcp_manager.gateway.channels import EventStream, Incoming
from mcp_manager.gateway.http.accepting import Accepted
from mcp_manager.gateway.http.keep_alives import COMMENT, KeepAlives
from mcp_manager.gateway.security.accounting import Sender, Usage

__all__ = ["PostChannel"]


class PostChannel:
    """Answer one POST; see :class:`~mcp_manager.gateway.channels.Channel`.

    Parameters
    ----------
    incoming
        The request.
    accepted
        What kinds of response the client accepts.
    keep_alives
        Keeps the connection alive while nothing is sent.
    count
        Called once with the status of the response.
    fields
        Header fields of every response to this client, as complete lines.
    """

    __slots__ = (
        "_count",
        "_keep_alives",
        "_stream",
        "accepted",
        "fields",
        "incoming",
        "on_quiet",
        "sender",
        "usage",
        "waits_since",
    )

    def __init__(
        self,
        incoming: Incoming,
        accepted: Accepted,
        keep_alives: KeepAlives,
        count: Callable[[int], None],
        fields: bytes = b"",
    ) -> None:
        self.incoming: Incoming = incoming
        self.accepted: Accepted = accepted
        self._keep_alives = keep_alives
        self._count: Callable[[int], None] | None = count
        self.fields: bytes = fields
        self._stream: EventStream | None = None
        self.on_quiet: Callable[[], object] | None = None
        self.sender: Sender | None = None
        self.usage: Usage | None = None
        self.waits_since: int = 0

    @property
    def on_gone(self) -> Callable[[], None] | None:
        """Called once if the client goes before the reply."""
        return self.incoming.on_gone if self._stream is None else self._stream.on_gone

    @on_gone.setter
    def on_gone(self, called: Callable[[], None] | None) -> None:
        if self._stream is None:
            self.incoming.on_gone = called
        else:
            self._stream.on_gone = called

    @property
    def has_begun(self) -> bool:
        """Whether there is a response, or the beginning of one."""
        return self._count is None

    @property
    def can_send(self) -> bool:
        """Whether the client accepts an event stream."""
        return self.accepted.events

    def send(self, message: bytes) -> None:
        """Send a message before the reply; the response becomes an event stream. Without one it is dropped."""
        stream = self.open_events()
        if stream is not None:
            stream.send(messages.event(message))

    def open_events(self, fields: bytes = b"") -> EventStream | None:
        """Begin an event stream, if the client accepts one; return it if it has begun already."""
        if self._stream is None and self.accepted.events and self._count is not None:
            self._begin(200)
            stream = self.incoming.open_events(self.fields + fields)
            if stream.on_gone is None:
                stream.on_gone = self.incoming.on_gone
            self._keep_alives.add(stream)
            self._stream = stream
        return self._stream

    def keep_alive(self) -> None:
        """Begin an event stream, if the client accepts one, because the reply takes long."""
        if self.on_quiet is not None:
            self.on_quiet()
        stream = self.open_events()
        if stream is not None:
            stream.send(COMMENT)

    def finish(self, message: bytes, status: int = 200, fields: bytes = b"") -> None:
        """Send the reply."""
        usage = self.usage
        if usage is not None:
            usage.end(message)
            if usage.refusal is not None and self._stream is None:
                status, fields = usage.refused_status(status), fields + usage.refusal.fields
        if self._stream is None and not self.accepted.json and status == 200:
            self.open_events(fields)
        if self._stream is not None:
            self._stream.send(messages.event(message))
            self._end()
        elif self._count is not None:
            self._begin(status)
            self.incoming.reply(status, message, self.fields + fields)

    def accept(self) -> None:
        """End without a reply."""
        if self.usage is not None:
            self.usage.end(None)
        if self._stream is not None:
            self._end()
        elif self._count is not None:
            self._begin(202)
            self.incoming.reply(202, b"", self.fields)

    def close(self) -> None:
        """Wait for nothing more: the request is over. Idempotent."""
        self._keep_alives.forget(self)
        if self.usage is not None:
            self.usage.close()

    def _begin(self, status: int) -> None:
        assert self._count is not None
        self._keep_alives.forget(self)
        self._count(status)
        self._count = None

    def _end(self) -> None:
        assert self._stream is not None
        self._stream.end()
        self._keep_alives.discard(self._stream)
