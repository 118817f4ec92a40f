"""JSON-RPC 2.0 messages as byte ranges: checked as they are found, nothing is built until it is asked for."""

from typing import Final, Never, final

from mcp_manager._core.http_message import Exchange

__pyx_capi__: dict[str, object]

REQUEST: Final[int]
NOTIFICATION: Final[int]
RESULT: Final[int]
ERROR: Final[int]

class FrameError(ValueError):
    """The bytes are not one JSON-RPC 2.0 message; quotes nothing of them."""

    reason: str
    offset: int

    def __init__(self, reason: str, offset: int) -> None: ...

@final
class Message:
    """One message: what it is, and where its members stand. Members are copied out when asked for."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def kind(self) -> int:
        """``REQUEST``, ``NOTIFICATION``, ``RESULT`` or ``ERROR``."""

    @property
    def frame(self) -> bytes:
        """The whole message; of a batch, its element."""

    @property
    def id(self) -> int | float | str | None:
        """The decoded id; ``None`` if it is absent or null. Integers keep all their digits, at most 640 of them."""

    @property
    def id_raw(self) -> bytes | None:
        """The id as it was written, ``None`` if absent."""

    @property
    def method(self) -> str | None:
        """The decoded method, ``None`` for a response."""

    @property
    def method_raw(self) -> bytes | None:
        """The method as it was written, quotes included."""

    @property
    def params(self) -> bytes | None:
        """The params as they were written."""

    @property
    def result(self) -> bytes | None:
        """The result as it was written."""

    @property
    def error(self) -> bytes | None:
        """The error object as it was written."""

    @property
    def error_code(self) -> int | None:
        """The error's code, of at most 20 characters; ``None`` unless the message is an error."""

    @property
    def oddity(self) -> str | None:
        """What is wrong with a received message that was understood all the same, one of a few fixed phrases."""

    def exchange(self, request_id: int, deadline_ns: int) -> Exchange:
        """Make a request of another id with the method and params of this one, ready to be sent.

        Raises
        ------
        ValueError
            It is a response.
        """

    @property
    def result_buffer(self) -> bytes | memoryview | None:
        """The result as it was written, to be decoded at once: a long one is not copied."""

    def take_frame(self, id_raw: bytes | None = None) -> bytes:
        """Return the whole message, with another id if one is given, and be empty from then on.

        A long message that nothing else holds is not copied: a shorter id is followed by spaces then.
        """

    def take_text(self, id_raw: bytes | None = None) -> str:
        """Return the whole message as text; otherwise as :meth:`take_frame`."""

    def recycle(self) -> None:
        """Give up the message's memory, for the next long response, and be empty from then on."""

    def with_id(self, id_raw: bytes) -> bytes:
        """Return the message with another id, given as JSON; everything else is left as it was, byte for byte."""

def scan(data: bytes, *, max_depth: int = 512, max_bytes: int = 0, require_version: bool = False) -> Message:
    """Scan one message.

    The whole text is validated as JSON (RFC 8259) in UTF-8 (RFC 3629), without recursion; a byte order mark, ``NaN``
    and ``Infinity`` are refused. The last of several members of one name counts, whatever escapes its name is written
    with, as for :mod:`json` and msgspec. Lone surrogates may be escaped in values, as for :mod:`json`, not in ``id``
    and ``method``, which are decoded.

    A message with a ``method`` is a request if it has an ``id``, else a notification; every other one is a response with
    either a ``result`` and an ``id`` that is not null, or an ``error`` with an integer ``code`` and a ``message``
    (JSON-RPC 2.0, sections 4 and 5).

    Parameters
    ----------
    data
        The message: ``bytes`` only, since the message keeps them.
    max_depth
        Levels of nesting, the message itself included; at most 4096.
    max_bytes
        Length above which the data is refused unread; 0 for no limit.
    require_version
        Refuse a message without ``"jsonrpc": "2.0"``. Another value is refused always.

    Raises
    ------
    FrameError
        With ``reason`` and ``offset`` in bytes.
    ValueError
        ``max_depth`` is above 4096.
    """

def scan_batch(
    data: bytes, *, max_depth: int = 512, max_bytes: int = 0, require_version: bool = False
) -> list[Message]:
    """Scan one message or a batch of them, and return a list either way; see :func:`scan` for the parameters.

    A batch (JSON-RPC 2.0, section 6; MCP 2025-03-26 MUST receive it) is itself a level of nesting. It is accepted as a
    whole: one element that is no message, or none at all, is an error.
    """

def scan_reply(data: bytes, *, max_depth: int = 512, max_bytes: int = 0) -> Message:
    """Scan one message that was received, at the speed of memory; see :func:`scan` for the parameters.

    The message's own members, its scalars and its ``error`` are validated as by :func:`scan`. Any other object or array
    among its members is only delimited: what is refused in it are brackets that are not closed, or not by their own
    kind, nesting beyond ``max_depth``, strings that do not end, controls in strings, whatever is not UTF-8, and outside
    strings every byte but white space, ``,:+-.E``, digits and the letters of ``true``, ``false``, ``null``. Commas,
    colons, names, numbers and escapes in it are not looked at: who decodes it does that, and who passes it on passes on
    what was received.

    What is harmless in a message is overlooked, and told by its ``oddity``: a ``jsonrpc`` that is missing or another one,
    members that are null and should be absent, a reply that repeats its ``method``, the id of a response as the text of
    an integer or as a fraction without any, and an error whose ``code`` is one of these or whose ``message`` is missing.
    Such a response is written anew, so that whoever it is passed on to gets JSON-RPC 2.0.

    That is done 64 bytes at a time where the processor can (G. Langdale, D. Lemire, "Parsing Gigabytes of JSON per
    Second", VLDB Journal 28, 2019; J. Keiser, D. Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte",
    Software: Practice and Experience 51, 2021), byte by byte elsewhere, with the same results and the same errors.

    Raises
    ------
    FrameError
        With ``reason`` and ``offset`` in bytes.
    ValueError
        ``max_depth`` is above 4096.
    """

def scan_replies(data: bytes, *, max_depth: int = 512, max_bytes: int = 0, max_messages: int = 256) -> list[Message]:
    """Scan one message or a batch of them as :func:`scan_reply` does, and return a list as :func:`scan_batch` does.

    A batch of more than ``max_messages`` is refused with :class:`FrameError`: each of them may be work for long.
    """

def vector_paths() -> tuple[str, ...]:
    """Return the ways in which this machine can scan replies, the quickest last: portable, avx2, avx512."""

def vector_path() -> str:
    """Return the way in which replies are scanned."""

def use_vector_path(name: str) -> None:
    """Scan replies in another way from now on, in the whole process: for tests and benchmarks.

    Raises
    ------
    ValueError
        This machine has no such way.
    """

def request_frame(method: bytes, params: bytes | None, id_raw: bytes) -> bytes:
    """Build a request from parts that are JSON already: the method's string, the params, the id."""

def notification_frame(method: bytes, params: bytes | None) -> bytes:
    """Build a notification from parts that are JSON already."""
