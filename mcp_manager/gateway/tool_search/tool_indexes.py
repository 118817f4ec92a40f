"""The indexes of tools that are kept, for as long as the tools stay the same."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from mcp_manager.gateway.tool_search.tool_index import IndexedTool, ToolIndex
from mcp_manager.runtime.background import background_task, bare_context

__all__ = ["ToolIndexes"]

# Indexes of more tools are searched in a thread.
_FEW: Final = 300
# Some 700 bytes a tool, and as much as for 100 tools for an index by itself: 70 MB.
_MOST_KEPT: Final = 100_000
_ITSELF: Final = 100


class ToolIndexes:
    """Make the index of a catalogue with the first search, once for all who search, and keep it.

    Those used last are kept, in some 70 MB together.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, ToolIndex] = OrderedDict()
        self._making: dict[bytes, asyncio.Task[ToolIndex]] = {}
        # One thread at a time makes an index.
        self._turn = asyncio.Lock()

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
            # Whoever goes leaves it to the others.
            index = await asyncio.shield(self._made(digest, tools))
        if digest in self._kept:
            self._kept.move_to_end(digest)
        if len(index) <= _FEW:
            return index.search(query, limit)
        return await asyncio.to_thread(index.search, query, limit)

    async def aclose(self) -> None:
        """Make no index any longer, and keep none. Idempotent."""
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        self._kept.clear()

    def _made(self, digest: bytes, tools: Callable[[], Sequence[IndexedTool]]) -> asyncio.Task[ToolIndex]:
        task = self._making.get(digest)
        if task is None:
            task = background_task(self._make(digest, tools), "make an index of tools", context=bare_context())
            self._making[digest] = task
            task.add_done_callback(lambda _: self._making.pop(digest))
        return task

    async def _make(self, digest: bytes, tools: Callable[[], Sequence[IndexedTool]]) -> ToolIndex:
        async with self._turn:
            index = await asyncio.to_thread(lambda: ToolIndex(tools()))
        left = _MOST_KEPT - len(index) - _ITSELF
        for each in reversed(list(self._kept)):
            left -= len(self._kept[each]) + _ITSELF
            if left < 0:
                del self._kept[each]
        self._kept[digest] = index
        return index
