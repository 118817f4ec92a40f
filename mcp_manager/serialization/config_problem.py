"""What is wrong in a configuration, as a record."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

__all__ = ["ConfigProblem"]


class ConfigProblem(NamedTuple):
    """One thing that is wrong in a configuration file.

    Attributes
    ----------
    path
        The file; "" if a mapping was given instead.
    line, column
        Where in the file it is, counted from 1; ``None`` if not known.
    message
        The field and what is wrong with it, with the way out in parentheses.
    """

    path: str
    line: int | None
    column: int | None
    message: str

    @property
    def place(self) -> str:
        """The file, followed by the line and the column if they are known."""
        return self.path if self.line is None else f"{self.path}:{self.line}:{self.column}"

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return self._asdict()

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return msgspec.json.encode(self._asdict())

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.path else self.message
