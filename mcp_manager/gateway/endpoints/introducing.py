"""How an endpoint of several servers introduces itself: what all of them can do, and what they tell models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp_manager._version import __version__
from mcp_manager.gateway.endpoints.base import Description
from mcp_manager.gateway.tool_search.definitions import one_line
from mcp_manager.gateway.tool_search.meta_tools import CALL, DESCRIBE, SEARCH
from mcp_manager.protocol.handshake import ServerIdentity

__all__ = ["merged_description", "server_line"]

_SERVER_INFO: Final = {"name": "mcp-manager", "version": __version__}
_LISTS: Final = ("tools", "prompts", "resources")
_MOST_LEVELS: Final = 8
_MOST_MEMBERS: Final = 256
_LONGEST_INSTRUCTIONS: Final = 4_000
_LONGEST_TOGETHER: Final = 32_000
_CUT: Final = " […]"
_LONGEST_TABLE: Final = 6_000
_MOST_LINES: Final = 60
_HOW_TO_SEARCH: Final = (
    f"Most tools are not listed here. Find them with {SEARCH}, by a few words on what is to be done, and call them with "
    f"{CALL}; {DESCRIBE} returns their full definitions. Search before you say that something cannot be done."
)
_OWN: Final = "The tools and prompts of several servers are offered here; a name begins with that of its server."


def merged_description(
    identities: Mapping[str, ServerIdentity | None],
    instructions: str | None,
    *,
    is_prefixed: bool,
    hides_tools: bool = False,
    is_searched: bool = False,
) -> Description:
    """Return how several servers introduce themselves together.

    Parameters
    ----------
    identities
        What each server has said about itself, ``None`` for one that is not connected, in the order of precedence.
    instructions
        The instructions, in place of those of the servers.
    is_prefixed
        Whether names begin with those of their servers.
    hides_tools
        Whether some of their tools are hidden; tasks are not listed then, because they may be those of hidden tools.
    is_searched
        Whether tools are found by a search, and not listed: then a table of the servers takes the place of what they
        tell models, and the instructions say how to find tools.

    Returns
    -------
    The union of the capabilities; without lists of tasks if several servers have tasks. Lists always have ``listChanged``, because servers come and go. For a server that is
    not known yet, it is assumed that it has lists.
    """
    capabilities: dict[str, Any] = {}
    for identity in identities.values():
        if identity is not None:
            _merge(capabilities, identity.capabilities, _MOST_LEVELS)
    tasks = capabilities.get("tasks")
    if isinstance(tasks, dict) and (hides_tools or _have_tasks(identities) > 1):
        tasks.pop("list", None)
    is_incomplete = not identities or None in identities.values()
    for name in _LISTS:
        if name in capabilities or name == "tools" or is_incomplete:
            offered = capabilities.get(name)
            capabilities[name] = {**(offered if isinstance(offered, dict) else {}), "listChanged": True}
    if is_incomplete:
        capabilities["resources"]["subscribe"] = True
        capabilities.setdefault("completions", {})
        capabilities.setdefault("logging", {})
    if is_searched:
        text: str | None = _to_search(identities, instructions)
    else:
        text = _instructions(identities, is_prefixed=is_prefixed) if instructions is None else instructions
    return Description(capabilities, dict(_SERVER_INFO), text)


def _have_tasks(identities: Mapping[str, ServerIdentity | None]) -> int:
    return sum(each is not None and "tasks" in each.capabilities for each in identities.values())


def _merge(into: dict[str, Any], given: Mapping[str, Any], levels: int) -> None:
    """Add members that are not there yet; a flag is set if any server sets it."""
    for name, value in given.items():
        before = into.get(name)
        if name not in into:
            if len(into) < _MOST_MEMBERS:
                into[name] = _copied(value, levels)
        elif isinstance(before, dict) and isinstance(value, Mapping):
            if levels:
                _merge(before, value, levels - 1)
        elif before is False and value is True:
            into[name] = True


def _copied(value: Any, levels: int) -> Any:
    if not isinstance(value, Mapping) or not levels:
        return value
    copy: dict[str, Any] = {}
    _merge(copy, value, levels - 1)
    return copy


def server_line(identity: ServerIdentity | None) -> str:
    """Return what a server is for, in one line; "" if it does not say."""
    if identity is None:
        return ""
    for said in (identity.info.get("description"), identity.instructions, identity.info.get("title")):
        line = one_line(said) if isinstance(said, str) else ""
        if line:
            return line
    return ""


def _to_search(identities: Mapping[str, ServerIdentity | None], instructions: str | None) -> str:
    """Return how to find tools, and the text of the operator or one line for each server."""
    if instructions is not None:
        return f"{instructions}\n\n{_HOW_TO_SEARCH}"
    lines: list[str] = []
    left = _LONGEST_TABLE
    for server_id, identity in identities.items():
        said = server_line(identity)
        lines.append(f"- {server_id}: {said}" if said else f"- {server_id}")
        left -= len(lines[-1])
        if left <= 0 or len(lines) == _MOST_LINES:
            break
    more = len(identities) - len(lines)
    if more > 0:
        lines.append(f"- and {more} more: {SEARCH} with an empty query returns them")
    return "\n".join([_HOW_TO_SEARCH, "", "The servers:", *lines]) if lines else _HOW_TO_SEARCH


def _instructions(identities: Mapping[str, ServerIdentity | None], *, is_prefixed: bool) -> str | None:
    parts: list[str] = []
    left = _LONGEST_TOGETHER
    for server_id, identity in identities.items():
        text = "" if identity is None else (identity.instructions or "").strip()
        if not text:
            continue
        longest = min(left, _LONGEST_INSTRUCTIONS)
        if len(text) > longest:
            text = text[:longest].rstrip() + _CUT
        left -= len(text)
        parts.append(f"# {server_id}\n\n{text}")
        if left <= 0:
            parts.append(f"(The instructions of further servers are left out.{_CUT})")
            break
    unknown = [server_id for server_id, identity in identities.items() if identity is None]
    if unknown:
        named = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        parts.append(f"Not connected yet, so that their tools may come later: {named}.")
    if is_prefixed and identities:
        parts.insert(0, _OWN)
    return "\n\n".join(parts) or None
