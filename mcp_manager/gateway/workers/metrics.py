"""The metrics of all workers on one page: every sample says which worker it is of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["labelled", "merged"]

_LABELLED: Final = re.compile(rb"^([A-Za-z_:][\w:]*)\{", re.MULTILINE)
_BARE: Final = re.compile(rb"^([A-Za-z_:][\w:]*) ", re.MULTILINE)
_HELP: Final = b"# HELP "
_EOF: Final = b"# EOF\n"


def labelled(page: bytes, worker: int) -> bytes:
    """Return the metrics of one worker with the label ``worker`` on every sample.

    Samples are not added up: ``rate()`` must see that the counters of a worker begin anew when it is restarted, and the
    sum of a gauge or of quantiles need not mean anything. ``sum without (worker) (…)`` adds up what shall be.

    Parameters
    ----------
    page
        The text format of Prometheus, or OpenMetrics.
    worker
        The number of the worker.
    """
    page = _LABELLED.sub(rb'\1{worker="%d",' % worker, page)
    return _BARE.sub(rb'\1{worker="%d"} ' % worker, page)


def merged(pages: Iterable[bytes]) -> bytes:
    """Return the labelled metrics of all workers as one page, on which each family comes once, as the formats require.

    Parameters
    ----------
    pages
        The pages of :func:`labelled`, all of one format.
    """
    heads: dict[bytes, bytes] = {}
    samples: dict[bytes, list[bytes]] = {}
    end = b""
    for page in pages:
        if page.endswith(_EOF):
            page, end = page.removesuffix(_EOF), _EOF
        for family in (b"\n" + page).split(b"\n" + _HELP)[1:]:
            name = family.split(b" ", 1)[0]
            head, lines = _cut(family)
            heads.setdefault(name, head)
            if lines:
                samples.setdefault(name, []).append(lines)
    return b"".join(_HELP + head + b"".join(samples.get(name, ())) for name, head in heads.items()) + end


def _cut(family: bytes) -> tuple[bytes, bytes]:
    """Return the lines that describe a family, and its samples."""
    place = 0
    while place < len(family):
        end = family.find(b"\n", place)
        end = len(family) if end < 0 else end
        if place and not family.startswith(b"#", place):
            break
        place = end + 1
    head, lines = family[:place].rstrip(b"\n"), family[place:].rstrip(b"\n")
    return head + b"\n", lines + b"\n" if lines else b""
