"""Pages of the servers of a fleet, in the order of their ids, which stay right while servers come and go."""

from __future__ import annotations

import heapq
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from collections.abc import Iterable
from typing import Final, NamedTuple

from mcp_manager.gateway.admin.problems import refused

__all__ = ["LONGEST_CURSOR", "MOST_ON_A_PAGE", "Page", "page_after", "place"]

MOST_ON_A_PAGE: Final = 1_000
"""How many servers one answer shows at most, and without ``limit``."""
LONGEST_CURSOR: Final = 1_366
"""The characters of the longest cursor: an id has at most 256, of four bytes each."""


class Page(NamedTuple):
    """A part of the servers.

    Attributes
    ----------
    ids
        Their ids, in order.
    cursor
        Where the next page begins; ``None`` if this is the last one.
    """

    ids: list[str]
    cursor: str | None


def page_after(ids: Iterable[str], after: str, limit: int) -> Page:
    """Return the first servers after one.

    A cursor names the last id of its page, not a number: whatever comes and goes between two pages, no server is
    shown twice, and none is left out that is there all the time. It means the same to every worker of a gateway, and
    after a new start.

    Parameters
    ----------
    ids
        The ids of all servers.
    after
        The id after which the page begins, of a server that may be gone by now; "" for the first page.
    limit
        How many servers a page has at most, from 1.
    """
    found = heapq.nsmallest(limit + 1, (each for each in ids if each > after))
    if len(found) <= limit:
        return Page(found, None)
    del found[limit:]
    return Page(found, urlsafe_b64encode(found[-1].encode()).decode().rstrip("="))


def place(text: str, name: str) -> str:
    """Return the id after which the page of a cursor begins; raises :class:`Refusal` if it is no cursor."""
    try:
        if 0 < len(text) <= LONGEST_CURSOR and text.isascii():
            after = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            # The decoder passes over what is no Base64.
            if urlsafe_b64encode(after.encode()).decode().rstrip("=") == text:
                return after
    except (NoBase64, UnicodeDecodeError):
        pass
    raise refused(400, f"{name} is not a cursor of this API", hint="send next of the page before", field=name)
