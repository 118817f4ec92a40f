"""Patterns for the tools and prompts of a fleet: ``{server}__{name}``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

from mcp_manager.verbs.tool_catalog import fleet_names

__all__ = ["NamePatterns", "compiled"]

_SEPARATOR: Final = "__"


class NamePatterns:
    """Compare the id of a server and the name of what it has with patterns, apart from each other.

    A pattern is divided at each ``__`` in turn. Therefore no server can bring something under a pattern by the choice of
    its name alone. But for ``*``, a pattern without ``__`` matches nothing.

    Parameters
    ----------
    patterns
        Glob patterns, or names as they are in the fleet.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._parts = [part for pattern in patterns for part in _divided(pattern)]
        self._exact = frozenset(patterns)

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._exact)

    def match_server(self, server_id: str) -> bool:
        """Return whether a pattern may match something of a server."""
        return any(server.match(server_id) for server, _ in self._parts)

    def match(self, server_id: str, name: str) -> bool:
        """Return whether a pattern matches what a server has under a name."""
        if any(server.match(server_id) and own.match(name) for server, own in self._parts):
            return True
        return fleet_names([(server_id, name)])[server_id, name] in self._exact


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a glob pattern as a regular expression, to be matched from the start."""
    return re.compile(fnmatch.translate(pattern))


def _divided(pattern: str) -> list[tuple[re.Pattern[str], re.Pattern[str]]]:
    """Return the ways to read a pattern as one for servers and one for what they have."""
    if _SEPARATOR not in pattern:
        # Only one that matches everything has a meaning without the separator.
        return [(re.compile(""), re.compile(""))] if pattern == "*" else []
    places = [at.start() for at in re.finditer(f"(?={_SEPARATOR})", pattern)]
    return [(compiled(pattern[:at]), compiled(pattern[at + len(_SEPARATOR) :])) for at in places]
