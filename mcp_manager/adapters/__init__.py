"""Tools of a fleet for language models: what to offer them, and what to answer them.

:func:`select_tools` makes a :class:`Toolset`. One module for each API turns it into the definitions that a request
contains, and the model's tool calls into the messages that answer them. No module here imports a vendor's package
unless its name says so.
"""

from mcp_manager.adapters.answers import ToolAnswer
from mcp_manager.adapters.definitions import ToolDefinition
from mcp_manager.adapters.fleet_link import ToolSource
from mcp_manager.adapters.selection import Conditions, Selection, select_tools, select_tools_blocking
from mcp_manager.adapters.token_budget import estimated_tokens
from mcp_manager.adapters.tool_search import ToolSearch
from mcp_manager.adapters.toolset import CallNext, Middleware, OnError, Toolset, ToolsetOptions

__all__ = [
    "CallNext",
    "Conditions",
    "Middleware",
    "OnError",
    "Selection",
    "ToolAnswer",
    "ToolDefinition",
    "ToolSearch",
    "ToolSource",
    "Toolset",
    "ToolsetOptions",
    "estimated_tokens",
    "select_tools",
    "select_tools_blocking",
]
