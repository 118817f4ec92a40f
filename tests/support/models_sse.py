"""A simple model of the event stream parser: the standard's algorithm on the whole text at once."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ParsedStream", "parse_stream"]


class ParsedStream(NamedTuple):
    """A parsed stream: ``(event, data, id)`` of each event that a blank line ends, and the parser's final state."""

    events: list[tuple[str, bytes, str]]
    last_event_id: str
    retry_ms: int | None
    comments: int


def parse_stream(stream: bytes) -> ParsedStream:
    """Parse a whole stream (WHATWG HTML, "Interpreting an event stream")."""
    if stream.startswith(b"\xef\xbb\xbf"):
        stream = stream[3:]
    lines = re.split(rb"\r\n|\n|\r", stream)
    # The text after the last line end is an incomplete line.
    lines.pop()
    events: list[tuple[str, bytes, str]] = []
    data: list[bytes] = []
    event, identifier, last_event_id = "", "", ""
    retry_ms: int | None = None
    comments = 0
    for line in lines:
        if not line:
            last_event_id = identifier
            if data:
                events.append((event or "message", b"\n".join(data), identifier))
            data, event = [], ""
            continue
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if colon and not name:
            comments += 1
        elif name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            identifier = value.decode("utf-8", "replace")
        elif name == b"retry" and re.fullmatch(rb"[0-9]{1,13}", value):
            retry_ms = int(value)
    return ParsedStream(events, last_event_id, retry_ms, comments)
