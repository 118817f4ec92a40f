"""What of the views of a file stands for no tool, compared with what the servers list."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from mcp_manager.config import ViewConfig
from mcp_manager.errors import McpManagerError, RpcError
from mcp_manager.gateway.endpoints.selection import ViewSelection
from mcp_manager.manager import McpManager
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND

__all__ = ["idle_entries", "tool_names"]


def idle_entries(
    views: Mapping[str, ViewConfig], tools: Mapping[str, Collection[str]], server_ids: Collection[str]
) -> Iterator[str]:
    """Yield a sentence for each entry of a view that stands for no tool.

    Parameters
    ----------
    views
        The views by name.
    tools
        The names of the tools of each server that has told them.
    server_ids
        All servers of the fleet.
    """
    unlisted = [server_id for server_id in server_ids if server_id not in tools]
    for name, view in views.items():
        for field, entry in ViewSelection(view).without_effect(tools, unlisted):
            yield f"views.{name}.{field}: {entry!r} stands for no tool"


async def tool_names(manager: McpManager, server_id: str) -> Sequence[str] | McpManagerError:
    """Return the names of the tools of a server, or why it did not list them."""
    try:
        return [tool.name for tool in await manager.list_tools(server_id)]
    except McpManagerError as error:
        # A server need not have tools.
        return [] if isinstance(error, RpcError) and error.code == METHOD_NOT_FOUND else error
