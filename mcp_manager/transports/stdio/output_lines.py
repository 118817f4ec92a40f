"""What a program writes, cut into lines one at a time: the rest waits where there is no time for it."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LineTooLongError", "OutputLines"]

_BLANK: Final = re.compile(rb"\s*")


class LineTooLongError(ValueError):
    """A line has ``size`` bytes or more, which is beyond the limit; it was dropped."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a line of {size} bytes or more")
        self.size = size


class OutputLines:
    """Cut an output into lines, wherever its chunks end.

    Parameters
    ----------
    limit
        The longest line, in bytes.

    ``partial`` is the line that has no end yet.
    """

    __slots__ = ("_at", "_data", "_limit", "partial")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = b""
        self._at = 0
        self.partial = bytearray()

    @property
    def is_behind(self) -> bool:
        """Whether anything was written that :meth:`take` has not looked at."""
        return self._at < len(self._data)

    def feed(self, data: bytes) -> None:
        """Keep what was written next."""
        self._data = self._data[self._at :] + data if self.is_behind else data
        self._at = 0

    def take(self) -> bytes | None:
        """Return the next line that is not blank, without its end; ``None`` if there is no whole one.

        Raises
        ------
        LineTooLongError
            It is longer than the limit.
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
            # However many there are, they are one step.
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
