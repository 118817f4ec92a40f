"""The four lists of MCP that an endpoint merges."""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_manager.protocol.methods import PROMPTS_CHANGED, RESOURCES_CHANGED, TOOLS_CHANGED

__all__ = ["KINDS", "PROMPTS", "RESOURCES", "TEMPLATES", "TOOLS", "Kind"]


class Kind(msgspec.Struct, frozen=True):
    """A kind of list.

    Parameters
    ----------
    method
        The method that returns it.
    member
        The member of the result that has the entries.
    field
        The same name in Python.
    key
        The member that names an entry.
    capability
        The capability of servers that have such lists.
    change
        The notification that says that it has changed.
    """

    method: str
    member: str
    field: str
    key: str
    capability: str
    change: str


TOOLS: Final = Kind("tools/list", "tools", "tools", "name", "tools", TOOLS_CHANGED)
PROMPTS: Final = Kind("prompts/list", "prompts", "prompts", "name", "prompts", PROMPTS_CHANGED)
RESOURCES: Final = Kind("resources/list", "resources", "resources", "uri", "resources", RESOURCES_CHANGED)
TEMPLATES: Final = Kind(
    "resources/templates/list",
    "resourceTemplates",
    "resource_templates",
    "uriTemplate",
    "resources",
    RESOURCES_CHANGED,
)
KINDS: Final = {kind.method: kind for kind in (TOOLS, PROMPTS, RESOURCES, TEMPLATES)}
"""The kinds of lists by method."""
