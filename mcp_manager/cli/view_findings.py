"""What of the views and the rules of a file matches nothing, compared with what the servers list."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from mcp_manager.config import AllowConfig, ViewConfig
from mcp_manager.config.tools import is_pattern
from mcp_manager.errors import McpManagerError, RpcError
from mcp_manager.gateway.endpoints.kinds import TOOLS
from mcp_manager.gateway.endpoints.name_patterns import compiled
from mcp_manager.gateway.endpoints.selection import ViewSelection
from mcp_manager.gateway.security.grants import Rule
from mcp_manager.manager import McpManager
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND
from mcp_manager.protocol.methods import CLIENT_METHODS

__all__ = ["idle_entries", "tool_names"]

_ALIKE: Final = 0.85


def idle_entries(
    views: Mapping[str, ViewConfig],
    rules: Sequence[AllowConfig],
    tools: Mapping[str, Collection[str]],
    server_ids: Collection[str],
) -> Iterator[str]:
    """Yield a sentence for each entry of a view or a rule that matches nothing.

    Parameters
    ----------
    views
        The views by name.
    rules
        The rules of access.
    tools
        The names of the tools of each server that has told them.
    server_ids
        All servers of the fleet.
    """
    unlisted = [server_id for server_id in server_ids if server_id not in tools]
    for name, view in views.items():
        for field, entry in ViewSelection(view).without_effect(tools, unlisted):
            yield f"views.{name}.{field}: {entry!r} matches no tool"
    for index, rule in enumerate(rules):
        for field, entry, what in _idle_of_rule(rule, views, tools, server_ids):
            yield f"serve.allow[{index}].{field}: {entry!r} matches no {what}"
        for entry in rule.methods:
            near = get_close_matches(entry.lower(), CLIENT_METHODS, 1, _ALIKE)
            # Methods of extensions, and patterns, need not be like any of them.
            if near and near[0] != entry and "*" not in entry and entry not in CLIENT_METHODS:
                yield f"serve.allow[{index}].methods: {entry!r} is no method; did you mean {near[0]!r}?"


def _idle_of_rule(
    rule: AllowConfig,
    views: Mapping[str, ViewConfig],
    tools: Mapping[str, Collection[str]],
    server_ids: Collection[str],
) -> Iterator[tuple[str, str, str]]:
    for field, patterns, names in (("servers", rule.servers, server_ids), ("views", rule.views, views)):
        for pattern in patterns:
            # The loader warns of names that are no patterns.
            if is_pattern(pattern) and pattern != "*" and not any(compiled(pattern).match(name) for name in names):
                yield field, pattern, field.removesuffix("s")
    for pattern in rule.tools:
        alone = Rule(AllowConfig(servers=rule.servers, tools=(pattern,)))
        if any(alone.shows(server_id) for server_id in server_ids if server_id not in tools):
            # Nobody knows what that server has.
            continue
        if not any(alone.covers(TOOLS, server_id, name) for server_id, names in tools.items() for name in names):
            yield "tools", pattern, "tool"


async def tool_names(manager: McpManager, server_id: str) -> Sequence[str] | McpManagerError:
    """Return the names of the tools of a server, or why it did not list them."""
    try:
        return [tool.name for tool in await manager.list_tools(server_id)]
    except McpManagerError as error:
        # A server need not have tools.
        return [] if isinstance(error, RpcError) and error.code == METHOD_NOT_FOUND else error
