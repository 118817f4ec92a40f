"""Search in the tools of a fleet: an index of a catalogue, kept as long as the catalogue stays the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from mcp_manager.adapters.bm25 import Bm25Index, Field
from mcp_manager.errors import ProtocolError
from mcp_manager.manager import McpManager
from mcp_manager.verbs.fleet_tools import FleetTool

__all__ = ["ToolIndex", "index_of"]

_NAME_WEIGHT: Final = 3.0
_DESCRIPTION_WEIGHT: Final = 1.0
_PARAMETER_WEIGHT: Final = 0.5
# A larger catalogue takes many milliseconds, so it is read in a thread.
_FEW: Final = 200
# A manager's own catalogue, some of callers, and some of parts of the fleet.
_MOST_KEPT: Final = 8
_DEEPEST: Final = 8


class ToolIndex:
    """Search in tools by their names, titles, descriptions, and the names and descriptions of their parameters.

    Parameters
    ----------
    tools
        The tools of a catalogue.
    """

    def __init__(self, tools: Sequence[FleetTool]) -> None:
        self.tools: tuple[FleetTool, ...] = tuple(tools)
        self._entries = _entries_of(tools)
        self._texts = Bm25Index(map(_fields_of, tools))

    def holds(self, tools: Sequence[FleetTool]) -> bool:
        """Whether these are the tools in the index."""
        return len(tools) == len(self.tools) and _entries_of(tools) == self._entries

    def search(
        self, query: str, limit: int | None = None, *, among: Callable[[FleetTool], bool] | None = None
    ) -> list[FleetTool]:
        """Return the tools that a query finds, the best first; those with the same score are sorted by name."""
        found = self._texts.search(
            query, limit, among=None if among is None else lambda number: among(self.tools[number])
        )
        return [self.tools[number] for number, _ in found]


async def index_of(manager: McpManager, tools: Sequence[FleetTool]) -> ToolIndex:
    """Return the index of a catalogue: the one made before, if the catalogue is still the same."""
    kept = _indexes.setdefault(manager, [])
    found = next((each for each in kept if each.holds(tools)), None)
    if found is None:
        found = ToolIndex(tools) if len(tools) <= _FEW else await asyncio.to_thread(ToolIndex, tools)
    else:
        kept.remove(found)
    # The one used last comes last.
    kept.append(found)
    del kept[:-_MOST_KEPT]
    return found


_indexes: WeakKeyDictionary[McpManager, list[ToolIndex]] = WeakKeyDictionary()


def _entries_of(tools: Sequence[FleetTool]) -> list[tuple[str, object]]:
    # The records of tools are the same objects as long as a list is cached, which makes comparing them fast.
    return [(each.name, each.tool) for each in tools]


def _fields_of(entry: FleetTool) -> list[Field]:
    tool = entry.tool
    fields = [
        (_NAME_WEIGHT, tool.name),
        (_NAME_WEIGHT, tool.title or ""),
        (_DESCRIPTION_WEIGHT, entry.server_id),
        (_DESCRIPTION_WEIGHT, tool.description or ""),
    ]
    try:
        _add_parameters(fields, tool.input_schema, _DEEPEST)
    except ProtocolError:
        # A malformed schema has no parameters to search for.
        pass
    return fields


def _add_parameters(fields: list[Field], schema: dict[str, Any], depth: int) -> None:
    properties = schema.get("properties")
    if depth <= 0 or not isinstance(properties, dict):
        return
    for name, value in properties.items():
        fields.append((_PARAMETER_WEIGHT, name))
        if isinstance(value, dict):
            description = value.get("description")
            if isinstance(description, str):
                fields.append((_PARAMETER_WEIGHT, description))
            items = value.get("items")
            _add_parameters(fields, items if isinstance(items, dict) else value, depth - 1)
