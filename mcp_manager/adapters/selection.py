"""Choosing the tools that a model sees: by server, tag, name, search and budget."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import Unpack

from mcp_manager.adapters.fleet_link import FleetLink, ToolSource
from mcp_manager.adapters.toolset import Toolset, ToolsetOptions
from mcp_manager.verbs.fleet_tools import FleetTool, ToolCatalog

__all__ = ["Selection", "select_tools", "select_tools_blocking"]


class Selection(ToolsetOptions, total=False):
    """Which tools a toolset has; each condition narrows the choice.

    Attributes
    ----------
    servers
        Ids of servers; default: all.
    tags
        Only servers that have all of these tags.
    names
        Glob patterns (``*``, ``?``, ``[…]``); a tool must match one of them with its name in the fleet, or with the
        name that its server gave it.
    exclude
        Glob patterns of tools to leave out.
    """

    servers: Collection[str] | None
    tags: Collection[str]
    names: Collection[str]
    exclude: Collection[str]


async def select_tools(manager: ToolSource, **selection: Unpack[Selection]) -> Toolset:
    """Choose tools of a fleet for a model.

    Parameters
    ----------
    manager
        A running manager, or what ``for_caller()`` returns.
    selection
        See :class:`Selection` and :class:`ToolsetOptions`.

    Raises
    ------
    ServerNotFoundError
        A server in ``servers`` is not deployed.
    NotRunningError
        The manager does not run, or belongs to another event loop.
    """
    link = FleetLink(manager)
    return await link.run(_select(link, selection))


def select_tools_blocking(manager: ToolSource, **selection: Unpack[Selection]) -> Toolset:
    """Choose tools of a fleet of a :class:`PyMcpManager` from a thread; see :func:`select_tools`."""
    link = FleetLink(manager)
    return link.run_blocking(_select(link, selection))


async def _select(link: FleetLink, selection: Selection) -> Toolset:
    catalog = await _catalog(link, selection)
    names, exclude = selection.get("names", ("*",)), selection.get("exclude", ())
    tools = [each for each in catalog.tools if _matches(each, names) and not _matches(each, exclude)]
    options: ToolsetOptions = {}
    for key in ("timeout", "max_text", "on_error"):
        if key in selection:
            options[key] = selection[key]
    return Toolset(link.source, tools, missing=catalog.missing, **options)


async def _catalog(link: FleetLink, selection: Selection) -> ToolCatalog:
    servers, tags = selection.get("servers"), selection.get("tags", ())
    if tags:
        tagged = link.ids_with(tags)
        servers = tagged if servers is None else [each for each in servers if each in tagged]
    return await link.calls.list_all_tools(servers)


def _matches(tool: FleetTool, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(tool.name, each) or fnmatchcase(tool.tool.name, each) for each in patterns)
