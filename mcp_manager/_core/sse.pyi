"""Server-sent events, parsed as they come (WHATWG HTML, "Server-sent events", interpreting an event stream)."""

from typing import Never, final

class SseLimitError(ValueError):
    """A line or an event is longer than allowed; ``limit`` names which, ``size`` is its bytes as far as they were seen.

    From then on the parser takes nothing and raises this again: what follows an overlong line is no known place.
    """

    limit: str
    size: int

    def __init__(self, limit: str, size: int) -> None: ...

@final
class SseEvent:
    """One dispatched event."""

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

    Lines end with CR, LF or CRLF, wherever a chunk is cut. A byte order mark at the beginning is skipped, comments are
    counted, an unfinished event at the end is never dispatched. The event type and the id are decoded as UTF-8 with
    replacement; an id with a NUL, and a ``retry`` that is not 1 to 13 ASCII digits, are ignored. Against the standard's letter, an event whose ``data``
    field is there but empty is dispatched with empty data: MCP primes a stream with such an event for its ``id``
    (2025-11-25, basic/transports).

    Parameters
    ----------
    max_line, max_event
        Bytes of a line and of an event's data above which :class:`SseLimitError` is raised.

    Raises
    ------
    ValueError
        A limit is below 1.
    """

    def __new__(cls, *, max_line: int = ..., max_event: int = ...) -> SseParser: ...
    def feed(self, chunk: bytes | bytearray | memoryview) -> list[SseEvent]:
        """Take the next bytes and return the events they complete.

        Raises
        ------
        SseLimitError
            A line or an event is too long. Events of this chunk that were complete before are returned first, and the
            error is raised by the next call.
        TypeError
            ``chunk`` is not a buffer of bytes.
        """

    def close(self) -> None:
        """Discard the unfinished line and event, its id included; ``last_event_id`` stays."""

    @property
    def last_event_id(self) -> str:
        """The id of the last event with one, dispatched or not; what ``Last-Event-ID`` would say."""

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time the stream asked for, in milliseconds."""

    @property
    def comments(self) -> int:
        """How many comment lines came."""
