"""What travels over a wire: a request with its deadline, the response that comes back, and why none did."""

from typing import Any, Final, Never, Self, final

__pyx_capi__: dict[str, object]

LOST: Final[int]
"""The connection broke; ``__cause__`` says how, unless the server closed it."""
MALFORMED: Final[int]
"""What came is no HTTP/1.1 response, or more than one."""
OVERSIZE: Final[int]
"""The body, or one event of it, is longer than allowed; ``size`` is how long at the least."""
EXPIRED: Final[int]
"""The deadline passed."""
UNANSWERED: Final[int]
"""The event stream ended without the reply."""
STOPPED: Final[int]
"""The exchange was interrupted from this side."""

STANDING: Final[int]
"""The id of an exchange whose stream of events is there to stay: no message on it is a reply to the exchange."""

def drop_spare() -> None:
    """Give back the memory of the last long response, which is kept for the next one."""

class WireError(Exception):
    """Why an exchange got no response: ``kind`` is one of the constants above.

    Where the response was a stream of events, ``last_event_id`` and ``retry_ms`` are the last ones that it had, else ""
    and ``None``. ``unread`` tells of a connection that ended before the first byte of the response, ``reused`` of one that
    had carried another exchange before.
    """

    kind: int
    detail: str
    size: int
    last_event_id: str
    retry_ms: int | None
    unread: bool
    reused: bool

    def __init__(self, kind: int, detail: str = "", size: int = 0) -> None: ...

@final
class WireReply:
    """A complete response, or the head of one whose body is an event stream.

    Parameters
    ----------
    status
        The status code, 200 to 999.
    headers
        Pairs of lower-case name and value; those that decide anything are enough.
    body
        The body as received, b"" for a stream.
    """

    body: bytes
    """The body as received; whoever takes it may leave nothing here."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None: ...
    @property
    def status(self) -> int:
        """The status code."""

    @property
    def is_answer(self) -> bool:
        """Whether it is a 200 with JSON: where a reply is to be looked for first."""

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON as it stands: of that media type, and not compressed."""

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of events as it stands."""

    def header(self, name: str) -> str | None:
        """Return the first header of a name, of whatever case, without spaces around its value."""

    def header_values(self, name: str) -> list[str]:
        """Return every header of a name as :meth:`header` does; none of ``Content-Type``."""

@final
class Request:
    """What is asked for, to be sent under an id that is not known yet, and perhaps another one after that.

    Parameters
    ----------
    method
        The method as a JSON string, quotes included.
    params
        The params as JSON, or ``None``.
    """

    def __new__(cls, method: bytes, params: bytes | None) -> Self: ...
    @property
    def method(self) -> bytes:
        """The method as JSON."""

    @property
    def params(self) -> bytes | None:
        """The params as JSON."""

    def exchange(self, request_id: int, deadline_ns: int) -> Exchange:
        """Make the JSON-RPC request of this id, ready to be sent."""

@final
class GrowingBody:
    """A body of a length that nobody has announced; nothing of it is for use from Python."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...

@final
class BodyRoom:
    """Where a part of a long body is received: its memory lives as long as anything may write there."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...

@final
class Exchange:
    """One request on its way, and whether a byte of it may have left.

    ``sent`` is what tells a deadline or a cancellation apart from a request that never started.

    Parameters
    ----------
    frame
        The JSON-RPC message.
    request_id
        Its id, 0 for a message that gets no reply.
    deadline_ns
        When it must be over, in nanoseconds of :func:`time.monotonic_ns`; 0 if somebody else sees to that.
    """

    began_ns: int
    """When it was first handed to its transport, by the clock of ``deadline_ns``; 0 before."""
    fields: bytes | None
    """Header fields of this request alone, each with its line end."""
    status: int
    """The status of the response that carried its reply, where that was not 200; else 0."""
    sent: bool
    answered: bool
    """Whether its reply was found: a second one is nobody's."""
    reused: bool
    """Whether it went over a kept connection of aiohttp's."""
    resent: bool
    """Whether it was sent once more after its connection had ended."""
    head: WireReply | None
    """The head of the response, as soon as that turns out to be a stream of events."""
    wire: Any
    """What it was sent on, ``None`` if that was no wire."""

    def __init__(self, frame: bytes, request_id: int, deadline_ns: int) -> None: ...
    @property
    def frame(self) -> bytes:
        """The JSON-RPC message."""

    @property
    def request_id(self) -> int:
        """Its id."""

    @property
    def deadline_ns(self) -> int:
        """When it must be over."""
