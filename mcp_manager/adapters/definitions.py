"""Tools as models see them: a name, a description and a schema of the arguments."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_manager.adapters.schemas import object_schema
from mcp_manager.errors import ProtocolError
from mcp_manager.verbs.fleet_tools import FleetTool

__all__ = ["ToolDefinition", "definition_of"]


class ToolDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One tool as a model sees it, in no vendor's format.

    Attributes
    ----------
    name
        The unique name in the fleet: 1 to 64 characters of ``A-Z a-z 0-9 _ -``.
    description
        The server's text for models; ``""`` without one.
    parameters
        The JSON Schema of the arguments. It always has ``"type": "object"`` and ``properties``, and at
        its top none of the keywords that some vendors refuse there: alternatives are merged.
    """

    name: str
    description: str
    parameters: dict[str, Any]


def definition_of(tool: FleetTool) -> ToolDefinition:
    """Return the definition of a tool; one whose schema is no object takes any arguments."""
    try:
        schema = tool.tool.input_schema
    except ProtocolError:
        schema = {}
    return ToolDefinition(
        name=tool.name,
        description=tool.tool.description or tool.tool.title or "",
        parameters=object_schema(schema),
    )
