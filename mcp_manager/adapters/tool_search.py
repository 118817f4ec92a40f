"""Two tools in place of thousands: one finds tools, and one calls them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Unpack

import msgspec

from mcp_manager.adapters.definitions import definition_of
from mcp_manager.adapters.fleet_link import ToolSource
from mcp_manager.adapters.selection import Conditions, chosen, matching, options_of
from mcp_manager.adapters.toolset import Toolset, decoded_arguments
from mcp_manager.errors import InvalidRequestError
from mcp_manager.results import CallToolResult, TextContent, Tool
from mcp_manager.verbs.fleet_tools import FleetTool, ToolCatalog

__all__ = ["ToolSearch"]

_SEARCH: Final = "search_tools"
_CALL: Final = "call_tool"
_FOUND: Final = 5


class ToolSearch(Toolset):
    """Two tools for a model that may use thousands: ``search_tools`` finds tools, and ``call_tool`` calls one.

    Use it wherever a :class:`Toolset` is used. ``search_tools(query)`` returns names, descriptions and parameters of
    the tools that match best; ``call_tool(name, arguments)`` calls one of them, and returns what it returns. What the
    model can find is what servers list at that moment.

    Parameters
    ----------
    manager
        A running manager, or what ``for_caller()`` returns.
    conditions
        Which tools can be found and called, see :class:`Conditions`; there, ``limit`` (default: 5) and ``max_tokens``
        hold for each search. Further options are those of :class:`ToolsetOptions`.

    Raises
    ------
    InvalidRequestError
        An argument is invalid.
    """

    _existing = f"{_SEARCH} finds the tools that there are"

    def __init__(self, manager: ToolSource, **conditions: Unpack[Conditions]) -> None:
        super().__init__(manager, (_SEARCH_TOOL, _CALL_TOOL), **options_of(conditions))
        if "query" in conditions:
            raise TypeError("a search has no query of its own: the model gives it")
        conditions.setdefault("limit", _FOUND)
        self._conditions = conditions
        self._found: dict[str, FleetTool] = {}

    async def _call(
        self, name: str, arguments: Mapping[str, Any] | str | None, timeout: float | None
    ) -> CallToolResult:
        if name == _SEARCH:
            return await self._search(decoded_arguments(arguments))
        if name == _CALL:
            given = decoded_arguments(arguments)
            name, arguments = given.get("name", ""), given.get("arguments")
            if not isinstance(name, str) or not isinstance(arguments, dict | str | None):
                raise InvalidRequestError('call_tool takes {"name": a string, "arguments": an object}')
        # Models also call what they have found by its name.
        return await self._call_found(name, arguments, timeout)

    async def _call_found(
        self, name: str, arguments: Mapping[str, Any] | str | None, timeout: float | None
    ) -> CallToolResult:
        if isinstance(name, str) and name not in self._found:
            await self._look()
        return await self._call_one_of(self._found, name, arguments, timeout)

    async def _search(self, given: Mapping[str, Any]) -> CallToolResult:
        query = given.get("query")
        if not isinstance(query, str):
            raise InvalidRequestError('search_tools takes {"query": a string}')
        catalog, allowed = await self._look()
        found = await chosen(self._link, catalog, allowed, query, self._conditions)
        said: dict[str, Any] = {"tools": [msgspec.to_builtins(definition_of(each)) for each in found]}
        if not found:
            said["note"] = f"No tool matches. There are {len(allowed):,} tools: search with other words."
        if catalog.missing:
            said["not_available_now"] = sorted(catalog.missing)
        return CallToolResult(content=[TextContent(text=msgspec.json.encode(said).decode())])

    async def _look(self) -> tuple[ToolCatalog, list[FleetTool]]:
        conditions = self._conditions
        servers = conditions.get("servers")
        if servers is not None:
            # One that is undeployed must not keep the model from the tools of the others.
            conditions = {**conditions, "servers": self._link.deployed(servers)}
        catalog, allowed = await matching(self._link, conditions)
        self._found = {each.name: each for each in allowed}
        self._missing = MappingProxyType(catalog.missing)
        return catalog, allowed


def _own_tool(name: str, description: str, schema: dict[str, Any]) -> FleetTool:
    tool = Tool(name=name, description=description, input_schema_json=msgspec.Raw(msgspec.json.encode(schema)))
    return FleetTool(name=name, server_id="", tool=tool)


_SEARCH_TOOL: Final = _own_tool(
    _SEARCH,
    "Find tools by what they do. Returns the names, descriptions and parameters of the tools that match best; call one "
    f"with {_CALL}. Search before you say that something cannot be done.",
    {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "A few words for the task, such as: create calendar event"}
        },
        "required": ["query"],
    },
)
_CALL_TOOL: Final = _own_tool(
    _CALL,
    f"Call a tool that {_SEARCH} has found.",
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": f"The name of the tool, as {_SEARCH} returned it"},
            "arguments": {"type": "object", "description": "The arguments, as the parameters of the tool say"},
        },
        "required": ["name", "arguments"],
    },
)
