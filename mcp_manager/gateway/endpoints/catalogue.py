"""One merged list: who has what clients see, and the pages that they get."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

import msgspec

from mcp_manager.errors import RpcError
from mcp_manager.gateway.endpoints.kinds import Kind
from mcp_manager.gateway.endpoints.listings import Entry, Listing
from mcp_manager.gateway.endpoints.selection import Pair, Prefer, Selection
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.protocol.error_codes import INVALID_PARAMS

__all__ = ["MISSING_KEY", "Catalogue", "Pages", "Place", "catalogue_of", "made_catalogue", "names_of"]

MISSING_KEY: Final = "mcp-manager/missing"
"""The member of a merged list's ``_meta`` that says which servers are not in it, or with an old list, and why."""

_MOST_PAGE_BYTES: Final = 1024 * 1024
_DIGEST_BYTES: Final = 16
_MANY: Final = 500
_INDEX_BYTES: Final = 4
# After a longer name, a list that has changed cannot be continued.
_LONGEST_LAST: Final = 1_024


class Place(msgspec.Struct, frozen=True):
    """Where something is that clients see.

    Parameters
    ----------
    server_id
        The server.
    own
        What the server calls it.
    own_json
        The same as JSON.
    entry
        The entry in the list of the server.
    """

    server_id: str
    own: str
    own_json: bytes
    entry: Entry


class Catalogue(msgspec.Struct, frozen=True):
    """A merged list of one kind.

    Parameters
    ----------
    kind
        Its kind.
    places
        Where everything in it is, by the name that clients know, sorted by that.
    shown
        The name that clients know, by server and own name.
    rendered
        The entries as clients get them, in the same order.
    digest
        Identifies the content, and the servers that it is of.
    """

    kind: Kind
    places: dict[str, Place]
    shown: dict[Pair, str]
    rendered: list[bytes]
    digest: bytes


def names_of(kind: Kind, lists: Mapping[str, Listing], selection: Selection, prefer: Prefer) -> dict[str, Place]:
    """Return where everything in the lists of servers is, by the name that clients know."""
    entries = {
        (server_id, entry.key): entry
        for server_id, listing in lists.items()
        for entry in listing
        if selection.shows_entry(kind, server_id, entry.key)
    }
    names = selection.names(kind, entries, prefer)
    return {
        name: Place(pair[0], pair[1], msgspec.json.encode(pair[1]), entries[pair])
        for pair, name in sorted(names.items(), key=lambda item: item[1])
    }


def catalogue_of(kind: Kind, lists: Mapping[str, Listing], selection: Selection, prefer: Prefer) -> Catalogue:
    """Merge the lists of servers; the result depends on nothing but these lists."""
    places = names_of(kind, lists, selection, prefer)
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    rendered: list[bytes] = []
    shown: dict[Pair, str] = {}
    for name, place in places.items():
        pair = place.server_id, place.own
        shown[pair] = name
        text = selection.rendered(kind, pair, place.entry, name)
        rendered.append(text)
        digest.update(b"%d:%d:" % (len(text), len(place.server_id)))
        digest.update(text)
        digest.update(place.server_id.encode())
    return Catalogue(kind, places, shown, rendered, digest.digest())


async def made_catalogue(kind: Kind, lists: Mapping[str, Listing], selection: Selection, prefer: Prefer) -> Catalogue:
    """Return what :func:`catalogue_of` does; it is made in a thread if it is large."""
    make = partial(catalogue_of, kind, lists, selection, prefer)
    return make() if sum(map(len, lists.values())) <= _MANY else await asyncio.to_thread(make)


class Pages:
    """The results of a paged list (2025-11-25, server/utilities/pagination), made once.

    A cursor names the last entry that the client has got. If the list has changed meanwhile, as it does while servers
    come and go, the client gets what now follows this entry.

    Parameters
    ----------
    catalogue
        What is listed.
    missing
        Why servers are not in it, by server id.
    sealer
        Seals the cursors, so that nobody can make one.
    purpose
        What the cursors are for: the endpoint, and what the rules allow there. All others are refused.
    size
        The most entries of a page. It also ends before 1 MiB, but has at least one entry.
    """

    def __init__(
        self, catalogue: Catalogue, missing: Mapping[str, str], sealer: Sealer, purpose: str, size: int
    ) -> None:
        self._sealer = sealer
        self._purpose = f"cursor/{purpose}/{catalogue.kind.method}".encode()
        self._size = size
        self.digest: bytes = catalogue.digest
        self._member = catalogue.kind.member.encode()
        self._meta = b"" if not missing else b',"_meta":%b' % msgspec.json.encode({MISSING_KEY: missing})
        self._names = list(catalogue.places)
        self._rendered = catalogue.rendered
        parts = list(_divided(catalogue.rendered, size))
        self._pages: list[bytes] = []
        # Where each page begins.
        self._starts: list[int] = []
        start = 0
        for part in parts:
            self._starts.append(start)
            start += len(part)
            self._pages.append(self._page(part, start))

    def __len__(self) -> int:
        return len(self._pages)

    def page(self, cursor: str | None) -> bytes:
        """Return a page as the result of a request; raises :class:`RpcError` for a cursor that is not of this list."""
        if cursor is None:
            return self._pages[0]
        plain = self._sealer.open(self._purpose, cursor)
        if plain is not None:
            last = plain[_DIGEST_BYTES + _INDEX_BYTES :].decode()
            if plain[:_DIGEST_BYTES] == self.digest:
                return self._from(int.from_bytes(plain[_DIGEST_BYTES : _DIGEST_BYTES + _INDEX_BYTES]))
            if last:
                return self._from(bisect_right(self._names, last))
        raise RpcError(
            INVALID_PARAMS,
            "Invalid cursor: it is not of this list as it is now; list again from the start",
            {"source": "gateway"},
        )

    def _from(self, start: int) -> bytes:
        """Return the page that begins with an entry."""
        index = bisect_right(self._starts, start) - 1
        if self._starts[index] == start:
            return self._pages[index]
        part = next(_divided(self._rendered[start : start + self._size], self._size))
        return self._page(part, start + len(part))

    def _page(self, part: list[bytes], end: int) -> bytes:
        cursor = b"" if end >= len(self._names) else b',"nextCursor":"%b"' % self._cursor(end)
        return b'{"%b":[%b]%b%b}' % (self._member, b",".join(part), cursor, self._meta)

    def _cursor(self, end: int) -> bytes:
        """Return the cursor for what begins with an entry."""
        last = self._names[end - 1].encode()
        plain = self.digest + end.to_bytes(_INDEX_BYTES) + (last if len(last) <= _LONGEST_LAST else b"")
        return self._sealer.seal(self._purpose, plain).encode("ascii")


def _divided(rendered: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    length = 0
    for text in rendered:
        if part and (len(part) >= size or length + len(text) > _MOST_PAGE_BYTES):
            yield part
            part, length = [], 0
        part.append(text)
        length += len(text) + 1
    yield part
