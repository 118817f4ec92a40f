"""What the definition of a tool or a prompt says to models and clients, in a form that can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mcp_manager.gateway.endpoints.kinds import PROMPTS, TOOLS, Kind

__all__ = ["PINNED", "Definition", "changed_members", "definition_of", "hash_of"]

PINNED: Final[Mapping[Kind, tuple[str, ...]]] = {
    TOOLS: ("name", "title", "description", "inputSchema", "outputSchema", "annotations"),
    PROMPTS: ("name", "title", "description", "arguments"),
}
"""The kinds of entries that are pinned, with the members that count."""

_PREFIX: Final = "sha256:"
# Beyond it, a float cannot be told from the integers beside it.
_EXACT: Final = 2.0**53


class _RepeatedMemberError(ValueError):
    """A member is there twice: readers do not agree which of them counts."""


class Definition(NamedTuple):
    """What of an entry counts.

    Parameters
    ----------
    members
        The members.
    hash
        The hash of their canonical form.
    """

    members: dict[str, Any]
    hash: str


def definition_of(kind: Kind, raw: bytes) -> Definition | None:
    """Return what of an entry counts.

    Parameters
    ----------
    kind
        One of :data:`PINNED`.
    raw
        The entry as its server wrote it, as JSON.

    Returns
    -------
    ``None`` if readers may understand it differently, because a member is repeated, or if it cannot be read.
    """
    try:
        members = json.loads(raw, object_pairs_hook=_members, parse_float=_number)
        if not isinstance(members, dict):
            return None
        kept = {name: members[name] for name in PINNED[kind] if name in members}
        return Definition(kept, hash_of(kept))
    except (ValueError, RecursionError):
        return None


def hash_of(members: Mapping[str, Any]) -> str:
    """Return the SHA-256 over the canonical form: sorted members, no spaces, as in RFC 8785."""
    # What JSON escapes, such as half of a surrogate pair, has a form in UTF-8 as well.
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _PREFIX + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def changed_members(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of the members that differ, are gone, or are new."""
    return [
        name for name in sorted({*before, *now}) if (name in before, before.get(name)) != (name in now, now.get(name))
    ]


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RepeatedMemberError
    return members


def _number(text: str) -> float | int:
    """Return a number as RFC 8785 writes it: 1.0 is 1."""
    value = float(text)
    return int(value) if abs(value) < _EXACT and value == int(value) else value
