"""Which server has a resource that is in no list: by templates, or by where the URI was seen."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["SeenUris", "best_owner", "literal_parts", "match_rank"]

_MOST_SEEN: Final = 10_000
_LONGEST: Final = 8_192
# RFC 6570, section 2: an expression, with the operators that let a value have a slash.
_EXPRESSION: Final = re.compile(r"\{([+#./;?&=,!@|]?)[^{}]*\}")
_WITH_SLASHES: Final = frozenset("+#/?&")


class SeenUris:
    """Remember which server named a URI that is in no list; of many, those seen last."""

    def __init__(self) -> None:
        self._servers: OrderedDict[str, str] = OrderedDict()

    def get(self, uri: str) -> str | None:
        """Return the server that named a URI first."""
        return self._servers.get(uri)

    def note(self, uri: str, server_id: str) -> str:
        """Note that a server names a URI; return the one that named it first."""
        if len(uri) > _LONGEST:
            return server_id
        first = self._servers.setdefault(uri, server_id)
        self._servers.move_to_end(uri)
        if len(self._servers) > _MOST_SEEN:
            self._servers.popitem(last=False)
        return first

    def forget(self, uri: str) -> None:
        """Forget a URI, because its server does not have it any more."""
        self._servers.pop(uri, None)


def literal_parts(template: str) -> tuple[list[str], list[bool]]:
    """Return the literal parts of a URI template, and whether each expression between them may have slashes."""
    parts: list[str] = []
    slashes: list[bool] = []
    at = 0
    for found in _EXPRESSION.finditer(template):
        parts.append(template[at : found.start()])
        slashes.append(found[1] in _WITH_SLASHES)
        at = found.end()
    return [*parts, template[at:]], slashes


def match_rank(template: str, uri: str) -> tuple[bool, int] | None:
    """Return how well a URI matches a template (RFC 6570), the best the greatest; ``None`` if it does not.

    It takes time in proportion to the length of both. The first member says whether all values are of the kind that the
    template asks for, the second how much of the URI is given by the template.
    """
    if len(uri) > _LONGEST or len(template) > _LONGEST:
        return None
    parts, slashes = literal_parts(template)
    first, last = parts[0], parts[-1]
    if not slashes:
        return (True, len(uri)) if uri == template else None
    if not uri.startswith(first) or not uri.endswith(last) or len(uri) < len(first) + len(last):
        return None
    at, end = len(first), len(uri) - len(last)
    is_exact = True
    for part, may_have_slash in zip(parts[1:-1], slashes, strict=False):
        found = uri.find(part, at, end)
        if found < 0:
            return None
        is_exact &= may_have_slash or "/" not in uri[at:found]
        at = found + len(part)
    is_exact &= slashes[-1] or "/" not in uri[at:end]
    return is_exact, sum(map(len, parts))


def best_owner(uri: str, templates: Iterable[tuple[str, str]], priority: Callable[[str], int]) -> str | None:
    """Return the server whose template matches a URI best; of several, the one with the highest priority.

    Parameters
    ----------
    uri
        The URI.
    templates
        The templates, each with its server.
    priority
        Returns the priority of a server.
    """
    best: tuple[tuple[bool, int], int] | None = None
    owner: str | None = None
    for template, server_id in templates:
        rank = match_rank(template, uri)
        if rank is not None:
            found = rank, priority(server_id)
            if best is None or found > best:
                best, owner = found, server_id
    return owner
