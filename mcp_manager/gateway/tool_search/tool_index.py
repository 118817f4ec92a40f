"""Ranked search in the tools of a catalogue, by BM25, with the full-text index of SQLite."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from mcp_manager.gateway.tool_search.definitions import definition_in
from mcp_manager.gateway.tool_search.words import TOKENIZER, indexed, terms_of

__all__ = ["IndexedTool", "ToolIndex"]

# The columns, and what a word in each of them counts.
_WEIGHTS: Final = {"name": 8.0, "server": 3.0, "title": 6.0, "description": 3.0, "parameters": 1.5, "details": 0.5}
_MOST_KNOWN: Final = 2_000
_SHORTEST_PREFIX: Final = 3
# What one word adds to the score of a tool is its inverse document frequency times less than this, k1 + 1 of BM25; and
# times more than that, if it is in a description or a name of average length.
_MOST_OF_TERM: Final = 2.2
_USUAL_OF_TERM: Final = 1.4
# So few are ranked by words that most of them have, too.
_FEW: Final = 100

_COLUMNS: Final = ", ".join(_WEIGHTS)
_CREATE: Final = f"""CREATE VIRTUAL TABLE tools USING fts5({_COLUMNS}, content='', tokenize="{TOKENIZER}")"""
_INSERT: Final = f"INSERT INTO tools(rowid, {_COLUMNS}) VALUES ({', '.join('?' * (len(_WEIGHTS) + 1))})"
_SEARCH: Final = (
    f"SELECT rowid, bm25(tools, {', '.join(map(str, _WEIGHTS.values()))}) AS score"
    " FROM tools WHERE tools MATCH ? ORDER BY score, rowid LIMIT ?"
)
_SEARCH_UNRANKED: Final = "SELECT rowid, 0 FROM tools WHERE tools MATCH ? LIMIT ?"
_COUNT: Final = "SELECT count(*) FROM tools WHERE tools MATCH ?"


class IndexedTool(msgspec.Struct, frozen=True):
    """A tool that can be found.

    Parameters
    ----------
    name
        The name that clients know.
    server_id
        Its server.
    raw
        Its definition as clients get it, as JSON.
    """

    name: str
    server_id: str
    raw: bytes


class ToolIndex:
    """Search in tools by their names, servers, titles, descriptions, and the names and descriptions of parameters.

    Immutable. Making it and searching in it take milliseconds in a large catalogue: do both in a thread. SQLite lets
    other threads run meanwhile.

    Parameters
    ----------
    tools
        The tools of a catalogue.
    """

    def __init__(self, tools: Sequence[IndexedTool]) -> None:
        # Only those need SQLite who search.
        import sqlite3  # noqa: PLC0415

        self.tools: tuple[IndexedTool, ...] = tuple(tools)
        self._lock = threading.Lock()
        # How many tools have a term.
        self._counts: dict[str, int] = {}
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        # Whoever searches holds the index.
        weakref.finalize(self, self._connection.close)
        self._connection.execute(_CREATE)
        self._connection.execute("BEGIN")
        self._connection.executemany(_INSERT, _rows(self.tools))
        self._connection.execute("COMMIT")

    def __len__(self) -> int:
        return len(self.tools)

    def search(self, query: str, limit: int) -> list[IndexedTool]:
        """Return the tools that have a word of a query, the best first; those with the same score in their order.

        Parameters
        ----------
        query
            Words in any language; nothing in it has a special meaning.
        limit
            How many to return at most.
        """
        with self._lock:
            counts = self._counted(terms_of(query))
            if not counts:
                return []
            telling = list(counts)
            if len(self.tools) > _FEW:
                # BM25 gives nothing for what more than half of them have, and looking at all those takes long.
                telling = [term for term, count in counts.items() if count * 2 <= len(self.tools)]
            found = self._best({term: counts[term] for term in telling}, limit) if telling else None
            if found is None:
                search = _SEARCH if telling else _SEARCH_UNRANKED
                found = self._found(search, " OR ".join(telling or counts), limit)
        return [self.tools[number] for number, _ in found]

    def _best(self, counts: dict[str, int], limit: int) -> list[tuple[int, float]] | None:
        """Return the best tools with their scores, if it is enough to rank those that have the rarer words.

        What it takes is to rank each tool. A tool that has only the more frequent words has a limited score: if enough
        others have more, it need not be ranked. The result is the same as without that.

        Parameters
        ----------
        counts
            How many tools have each of the terms, which are those that tell anything.
        limit
            How many tools to return.
        """
        terms = sorted(counts, key=counts.__getitem__)
        worth = [math.log((len(self.tools) - counts[each] + 0.5) / (counts[each] + 0.5)) for each in terms]
        ranked = 0
        for number in range(1, len(terms)):
            ranked += counts[terms[number - 1]]
            left = sum(worth[number:]) * _MOST_OF_TERM
            if ranked * 2 > sum(counts.values()):
                return None
            if ranked >= limit and left < worth[number - 1] * _USUAL_OF_TERM:
                break
        else:
            return None
        rare, frequent = " OR ".join(terms[:number]), " OR ".join(terms[number:])
        # Two searches, because there are no words that need not be there, but count.
        found = self._found(_SEARCH, f"({rare}) AND ({frequent})", limit)
        found += self._found(_SEARCH, f"({rare}) NOT ({frequent})", limit)
        found = sorted(found, key=lambda each: (each[1], each[0]))[:limit]
        return found if len(found) == limit and -found[-1][1] >= left else None

    def _found(self, search: str, match: str, limit: int) -> list[tuple[int, float]]:
        found: list[tuple[int, float]] = self._connection.execute(search, (match, limit)).fetchall()
        return found

    def _counted(self, terms: list[str]) -> dict[str, int]:
        """Return how many tools have each of the terms; in place of a word that no tool has, what begins with it."""
        counts: dict[str, int] = {}
        for term in terms:
            count = self._count(term)
            if count == 0 and len(term) - 2 >= _SHORTEST_PREFIX:
                term = f"{term}*"
                count = self._count(term)
            if count:
                counts[term] = count
        return counts

    def _count(self, term: str) -> int:
        count = self._counts.get(term)
        if count is None:
            if len(self._counts) >= _MOST_KNOWN:
                self._counts.clear()
            count = self._counts[term] = self._connection.execute(_COUNT, (term,)).fetchone()[0]
        return count


def _rows(tools: Sequence[IndexedTool]) -> Iterator[tuple[Any, ...]]:
    for number, tool in enumerate(tools):
        definition = definition_in(tool.raw)
        yield (
            number,
            indexed(tool.name, is_name=True),
            indexed(tool.server_id, is_name=True),
            indexed(definition.title),
            indexed(definition.description),
            indexed(" ".join(definition.parameters), is_name=True),
            indexed(definition.details, is_name=True),
        )
