"""Tables and texts fitted to the width of a terminal; in a pipe every cell is whole and every row is one line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from mcp_manager.cli.screen import console, ellipsis, is_terminal, one_line, paint, style_of, width, wrapped

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["cut", "paragraph", "render", "shortened"]

_GAP: Final = 2
# The fewest columns in which prose can be read.
_LEAST_PROSE: Final = 20
# A longer word is folded: it would need a table of its own.
_LONGEST_WORD: Final = 40
_INDENT: Final = "  "


def render(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    prose: Collection[str] = (),
    columns: int | None = None,
    stream: TextIO | None = None,
) -> str:
    """Format rows as a table, or as one block per row where the terminal is too narrow for a table.

    Parameters
    ----------
    headers
        One title per column; the first column names the row.
    rows
        One row per line with one cell per column: floats are shown with one decimal, ``None`` as a dash.
    prose
        Titles of the columns that are wrapped if the terminal is too narrow; all others stay whole.
    columns
        The width to fit. Default: that of the terminal; without one, every row is one line.
    stream
        Where it is printed. Default: standard output.
    """
    cells = [[_text(cell) for cell in row] for row in rows]
    titles = [one_line(title).upper() for title in headers]
    numeric = [
        any(cell is not None for cell in column)
        and all(cell is None or isinstance(cell, int | float) for cell in column)
        for column in ([row[index] for row in rows] for index in range(len(headers)))
    ]
    if columns is None and not is_terminal(stream):
        return _in_a_pipe(titles, cells, numeric)
    from rich.cells import cell_len  # noqa: PLC0415 - --version and --help do without

    limit = columns or width(stream)
    widest = [max(map(cell_len, column)) for column in zip(titles, *cells, strict=True)]
    least = [
        min(each, _fewest([title, *column])) if header in prose else each
        for each, header, title, *column in zip(widest, headers, titles, *cells, strict=True)
    ]
    if sum(least) + _GAP * (len(least) - 1) > limit:
        return "\n".join(_block(headers, row, prose, limit) for row in cells)
    return _table(titles, cells, numeric, _fitted(least, widest, limit))


def paragraph(label: str, text: str, stream: TextIO | None = None) -> str:
    """Return a labelled text, wrapped to the width of the terminal with an indent; in a pipe it is one line."""
    shown = f"{one_line(label)}: {one_line(text)}"
    return f"{_INDENT}{shown}" if not is_terminal(stream) else wrapped(shown, width(stream), _INDENT, _INDENT * 2)


def cut(text: str, columns: int) -> str:
    """Return what of a text fits, with a mark where it is cut."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - --version and --help do without

    if cell_len(text) <= columns:
        return text
    return f"{set_cell_size(text, max(0, columns - len(ellipsis()))).rstrip()}{ellipsis()}"


def shortened(text: str | None, length: int = 160) -> str:
    """Return the beginning of a text, with a mark where it is cut; in a pipe the whole text."""
    text = one_line(text or "")
    if len(text) <= length or not is_terminal():
        return text
    return f"{text[:length].rsplit(' ', 1)[0]}{ellipsis()}"


def _in_a_pipe(titles: list[str], cells: list[list[str]], numeric: list[bool]) -> str:
    from rich.cells import cell_len  # noqa: PLC0415 - --version and --help do without

    widest = [max(map(cell_len, column)) for column in zip(titles, *cells, strict=True)]
    lines = []
    for row in (titles, *cells):
        padded = []
        for cell, wide, right in zip(row, widest, numeric, strict=True):
            space = " " * (wide - cell_len(cell))
            shown = cell if row is titles else paint(cell)
            padded.append(f"{space}{shown}" if right else f"{shown}{space}")
        lines.append((" " * _GAP).join(padded).rstrip())
    return "\n".join(lines)


def _fewest(column: Sequence[str]) -> int:
    """Return the fewest columns in which a column of prose can be read: no usual word is broken."""
    from rich.cells import cell_len  # noqa: PLC0415 - --version and --help do without

    lengths = (cell_len(word) for cell in column for word in cell.split())
    return max((length for length in lengths if _LEAST_PROSE < length <= _LONGEST_WORD), default=_LEAST_PROSE)


def _fitted(least: list[int], widest: list[int], limit: int) -> list[int]:
    """Return the widths of the columns: what the narrowest leave free is shared out evenly."""
    widths = list(least)
    spare = limit - sum(least) - _GAP * (len(least) - 1)
    wanting = sorted((wide - few, index) for index, (few, wide) in enumerate(zip(least, widest, strict=True)))
    for place, (wanted, index) in enumerate(wanting):
        more = min(wanted, spare // (len(wanting) - place))
        widths[index] += more
        spare -= more
    return widths


def _table(titles: list[str], cells: list[list[str]], numeric: list[bool], widths: list[int]) -> str:
    from rich.table import Table  # noqa: PLC0415 - --version and --help do without

    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for title, right, wide in zip(titles, numeric, widths, strict=True):
        table.add_column(title, justify="right" if right else "left", width=wide, overflow="fold")
    for row in cells:
        table.add_row(*(_styled(cell) for cell in row))
    return _printed(table, sum(widths) + _GAP * len(widths))


def _block(headers: Sequence[str], row: list[str], prose: Collection[str], limit: int) -> str:
    """Show a row as its name with the other cells below it, as many on a line as fit."""
    from rich.cells import cell_len  # noqa: PLC0415 - --version and --help do without

    name, *others = row
    lines: list[str] = []
    line, used = "", 0
    for header, cell in zip(headers[1:], others, strict=True):
        if header in prose or cell in ("", "-"):
            continue
        pair = f"{header}: {cell}"
        if line and used + cell_len(pair) + _GAP > limit:
            lines.append(line)
            line, used = "", 0
        if cell_len(pair) + _GAP > limit:
            lines.append(wrapped(pair, limit, _INDENT, _INDENT * 2))
            continue
        line = f"{line}{_INDENT}{header}: {paint(cell)}"
        used += cell_len(pair) + _GAP
    if line:
        lines.append(line)
    lines += [
        wrapped(f"{header}: {cell}", limit, _INDENT, _INDENT * 2)
        for header, cell in zip(headers[1:], others, strict=True)
        if header in prose and cell not in ("", "-")
    ]
    from rich.text import Text  # noqa: PLC0415 - --version and --help do without

    return "\n".join([_printed(Text(name, style="bold", overflow="fold"), limit), *lines])


def _printed(shown: RenderableType, limit: int) -> str:
    """Return what the library prints, without the blanks at the ends of lines."""
    target = console(columns=limit)
    with target.capture() as captured:
        target.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


def _styled(cell: str) -> Text:
    from rich.text import Text  # noqa: PLC0415 - --version and --help do without

    return Text(cell, style=style_of(cell))


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.1f}" if isinstance(cell, float) else one_line(str(cell))
