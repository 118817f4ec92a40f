"""What wires carry: requests with their deadlines, responses, and the reasons why there is no response."""

from typing import Any, Final, Never, Self, final

__pyx_capi__: dict[str, object]

LOST: Final[int]
"""The connection broke; ``__cause__`` is the error, unless the server closed it."""
MALFORMED: Final[int]
"""The server sent something other than one HTTP/1.1 response."""
OVERSIZE: Final[int]
"""The body, or one event in it, is longer than allowed; ``size`` is a lower bound of its length in bytes."""
EXPIRED: Final[int]
"""The deadline passed."""
UNANSWERED: Final[int]
"""The event stream ended without the reply."""
STOPPED: Final[int]
"""This side interrupted the exchange."""

STANDING: Final[int]
"""The id of an exchange whose event stream stays open: no message on it is a reply to the exchange."""

def drop_spare() -> None:
    """Free the memory of the last long response, which is kept for the next one."""

class WireError(Exception):
    """The reason why an exchange got no response.

    Attributes
    ----------
    kind
        One of the constants above.
    detail
        What happened, in words; may be empty.
    size
        For :data:`OVERSIZE`, a lower bound of the length in bytes.
    last_event_id, retry_ms
        If the response was an event stream, the last event id and reconnection time that it gave; else "" and ``None``.
    unread
        Whether the connection ended before the first byte of the response.
    reused
        Whether the connection had carried another exchange before.
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
        Pairs of lower-case name and value; only the headers that are used need to be there.
    body
        The body as received, b"" for a stream.
    """

    body: bytes
    """The body as received; empty once it has been taken out."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None: ...
    @property
    def status(self) -> int:
        """The status code."""

    @property
    def is_answer(self) -> bool:
        """Whether it is a 200 response with a JSON body, which should hold the reply."""

    @property
    def is_json(self) -> bool:
        """Whether the body has the media type of JSON, and is not compressed."""

    @property
    def is_event_stream(self) -> bool:
        """Whether the body has the media type of an event stream, and is not compressed."""

    def header(self, name: str) -> str | None:
        """Return the first header of a name in any case, without white space around it; ``None`` if there is none."""

    def header_values(self, name: str) -> list[str]:
        """Return the values of all headers of a name, as :meth:`header` does; none for ``Content-Type``."""

@final
class Request:
    """A request without an id: each attempt sends it under an id of its own.

    Parameters
    ----------
    method
        The method as a JSON string, quotes included.
    params
        The params as JSON; ``None`` omits them.
    meta
        Members that ``_meta`` gets, as JSON without brackets; ``None`` for none. The params must be an object without
        ``_meta``, or ``None``.
    fields
        Header fields for this request only, each with its line end; ``None`` for none.

    Raises
    ------
    ValueError
        There is ``meta``, and the params are not an object.
    """

    def __new__(
        cls, method: bytes, params: bytes | None, meta: bytes | None = None, fields: bytes | None = None
    ) -> Self: ...
    @property
    def method(self) -> bytes:
        """The method as a JSON string."""

    @property
    def params(self) -> bytes | None:
        """The params as JSON."""

    @property
    def meta(self) -> bytes | None:
        """Members that ``_meta`` gets."""

    @property
    def fields(self) -> bytes | None:
        """Header fields for this request only."""

    def exchange(self, request_id: int, deadline_ns: int) -> Exchange:
        """Build the JSON-RPC request with this id, ready to be sent."""

@final
class GrowingBody:
    """A response body of unknown length; it has no Python interface."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...

@final
class BodyRoom:
    """The buffer that receives a part of a long body; it keeps the memory alive while anything may write to it."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...

@final
class Exchange:
    """A request on its way, and whether any byte of it may have been sent.

    ``sent`` distinguishes a request that timed out or was cancelled in transit from one that was never sent.

    Parameters
    ----------
    frame
        The JSON-RPC message.
    request_id
        Its id; 0 for a message that gets no reply.
    deadline_ns
        When the reply must have arrived, in nanoseconds of :func:`time.monotonic_ns`; 0 sets no deadline here.
    """

    began_ns: int
    """When its transport first got it, by the clock of ``deadline_ns``; 0 before."""
    fields: bytes | None
    """Header fields for this request only, each with its line end."""
    status: int
    """The status of the response that carried its reply, if that was not 200; else 0."""
    sent: bool
    answered: bool
    """Whether its reply was found; a second one belongs to no request."""
    reused: bool
    """Whether aiohttp sent it over a pooled connection."""
    resent: bool
    """Whether it was sent again after its connection had ended."""
    head: WireReply | None
    """The head of the response, once that is known to be an event stream, or if the exchange ended after it."""
    wire: Any
    """The wire that it was sent on; ``None`` if it was sent otherwise."""
    listener: Any
    """Takes what the server sends for this request before its reply; ``None`` if nobody does."""

    def __init__(self, frame: bytes, request_id: int, deadline_ns: int) -> None: ...
    @property
    def frame(self) -> bytes:
        """The JSON-RPC message."""

    @property
    def request_id(self) -> int:
        """Its id."""

    @property
    def deadline_ns(self) -> int:
        """When the reply must have arrived; 0 sets no deadline here."""
