"""JSON-RPC 2.0 messages as byte ranges: a scan checks them and finds their members, which are copied on request."""

from typing import Final, Never, final

from mcp_manager._core.http_message import Exchange

__pyx_capi__: dict[str, object]

REQUEST: Final[int]
NOTIFICATION: Final[int]
RESULT: Final[int]
ERROR: Final[int]

class FrameError(ValueError):
    """The bytes are not a JSON-RPC 2.0 message; the error quotes nothing of them.

    Attributes
    ----------
    reason
        What is wrong.
    offset
        The byte at which it is wrong.
    """

    reason: str
    offset: int

    def __init__(self, reason: str, offset: int) -> None: ...

@final
class Message:
    """A message: its kind, and where its members are. Members are copied when read."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def kind(self) -> int:
        """``REQUEST``, ``NOTIFICATION``, ``RESULT`` or ``ERROR``."""

    @property
    def frame(self) -> bytes:
        """The whole message; of a batch, only this element."""

    @property
    def id(self) -> int | float | str | None:
        """The decoded id; ``None`` if it is absent or null. Integers of up to 640 digits keep all of them."""

    @property
    def id_raw(self) -> bytes | None:
        """The id as written; ``None`` if absent."""

    @property
    def method(self) -> str | None:
        """The decoded method, ``None`` for a response."""

    @property
    def method_raw(self) -> bytes | None:
        """The method as written, quotes included."""

    @property
    def params(self) -> bytes | None:
        """The params as written."""

    @property
    def result(self) -> bytes | None:
        """The result as written."""

    @property
    def error(self) -> bytes | None:
        """The error object as written."""

    @property
    def error_code(self) -> int | None:
        """The error's code, of at most 20 characters; ``None`` unless the message is an error."""

    @property
    def oddity(self) -> str | None:
        """How a received message breaks the rules, if it was understood nevertheless: one of a few fixed phrases."""

    def exchange(self, request_id: int, deadline_ns: int) -> Exchange:
        """Build a request with another id from the method and params of this one, ready to be sent.

        Raises
        ------
        ValueError
            The message is a response.
        """

    @property
    def result_buffer(self) -> bytes | memoryview | None:
        """The result as written, to be decoded at once: a long one is a view, not a copy."""

    def take_frame(self, id_raw: bytes | None = None) -> bytes:
        """Return the whole message, with another id if one is given; afterwards this object is empty.

        A long message that nothing else refers to is not copied: spaces then follow an id that is shorter than the old
        one.
        """

    def take_text(self, id_raw: bytes | None = None) -> str:
        """Return the whole message as text; otherwise like :meth:`take_frame`."""

    def recycle(self) -> None:
        """Give the memory of the message to the next long response; afterwards this object is empty."""

    def with_id(self, id_raw: bytes) -> bytes:
        """Return the message with another id, given as JSON; all other bytes stay the same."""

def scan(data: bytes, *, max_depth: int = 512, max_bytes: int = 0, require_version: bool = False) -> Message:
    """Scan one message.

    The whole text must be valid JSON (RFC 8259) in UTF-8 (RFC 3629); the check does not recurse. A byte order mark,
    ``NaN`` and ``Infinity`` are refused. Of several members with the same name, the last one counts, as for :mod:`json`
    and msgspec, whatever escapes its name is written with. Values may have escaped lone surrogates, as for :mod:`json`;
    ``id`` and ``method``, which are decoded, may not.

    A message with a ``method`` is a request if it has an ``id``, else a notification. Any other message is a response,
    with either a ``result`` and an ``id`` that is not null, or an ``error`` with an integer ``code`` and a ``message``
    (JSON-RPC 2.0, sections 4 and 5).

    Parameters
    ----------
    data
        The message: ``bytes`` only, since the message refers to them.
    max_depth
        Levels of nesting, the message itself included, 0 to 4096.
    max_bytes
        Length above which the data is refused unread; 0 sets no limit.
    require_version
        Whether to refuse a message without ``"jsonrpc": "2.0"``. Another version is always refused.

    Raises
    ------
    FrameError
        The data is not such a message.
    ValueError
        ``max_depth`` is out of range.
    """

def scan_batch(
    data: bytes, *, max_depth: int = 512, max_bytes: int = 0, require_version: bool = False
) -> list[Message]:
    """Scan one message or a batch of them, and return a list either way; see :func:`scan` for the parameters.

    A batch (JSON-RPC 2.0, section 6; MCP 2025-03-26 requires that it is accepted) is itself a level of nesting. A batch
    is an error as a whole if it is empty or one of its elements is not a message.
    """

def scan_reply(data: bytes, *, max_depth: int = 512, max_bytes: int = 0) -> Message:
    """Scan one received message, at the speed of memory; see :func:`scan` for the parameters.

    The members of the message itself, its scalars and its ``error`` are validated as by :func:`scan`. Any other object
    or array in it is only delimited. The scan refuses brackets that are not closed, or not by their own kind, nesting
    beyond ``max_depth``, unterminated strings, controls in strings, invalid UTF-8, and outside strings every byte but
    white space, ``,:+-.E``, digits and the letters of ``true``, ``false``, ``null``. It does not check commas, colons,
    names, numbers and escapes: decoding does, and forwarding passes on what was received.

    Harmless deviations are accepted, and named by ``oddity``: a ``jsonrpc`` that is missing or has another version,
    members that are null and should be absent, a reply that repeats its ``method``, the id of a response as the text of
    an integer or as a float, and an error whose ``code`` has such a form or whose ``message`` is missing. Such a
    response is rewritten, so that it can be forwarded as JSON-RPC 2.0.

    The scan reads 64 bytes at a time where the processor can (G. Langdale, D. Lemire, "Parsing Gigabytes of JSON per
    Second", VLDB Journal 28, 2019; J. Keiser, D. Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte",
    Software: Practice and Experience 51, 2021), byte by byte elsewhere, with the same results and the same errors.

    Raises
    ------
    FrameError
        The data is not such a message.
    ValueError
        ``max_depth`` is out of range.
    """

def scan_replies(data: bytes, *, max_depth: int = 512, max_bytes: int = 0, max_messages: int = 256) -> list[Message]:
    """Scan one message or a batch of them as :func:`scan_reply` does, and return a list as :func:`scan_batch` does.

    A batch of more than ``max_messages`` raises :class:`FrameError`, since each message may take long to handle.
    """

def vector_paths() -> tuple[str, ...]:
    """Return the scans of replies that this machine supports, the fastest last: portable, avx2, avx512."""

def vector_path() -> str:
    """Return the scan of replies in use."""

def use_vector_path(name: str) -> None:
    """Use another scan of replies from now on, in the whole process: for tests and benchmarks.

    Raises
    ------
    ValueError
        This machine does not support it.
    """

def request_frame(method: bytes, params: bytes | None, id_raw: bytes) -> bytes:
    """Build a request from parts that are JSON already: the method's string, the params, the id."""

def notification_frame(method: bytes, params: bytes | None) -> bytes:
    """Build a notification from parts that are JSON already."""
