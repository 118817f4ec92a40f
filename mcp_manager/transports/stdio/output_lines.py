"""Splits a program's output into lines, one at a time, so that reading can pause between two lines."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LineTooLongError", "OutputLines"]

_BLANK: Final = re.compile(rb"\s*")


class LineTooLongError(ValueError):
    """A line is longer than the limit and was dropped; it has at least ``size`` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a line of {size} bytes or more")
        self.size = size


class OutputLines:
    """Split an output into lines, independently of its chunks.

    Parameters
    ----------
    limit
        The longest line, in bytes.

    ``partial`` is the unfinished last line.
    """

    __slots__ = ("_at", "_data", "_limit", "partial")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = b""
        self._at = 0
        self.partial: bytearray = bytearray()

    @property
    def is_behind(self) -> bool:
        """Whether there is input that :meth:`take` has not processed."""
        return self._at < len(self._data)

    def feed(self, data: bytes) -> None:
        """Add the next chunk."""
        self._data = self._data[self._at :] + data if self.is_behind else data
        self._at = 0

    def take(self) -> bytes | None:
        """Return the next line that is not blank, without its end; ``None`` if there is no complete one.

        Raises
        ------
        LineTooLongError
            The next line is longer than the limit.
        """
        while self._at < len(self._data):
            end = self._data.find(b"\n", self._at)
            if end < 0:
                self._keep(self._data[self._at :])
                break
            line = self._data[self._at : end]
            self._at = end + 1
            if self.partial or len(line) > self._limit:
                self._keep(line)
                line = bytes(self.partial)
                self.partial.clear()
            if line and not line.isspace():
                return line
            # All blank lines in a row are skipped in one step.
            blank = _BLANK.match(self._data, self._at)
            assert blank is not None
            self._at = blank.end()
        self._data = b""
        self._at = 0
        return None

    def _keep(self, piece: bytes) -> None:
        self.partial += piece
        size = len(self.partial)
        if size > self._limit:
            self.partial.clear()
            raise LineTooLongError(size)
