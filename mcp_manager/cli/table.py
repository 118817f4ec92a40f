"""Tables for terminals: aligned, at most 100 columns, coloured only where somebody looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["paint", "render"]

_COLOURS = {
    "Healthy": "32",
    "Degraded": "33",
    "Initializing": "33",
    "Unhealthy": "31",
    "Closed": "32",
    "HalfOpen": "33",
    "Open": "31",
    "yes": "32",
    "no": "31",
}
_WIDTH = 100


def render(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows under headers; numbers are aligned to the right, the last column is cut to fit."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [
        max(len(header), *(len(row[index]) for row in cells)) if cells else len(header)
        for index, header in enumerate(headers)
    ]
    widths[-1] = max(len(headers[-1]), min(widths[-1], _WIDTH - 2 - sum(width + 2 for width in widths[:-1])))
    numeric = [
        bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        for index in range(len(headers))
    ]
    lines = [_line(headers, widths, numeric), "  " + "  ".join("─" * width for width in widths)]
    lines += [_line(row, widths, numeric) for row in cells]
    return "\n".join(lines)


def paint(word: str, text: str | None = None) -> str:
    """Colour a word by its meaning, if standard output is a terminal and ``NO_COLOR`` is not set (no-color.org)."""
    shown = word if text is None else text
    code = _COLOURS.get(word)
    if code is None or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return shown
    return f"\x1b[{code}m{shown}\x1b[0m"


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.1f}"
    text = str(cell)
    return "".join(char if char.isprintable() else " " for char in text)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    parts = []
    for cell, width, right in zip(cells, widths, numeric, strict=True):
        cut = cell if len(cell) <= width else cell[: width - 1] + "…"
        parts.append(paint(cell.strip(), cut.rjust(width) if right else cut.ljust(width)))
    return ("  " + "  ".join(parts)).rstrip()
