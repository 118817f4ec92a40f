"""Parses server-sent events incrementally (WHATWG HTML, "Server-sent events", interpreting an event stream)."""

from typing import Never, final

class SseLimitError(ValueError):
    """A line or an event is longer than allowed.

    From then on the parser raises this error again: after an overlong line it has lost its place in the stream.

    Attributes
    ----------
    limit
        The limit that was exceeded, ``max_line`` or ``max_event``.
    size
        The length in bytes as far as it was seen.
    """

    limit: str
    size: int

    def __init__(self, limit: str, size: int) -> None: ...

@final
class SseEvent:
    """A dispatched event."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def event(self) -> str:
        """The event's type, ``message`` if the stream names none."""

    @property
    def data(self) -> bytes:
        """The ``data`` lines joined by LF, as bytes; empty if the only one was empty."""

    @property
    def id(self) -> str:
        """The last event id of the stream as of this event."""

@final
class SseParser:
    """Parse an event stream incrementally.

    Lines end with CR, LF or CRLF, even where a chunk ends between the two. A byte order mark at the beginning is
    skipped, comments are counted, and an unfinished event at the end is never dispatched. The event type and the id are
    decoded as UTF-8 with replacement; an id with a NUL, and a ``retry`` that is not 1 to 13 ASCII digits, are ignored.
    Contrary to the standard, an event whose ``data`` field is present but empty is dispatched, with empty data: MCP
    primes a stream with such an event for its ``id`` (2025-11-25, basic/transports).

    Parameters
    ----------
    max_line, max_event
        The longest line and the longest data of an event, in bytes.

    Raises
    ------
    ValueError
        A limit is below 1.
    """

    def __new__(cls, *, max_line: int = ..., max_event: int = ...) -> SseParser: ...
    def feed(self, chunk: bytes | bytearray | memoryview) -> list[SseEvent]:
        """Parse the next bytes and return the events that they complete.

        Raises
        ------
        SseLimitError
            A line or an event is too long. If events of this chunk were complete before, they are returned, and the
            next call raises the error.
        TypeError
            ``chunk`` is not a buffer of bytes.
        """

    def close(self) -> None:
        """Discard the unfinished line and event, its id included; ``last_event_id`` stays."""

    @property
    def last_event_id(self) -> str:
        """The id of the last event that had one, dispatched or not: the value for ``Last-Event-ID``."""

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time that the stream asked for, in milliseconds; ``None`` if it did not."""

    @property
    def comments(self) -> int:
        """How many comment lines were received."""
