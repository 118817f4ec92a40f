"""Parses received messages, and tolerates defects that do not change their meaning."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Final

from mcp_manager._core.jsonrpc import FrameError, Message, scan_replies
from mcp_manager._core.mending import without_constants

__all__ = ["MAX_BATCH", "broken_reply_to", "read_messages"]

MAX_BATCH: Final = 256
"""The most messages in a batch: the loop handles all of them at once."""

# Bytes that are converted at most: the decoded text may take four bytes per character.
_MAX_FOREIGN: Final = 4 * 1024 * 1024
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Charsets that servers, or their frameworks by default, declare for JSON.
_CHARSETS: Final = frozenset({"iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"})
_TOO_MANY: Final = "a batch of more than"

# How far from both ends a message's own id is searched for: between them may be 16 MiB with other ids.
_NEAR_END: Final = 4096
_ID: Final = re.compile(rb'"id"\s*:\s*"?(\d{1,18})(?!\d)')


def broken_reply_to(data: bytes, is_awaited: Callable[[int], bool]) -> int | None:
    """Return the id of the request that a malformed message was meant to answer, ``None`` if there is none.

    No other reply will come, so the request can fail at once instead of at its deadline.

    Parameters
    ----------
    data
        The malformed message.
    is_awaited
        Returns whether a caller waits for the reply to a request id.
    """
    if b'"method"' in data or not (b'"result"' in data or b'"error"' in data):
        return None
    ends = data if len(data) <= 2 * _NEAR_END else data[:_NEAR_END] + b" " + data[-_NEAR_END:]
    return next((found for match in _ID.finditer(ends) if is_awaited(found := int(match[1]))), None)


def read_messages(
    data: bytes, on_fault: Callable[[str, str], None], charset: str = "", *, may_batch: bool = True
) -> list[Message]:
    """Parse a message or a batch.

    Parameters
    ----------
    data
        One message, or a batch of at most 256.
    on_fault
        ``on_fault(kind, detail)`` is called for each tolerated defect: a byte order mark, a known charset other than
        UTF-8, ``NaN`` and ``Infinity``, and what :func:`scan_reply` tolerates.
    charset
        The declared charset.
    may_batch
        Whether the negotiated revision has batches; if it has none, an array may hold one message.

    Raises
    ------
    FrameError
        It is not JSON-RPC, or not allowed in this revision.
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
        # Some servers send one message in an array in every revision; its meaning is clear.
        return scan_replies(text, max_messages=1)
    except FrameError as error:
        if error.reason.startswith(_TOO_MANY):
            raise FrameError("a batch, which the negotiated revision does not allow,", 0) from None
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
        faults.append("NaN or Infinity, which are not JSON")
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
    """Convert a text to UTF-8 if it is known to be in another charset, else return ``None``."""
    encoding = "utf-16" if text.startswith(_UTF16) else _codec_of(charset)
    if encoding is None:
        if b"\0" in text[:2] and len(text) > 1:
            raise FrameError("it is in UTF-16 or UTF-32, but JSON must be in UTF-8,", 0)
        return None
    if len(text) > _MAX_FOREIGN:
        raise FrameError("it is not in UTF-8, and too long to be converted,", 0)
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
