"""Patterns for the URIs of resources, and for templates of URIs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from mcp_manager.gateway.endpoints.name_patterns import compiled
from mcp_manager.gateway.endpoints.resource_owners import match_rank

__all__ = ["ResourcePatterns"]

_MOST_DECODINGS: Final = 4
_SEPARATORS: Final = re.compile(r"[/\\?#]")
_EXPRESSION: Final = "{"


class ResourcePatterns:
    """Compare URIs with patterns.

    A pattern that is the text of a template also matches the URIs that are made from it. A URI with ``..`` as a part of
    its path, however it is encoded, matches no glob pattern: where it leads to, only the server knows.

    Parameters
    ----------
    patterns
        URIs, texts of templates, or glob patterns.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._exact = frozenset(patterns)
        self._globs = [compiled(each) for each in patterns]
        self._templates = [each for each in patterns if _EXPRESSION in each]

    def __bool__(self) -> bool:
        return bool(self._exact)

    def match(self, uri: str) -> bool:
        """Return whether a pattern matches a URI, or the text of a template."""
        if uri in self._exact:
            return True
        if not any(each.match(uri) for each in self._globs) and not self._is_made(uri):
            return False
        return not _leads_up(uri)

    def _is_made(self, uri: str) -> bool:
        found = [match_rank(template, uri) for template in self._templates]
        # A value that the template does not allow to have a slash has none.
        return any(rank is not None and rank[0] for rank in found)


def _leads_up(uri: str) -> bool:
    """Return whether a URI has ``..`` as a part of its path, or is encoded so often that nobody can tell."""
    for _ in range(_MOST_DECODINGS):
        if ".." in _SEPARATORS.split(uri):
            return True
        decoded = unquote(uri)
        if decoded == uri:
            return False
        uri = decoded
    return True
