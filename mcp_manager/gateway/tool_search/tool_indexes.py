"""The indexes of tools that are kept, for as long as the tools stay the same."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from mcp_manager.gateway.tool_search.tool_index import IndexedTool, ToolIndex

__all__ = ["ToolIndexes"]

# Indexes of more tools are made in a thread, and searched there.
_FEW: Final = 300
# Some 700 bytes a tool: as much as is kept, but for the index used last.
_MOST_TOOLS: Final = 100_000


class ToolIndexes:
    """Make the index of a catalogue with the first search, once for all who search, and keep it.

    Those used last are kept, with 100,000 tools together.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, ToolIndex] = OrderedDict()
        self._making = asyncio.Lock()
        self._making_in_thread = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    async def search(
        self, digest: bytes, tools: Callable[[], Sequence[IndexedTool]], query: str, limit: int
    ) -> list[IndexedTool]:
        """Return the tools of a catalogue that a query finds, the best first.

        Parameters
        ----------
        digest
            Identifies the catalogue.
        tools
            Returns its tools, in any thread.
        query, limit
            As for :meth:`ToolIndex.search`.
        """
        index = self._kept.get(digest)
        if index is None:
            async with self._making:
                index = await asyncio.to_thread(self._made, digest, tools)
        if digest in self._kept:
            self._kept.move_to_end(digest)
        if len(index) <= _FEW:
            return index.search(query, limit)
        return await asyncio.to_thread(index.search, query, limit)

    def clear(self) -> None:
        """Keep nothing any longer."""
        self._kept.clear()

    def _made(self, digest: bytes, tools: Callable[[], Sequence[IndexedTool]]) -> ToolIndex:
        # A client that goes leaves its thread behind, and what that makes.
        with self._making_in_thread:
            index = self._kept.get(digest)
            if index is None:
                index = ToolIndex(tools())
                left = _MOST_TOOLS - len(index)
                for each in reversed(list(self._kept)):
                    left -= len(self._kept[each])
                    if left < 0:
                        del self._kept[each]
                self._kept[digest] = index
            return index
