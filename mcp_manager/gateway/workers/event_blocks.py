"""Cuts a stream of server-sent events where an event ends, so that nothing gets between the lines of one."""

from __future__ import annotations

from typing import Final

__all__ = ["EventBlocks"]

# Workers write their events with line feeds only.
_END: Final = b"\n\n"


class EventBlocks:
    """Collect the bytes of a stream, and return those of complete events."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def take(self, chunk: bytes) -> bytes:
        """Take the next bytes; return all complete events, "" if there is none."""
        end = chunk.rfind(_END)
        if end >= 0:
            complete = b"".join([*self._parts, chunk[: end + 2]])
            self._parts = [chunk[end + 2 :]] if end + 2 < len(chunk) else []
            return complete
        if chunk[:1] == b"\n" and self._parts and self._parts[-1][-1:] == b"\n":
            complete = b"".join([*self._parts, b"\n"])
            self._parts = [chunk[1:]] if len(chunk) > 1 else []
            return complete
        self._parts.append(chunk)
        return b""
