"""Choosing the tools that a model sees: by server, tag, name, search and budget."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final, Unpack

from mcp_manager.adapters.fleet_link import FleetLink, ToolSource
from mcp_manager.adapters.token_budget import CountTokens, estimated_tokens, within_budget
from mcp_manager.adapters.tool_index import index_of
from mcp_manager.adapters.toolset import Toolset, ToolsetOptions
from mcp_manager.errors import InvalidRequestError
from mcp_manager.verbs.fleet_tools import FleetTool, ToolCatalog

__all__ = ["Conditions", "Selection", "chosen", "matching", "select_tools", "select_tools_blocking"]

# A search among more takes milliseconds, so it runs in a thread.
_FEW: Final = 2_000
# Writing more definitions to count their tokens takes many milliseconds.
_FEW_DEFINITIONS: Final = 100
_ALL: Final = ["*"]


class Conditions(ToolsetOptions, total=False):
    """Which tools of a fleet a model may use; each condition narrows the choice.

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
    limit
        How many tools at most.
    max_tokens
        How many tokens the definitions may take together. A tool that does not fit is left out, and smaller ones after
        it still get a chance.
    count_tokens
        Returns the number of tokens of a text, such as ``lambda text: len(encoding.encode(text))`` with ``tiktoken``.
        It gets each definition as compact JSON. Default: an estimate that is rarely too low.
    """

    servers: Collection[str] | None
    tags: Collection[str]
    names: Collection[str]
    exclude: Collection[str]
    limit: int | None
    max_tokens: int | None
    count_tokens: CountTokens


class Selection(Conditions, total=False):
    """Which tools a toolset has: see :class:`Conditions`, and ``query``.

    Attributes
    ----------
    query
        Only tools that have one of these words in their name, description or parameters, the best first.
    """

    query: str | None


async def select_tools(manager: ToolSource, **selection: Unpack[Selection]) -> Toolset:
    """Choose tools of a fleet for a model.

    They are sorted by name, or with a ``query`` by how well they match. The first query makes an index of the tools,
    which is kept as long as they stay the same.

    Parameters
    ----------
    manager
        A running manager, or what ``for_caller()`` returns.
    selection
        See :class:`Selection`, :class:`Conditions` and :class:`ToolsetOptions`.

    Raises
    ------
    ServerNotFoundError
        A server in ``servers`` is not deployed.
    InvalidRequestError
        An argument is invalid.
    NotRunningError
        The manager does not run, or belongs to another event loop.
    """
    link = FleetLink(manager)
    return await link.run(_select(link, selection))


def select_tools_blocking(manager: ToolSource, **selection: Unpack[Selection]) -> Toolset:
    """Choose tools of a fleet of a :class:`PyMcpManager` from a thread; see :func:`select_tools`."""
    link = FleetLink(manager)
    return link.run_blocking(_select(link, selection))


async def matching(link: FleetLink, conditions: Conditions) -> tuple[ToolCatalog, list[FleetTool]]:
    """Return the catalogue of the servers that are meant, and those of its tools that the patterns allow."""
    servers, tags = conditions.get("servers"), _patterns(conditions, "tags")
    if tags:
        tagged = link.ids_with(tags)
        servers = tagged if servers is None else [each for each in servers if each in tagged]
    catalog = await link.calls.list_all_tools(servers)
    names, exclude = _patterns(conditions, "names", _ALL), _patterns(conditions, "exclude")
    # Patterns take microseconds for each tool, which adds up to much for nothing.
    allowed = list(catalog.tools) if names == _ALL else [each for each in catalog.tools if _matches(each, names)]
    return catalog, [each for each in allowed if not _matches(each, exclude)] if exclude else allowed


async def chosen(
    link: FleetLink, catalog: ToolCatalog, allowed: list[FleetTool], query: str | None, conditions: Conditions
) -> list[FleetTool]:
    """Return those of the allowed tools that a query finds, as many as the limit and the budget permit."""
    limit, max_tokens = _count(conditions, "limit"), _count(conditions, "max_tokens")
    if query is not None:
        if not isinstance(query, str):
            raise InvalidRequestError(f"Invalid query: it must be a string, not {type(query).__name__}")
        # Of the whole catalogue: the same index serves whatever the patterns are.
        index = await index_of(link.manager, catalog.tools)
        names = {each.name for each in allowed}
        search = partial(index.search, query, among=lambda tool: tool.name in names)
        allowed = search() if len(catalog.tools) <= _FEW else await asyncio.to_thread(search)
    allowed = allowed[:limit]
    if max_tokens is None:
        return allowed
    count_tokens = conditions.get("count_tokens", estimated_tokens)
    if not callable(count_tokens):
        raise InvalidRequestError(f"Invalid count_tokens: it must be a function, not {type(count_tokens).__name__}")
    fit = partial(within_budget, allowed, max_tokens, count_tokens)
    return fit() if len(allowed) <= _FEW_DEFINITIONS else await asyncio.to_thread(fit)


async def _select(link: FleetLink, selection: Selection) -> Toolset:
    options = options_of(selection)
    catalog, allowed = await matching(link, selection)
    tools = await chosen(link, catalog, allowed, selection.get("query"), selection)
    return Toolset(link.source, tools, missing=catalog.missing, **options)


def options_of(conditions: ToolsetOptions) -> ToolsetOptions:
    """Return the options of a toolset that are among the conditions; raises ``TypeError`` for an unknown one."""
    unknown = set(conditions) - Selection.__required_keys__ - Selection.__optional_keys__
    if unknown:
        raise TypeError(f"unknown keyword arguments: {', '.join(sorted(unknown))}")
    options: ToolsetOptions = {}
    for key in ("timeout", "max_text", "on_error", "middleware"):
        if key in conditions:
            options[key] = conditions[key]
    return options


def _patterns(conditions: Conditions, name: str, default: Iterable[str] = ()) -> list[str]:
    given: Any = conditions.get(name, default)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidRequestError(f"Invalid {name} {given!r}: it must be a list of strings")
    patterns = list(given)
    if not all(isinstance(each, str) for each in patterns):
        raise InvalidRequestError(f"Invalid {name}: all entries must be strings")
    return patterns


def _count(conditions: Conditions, name: str) -> int | None:
    given: Any = conditions.get(name)
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 0):
        raise InvalidRequestError(f"Invalid {name} {given!r}: it must be an integer from 0, or None")
    return given


def _matches(tool: FleetTool, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(tool.name, each) or fnmatchcase(tool.tool.name, each) for each in patterns)
