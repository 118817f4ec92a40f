"""Writes the text of a scrape: first its numbers are copied, server by server; then they are written, family by family.

Only the first part needs the interpreter, and it is short.
"""

from collections.abc import Callable, Sequence
from typing import Self, final

from mcp_manager._core.histogram import Histogram
from mcp_manager._core.metric_lines import SeriesLines, ValueLine
from mcp_manager._core.readings import Exemplar
from mcp_manager._core.records import Server
from mcp_manager._core.tool_table import ToolTable

@final
class Page:
    """The numbers of one scrape, and their text once it is taken.

    Labels are bytes of UTF-8, escaped. All ``add_`` methods raise ``ValueError`` once the page was written; those that
    concern a server add to the last one.

    Parameters
    ----------
    heads
        The text before the lines of each family; families are numbered from 0.
    tail
        The text at the end.
    values
        The lines of the values that every server has.
    series
        The lines of the series by method, of those by tool, and of the histogram of a server.
    render
        Returns a number as text; used for all that are no whole numbers, but for sums of time.

    Raises
    ------
    ValueError
        There are too many of these, or one is of a family that there is not.
    """

    def __new__(
        cls,
        heads: tuple[bytes, ...],
        tail: bytes,
        values: tuple[ValueLine, ...],
        series: tuple[SeriesLines, SeriesLines, SeriesLines],
        render: Callable[[float], str],
    ) -> Self: ...
    @property
    def size(self) -> int:
        """The memory that its numbers take, in bytes."""

    def close(self) -> None:
        """Free its memory, while other threads run, unless it is being written; it shows nothing then."""

    def add_server(self, label: bytes, values: list[float | None], created_s: float) -> None:
        """Copy the values of a server, none where it is ``None``, and when it was deployed, in seconds since 1970."""

    def add_methods(
        self,
        server: Server,
        escape: Callable[[str], bytes],
        show_exemplar: Callable[[Exemplar], bytes] | None = None,
    ) -> None:
        """Copy the series of a server's methods.

        ``escape`` makes labels of their names. ``show_exemplar`` returns what follows the count of a bucket; without
        it, exemplars are left out.
        """

    def add_tools(
        self,
        table: ToolTable,
        server: Server,
        escape: Callable[[str], bytes],
        show_exemplar: Callable[[Exemplar], bytes] | None = None,
    ) -> None:
        """Copy the series of a server's tools; see :meth:`add_methods`."""

    def add_histogram(self, histogram: Histogram) -> None:
        """Copy a histogram of a server."""

    def add_counts(self, lines: Sequence[ValueLine], counts: Sequence[float]) -> None:
        """Add lines that only some servers have, and their values."""

    def add_line(self, family: int, line: bytes, value: float) -> None:
        """Add a line of no server, and its value; the family -1 leaves it out."""

    def as_bytes(self) -> bytes:
        """Write the page while other threads run, and return it."""

    def as_text(self) -> str:
        """Write the page as text, while other threads run unless a label is not ASCII, and return it."""

@final
class Chunks:
    """The text of a page in pieces, each written when it is asked for.

    Parameters
    ----------
    page
        The page; nothing can be added to it any more.
    size
        The most bytes of a piece; a piece is larger if the lines of one server are.

    Raises
    ------
    ValueError
        ``size`` is out of range.
    """

    def __new__(cls, page: Page, size: int) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...
