"""A second opinion on event streams: the standard's algorithm on the whole text at once, as naive as can be."""

from __future__ import annotations

import re

__all__ = ["parse_stream"]


def parse_stream(stream: bytes) -> list[tuple[str, bytes, str]]:
    """Return ``(event, data, id)`` of every event that a blank line ends."""
    if stream.startswith(b"\xef\xbb\xbf"):
        stream = stream[3:]
    lines = re.split(rb"\r\n|\n|\r", stream)
    # What follows the last line end is unfinished.
    lines.pop()
    found: list[tuple[str, bytes, str]] = []
    data: list[bytes] = []
    event, identifier = "", ""
    for line in lines:
        if not line:
            if data:
                found.append((event or "message", b"\n".join(data), identifier))
            data, event = [], ""
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            identifier = value.decode("utf-8", "replace")
    return found
