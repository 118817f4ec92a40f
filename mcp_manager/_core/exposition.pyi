"""Writes the sample lines of a scrape: one growing text a family, from parts that were rendered before."""

from collections.abc import Callable, Sequence
from typing import Self, final

from mcp_manager._core.histogram import Histogram
from mcp_manager._core.records import Server
from mcp_manager._core.tool_table import ToolTable

_Parts = tuple[bytes, bytes, bytes]
_ValueLine = tuple[int, bytes, bytes, bytes | None]

@final
class SeriesLines:
    """The parts of the lines of a counter by status and of a histogram, which have two labels of their own.

    A line is its first part, one label, its second part, the other label, its third part and the value.

    Parameters
    ----------
    counter, histogram
        The numbers of the two families; -1 leaves one out.
    by_status, created_by_status
        The lines of the counter by the number of the status, and those of their creation; ``None`` for none of these.
    of_histogram
        The lines of the buckets, the last of which is ``+Inf``, of the count, of the sum and of the creation, which may
        be ``None``.
    bounds
        The exponent of the lowest bound, a power of two seconds, and the distance of the exponents.

    Raises
    ------
    ValueError, TypeError
        There are too few or too many lines, or one has not three parts.
    """

    def __new__(
        cls,
        counter: int,
        by_status: tuple[_Parts, ...],
        created_by_status: tuple[_Parts, ...] | None,
        histogram: int,
        of_histogram: tuple[tuple[_Parts, ...], _Parts, _Parts, _Parts | None],
        bounds: tuple[int, int],
    ) -> Self: ...

@final
class Page:
    """The text of one scrape while it is written.

    Labels are bytes of UTF-8, escaped. ``created_s`` are seconds since 1970.

    Parameters
    ----------
    families
        How many families there are; they are numbered from 0.
    render
        Returns a number as text; used for all that are no whole numbers below a million.

    Raises
    ------
    ValueError
        ``families`` is out of range; all methods raise it for a family that there is not.
    """

    def __new__(cls, families: int, render: Callable[[float], str]) -> Self: ...
    def add_values(
        self, lines: list[_ValueLine], label: bytes, values: Sequence[float | None], created_s: float
    ) -> None:
        """Write one line a value; none where it is ``None``.

        A line is the number of its family, -1 to leave it out; its text before the label; the text behind it; and the
        text before the label of the line that tells the creation, ``None`` without one.
        """

    def add_methods(self, lines: SeriesLines, server: Server, label: bytes, escape: Callable[[str], bytes]) -> None:
        """Write the series of a server's methods; ``escape`` makes labels of their names."""

    def add_tools(
        self, lines: SeriesLines, table: ToolTable, server: Server, label: bytes, escape: Callable[[str], bytes]
    ) -> None:
        """Write the series of a server's tools; ``escape`` makes labels of their names."""

    def add_histogram(self, lines: SeriesLines, histogram: Histogram, label: bytes, created_s: float) -> None:
        """Write a histogram with one label only."""

    def add_line(self, family: int, line: bytes, value: float) -> None:
        """Write a line and its value; -1 leaves it out."""

    def take(self, heads: list[bytes], tail: bytes) -> bytes:
        """Return the page, the head of each family before its lines; the page is empty then.

        Other threads run while large texts are copied.
        """

    def take_text(self, heads: list[bytes], tail: bytes) -> str:
        """Return the page as text; see :meth:`take`."""
