"""Messages in what was received: scanned as they are, and once more where what is wrong with them harms nobody."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Final

from mcp_manager._core.jsonrpc import FrameError, Message, scan_replies
from mcp_manager._core.mending import without_constants

__all__ = ["MAX_BATCH", "broken_reply_to", "read_messages"]

MAX_BATCH: Final = 256
"""How many messages a batch may have: all of them are taken before anything else happens."""

# Read by way of a text whose every character may be four bytes wide.
_MAX_FOREIGN: Final = 4 * 1024 * 1024
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What a server may say that its JSON is in, and many a framework says by itself.
_CHARSETS: Final = frozenset({"iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"})
_TOO_MANY: Final = "a batch of more than"

# How far from either end of a text its own id is looked for: what is between them may be 16 MiB of other ids.
_NEAR_END: Final = 4096
_ID: Final = re.compile(rb'"id"\s*:\s*"?(\d{1,18})(?!\d)')


def broken_reply_to(data: bytes, is_awaited: Callable[[int], bool]) -> int | None:
    """Return the id of the request that a text which is no message was meant to answer, ``None`` if it was none.

    Nothing else will come for it: whoever waits should not do so until the deadline.
    """
    if b'"method"' in data or not (b'"result"' in data or b'"error"' in data):
        return None
    ends = data if len(data) <= 2 * _NEAR_END else data[:_NEAR_END] + b" " + data[-_NEAR_END:]
    return next((found for match in _ID.finditer(ends) if is_awaited(found := int(match[1]))), None)


def read_messages(
    data: bytes, on_fault: Callable[[str, str], None], charset: str = "", *, may_batch: bool = True
) -> list[Message]:
    """Return the messages in a text.

    Parameters
    ----------
    data
        One message, or a batch of at most 256.
    on_fault
        ``on_fault(kind, detail)`` is told what was wrong and overlooked: a byte order mark, another charset than UTF-8
        if it is known which, ``NaN`` and ``Infinity``, and what :func:`scan_reply` overlooks.
    charset
        What the text is said to be in.
    may_batch
        Whether there are batches in the revision that is spoken; where there are none, an array may hold one message.

    Raises
    ------
    FrameError
        It is not JSON-RPC, or not as this revision has it.
    """
    try:
        messages = _scan(data, may_batch)
    except FrameError as error:
        messages = _read_again(data, on_fault, charset, error, may_batch)
    for message in messages:
        if message.oddity is not None:
            on_fault(message.oddity, "")
    return messages


def _scan(text: bytes, may_batch: bool) -> list[Message]:
    if may_batch:
        return scan_replies(text, max_messages=MAX_BATCH)
    try:
        # One message in an array harms nobody, and there are servers that answer so in every revision.
        return scan_replies(text, max_messages=1)
    except FrameError as error:
        if error.reason.startswith(_TOO_MANY):
            raise FrameError("a batch, which the revision that is spoken does not have,", 0) from None
        raise


def _read_again(
    data: bytes, on_fault: Callable[[str, str], None], charset: str, error: FrameError, may_batch: bool
) -> list[Message]:
    text, faults = data, []
    if text.startswith(codecs.BOM_UTF8):
        text = text.removeprefix(codecs.BOM_UTF8)
        faults.append("a byte order mark")
    in_utf8 = _transcoded(text, charset)
    if in_utf8 is not None:
        text = in_utf8
        faults.append("JSON that is not in UTF-8")
    plain = without_constants(text)
    if plain is not text:
        text = plain
        faults.append("NaN or Infinity, which are no JSON")
    if not faults:
        try:
            raise error
        finally:
            # An exception's traceback holds this frame.
            del error
    messages = _scan(text, may_batch)
    for fault in faults:
        on_fault(fault, "")
    return messages


def _transcoded(text: bytes, charset: str) -> bytes | None:
    """Return a text in UTF-8 if it is known to be in something else, ``None`` otherwise."""
    encoding = "utf-16" if text.startswith(_UTF16) else _codec_of(charset)
    if encoding is None:
        if b"\0" in text[:2] and len(text) > 1:
            raise FrameError("it is in UTF-16 or UTF-32, where JSON must be in UTF-8,", 0)
        return None
    if len(text) > _MAX_FOREIGN:
        raise FrameError("it is not in UTF-8, and too long to be read all the same,", 0)
    try:
        return text.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeError:
        return None


def _codec_of(charset: str) -> str | None:
    try:
        name = codecs.lookup(charset).name if charset else ""
    except (LookupError, ValueError):
        return None
    return name if name in _CHARSETS else None
