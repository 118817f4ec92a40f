"""The original text of a result, kept for records whose fields do not hold all of it."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["Origin", "Path"]

Path = tuple[str | int, ...]
"""The path from a result to one of its parts: names of members on the wire, and indexes."""

_members_decoder = JsonDecoder(dict[str, msgspec.Raw])
_entries_decoder = JsonDecoder(list[msgspec.Raw])


class Origin:
    """The JSON text of one result; it is split into parts on demand."""

    __slots__ = ("_parts", "_text")

    def __init__(self, text: bytes | memoryview) -> None:
        self._text = text
        self._parts: dict[Path, Any] = {}

    def text_of(self, path: Path) -> bytes:
        """Return a part as it was received."""
        return bytes(self._text if not path else self._parts_of(path[:-1])[path[-1]])

    def _parts_of(self, path: Path) -> Any:
        parts = self._parts.get(path)
        if parts is None:
            text = self._text if not path else self._parts_of(path[:-1])[path[-1]]
            is_list = bytes(memoryview(text)[:1]) == b"["
            decoder: JsonDecoder[Any] = _entries_decoder if is_list else _members_decoder
            parts = self._parts[path] = decoder.decode(text, limits=None)
        return parts
