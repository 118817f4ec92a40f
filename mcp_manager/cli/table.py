"""Output for terminals: tables of at most 100 columns, wrapped texts, errors, and colours."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Final

__all__ = ["arrow", "complain", "one_line", "paint", "paragraph", "render"]

_WIDTH: Final = 100
_NARROWEST: Final = 8
_GAP: Final = "  "
_GREEN, _YELLOW, _RED = "32", "33", "31"
_COLOURS: Final = {
    "Healthy": _GREEN,
    "Closed": _GREEN,
    "yes": _GREEN,
    "Initializing": _YELLOW,
    "Degraded": _YELLOW,
    "HalfOpen": _YELLOW,
    "Unhealthy": _RED,
    "Open": _RED,
    "no": _RED,
}


def render(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format rows as a table: numbers to the right, the widest columns cut so that it fits 100 columns.

    Parameters
    ----------
    headers
        One title per column.
    rows
        One row per line with one cell per column: floats are shown with one decimal, ``None`` as a dash.
    """
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    while sum(widths) + len(_GAP) * len(widths) > _WIDTH and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    numeric = [
        bool(column) and all(cell is None or isinstance(cell, int | float) for cell in column)
        for column in ([row[index] for row in rows] for index in range(len(headers)))
    ]
    rule = _drawn("─", "-")
    lines = [_line(headers, widths, numeric), _line([rule * width for width in widths], widths, numeric)]
    lines += [_line(row, widths, numeric) for row in cells]
    return "\n".join(lines)


def paragraph(label: str, text: str) -> str:
    """Wrap a labelled text to the width of the tables."""
    label = one_line(label)
    return textwrap.fill(
        f"{label}: {one_line(text)}", _WIDTH, initial_indent=_GAP, subsequent_indent=_GAP * 2, break_on_hyphens=False
    )


def paint(word: str, text: str | None = None) -> str:
    """Colour a word, or ``text``, by the word's meaning, if standard output is a terminal without ``NO_COLOR``."""
    shown = word if text is None else text
    code = _COLOURS.get(word)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return shown if code is None or plain else f"\x1b[{code}m{shown}\x1b[0m"


def arrow() -> str:
    """Return an arrow that standard output can show."""
    return _drawn("→", "->")


def complain(text: str) -> None:
    """Print an error in one line on standard error, after everything printed so far."""
    sys.stdout.flush()
    print(f"mcp-manager: {one_line(text)}", file=sys.stderr)


def one_line(text: str) -> str:
    """Put a text from outside on one line, without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _drawn(drawn: str, typed: str) -> str:
    try:
        drawn.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return typed
    return drawn


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.1f}" if isinstance(cell, float) else one_line(str(cell))


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    parts = []
    for cell, width, right in zip(cells, widths, numeric, strict=True):
        cut = cell if len(cell) <= width else cell[: width - 3] + "..."
        parts.append(paint(cell, cut.rjust(width) if right else cut.ljust(width)))
    return _GAP + _GAP.join(parts).rstrip()
