"""Draws a bar chart of processor time per call as SVG, without scripts, readable on light and dark backgrounds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

from benchmarks.calls.cases import parse_case
from benchmarks.calls.report import caption
from benchmarks.calls.samples import Samples

__all__ = ["chart"]

_FEWEST: Final = 3
_WIDTH: Final = 840
_LABELS: Final = 150
_VALUES: Final = 90
_BAR: Final = 20
_GAP: Final = 7
_TITLE: Final = 44
_CAPTION_COLUMNS: Final = 125
_OURS: Final = "#0f8a6d"
_LANE: Final = "#8a63d2"
_THEIRS: Final = "#8b949e"
_INK: Final = "#7d8590"
_OWN: Final = ("execute", "execute_async", "execute_raw", "call_tool")


def chart(samples: Samples, clients: Sequence[str], about: dict[str, Any]) -> str:
    """Draw the cases that were measured for three clients or more, one panel each, the most expensive client on top.

    Parameters
    ----------
    clients
        The clients to show.
    about
        Machine, date and versions, for the caption.
    """
    panels = []
    for case, loop in samples.cases():
        shown = [client for client in samples.clients(case, loop) if client in clients]
        costs = {client: found.cpu_us for client in shown if (found := samples.summary(case, loop, client))}
        if len(costs) >= _FEWEST:
            panels.append((f"{parse_case(case).title}, {loop}", costs))
    parts: list[str] = []
    top = 0.0
    for title, costs in panels:
        parts += _panel(title, costs, top)
        top += _TITLE + len(costs) * (_BAR + _GAP) + _GAP * 2
    note = "µs of CPU of the client process per call, medians of interleaved rounds, logarithmic scale. " + caption(
        about
    )
    for line in textwrap.wrap(note, _CAPTION_COLUMNS):
        top += 15
        parts.append(_text(8, top, line, size=11))
    height = math.ceil(top + 12)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif">'
    )
    return "\n".join([head, "<title>What a call costs</title>", *parts, "</svg>"]) + "\n"


def _panel(title: str, costs: dict[str, float], top: float) -> list[str]:
    # A logarithmic scale has no zero: the bars of all panels begin at a microsecond if they can.
    lowest = min(1.0, 10 ** math.floor(math.log10(max(min(costs.values()) / 2, 0.001))))
    highest = max(max(costs.values()), lowest * 10)
    span = _WIDTH - _LABELS - _VALUES
    scale = span / math.log10(highest / lowest)
    bottom = top + _TITLE + len(costs) * (_BAR + _GAP)
    parts = [_text(8, top + 20, title, size=15, weight="600")]
    tick = lowest
    while tick <= highest:
        x = _LABELS + math.log10(tick / lowest) * scale
        parts.append(
            f'<line x1="{x:.1f}" y1="{top + 30:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{_INK}" '
            'stroke-opacity="0.35"/>'
        )
        parts.append(_text(x + 3, top + 38, f"{tick:g}", size=10))
        tick *= 10
    for row, (client, cost) in enumerate(sorted(costs.items(), key=lambda each: -each[1])):
        y = top + _TITLE + row * (_BAR + _GAP)
        length = max(2.0, math.log10(max(cost, lowest) / lowest) * scale)
        colour = _OURS if client in _OWN else _LANE if client == "bare lane" else _THEIRS
        parts.append(_text(_LABELS - 8, y + 15, client, size=13, anchor="end"))
        parts.append(f'<rect x="{_LABELS}" y="{y:.1f}" width="{length:.1f}" height="{_BAR}" rx="3" fill="{colour}"/>')
        parts.append(_text(_LABELS + length + 6, y + 15, f"{cost:,.{0 if cost >= 100 else 1}f} µs", size=13))
    return parts


def _text(x: float, y: float, text: str, *, size: int, anchor: str = "start", weight: str = "400") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{_INK}">{escape(text)}</text>'
    )
