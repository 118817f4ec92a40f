"""The revisions of MCP that exist, as sets: a revision is known or it isn't, dates are never compared."""

from __future__ import annotations

import enum
from typing import Final

__all__ = [
    "BATCHING_REVISIONS",
    "HANDSHAKE_REVISIONS",
    "LATEST_HANDSHAKE_REVISION",
    "LATEST_STATELESS_REVISION",
    "STATELESS_REVISIONS",
    "Era",
    "newest_shared",
]

LATEST_HANDSHAKE_REVISION: Final = "2025-11-25"
LATEST_STATELESS_REVISION: Final = "2026-07-28"

# The newest first. The last one is a draft of 2024-11-05, which the official TypeScript SDK takes for it: there are servers
# that answer it whatever they are offered.
_HANDSHAKE_ORDER: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", "2024-10-07")
_STATELESS_ORDER: Final = ("2026-07-28",)

HANDSHAKE_REVISIONS: Final = frozenset(_HANDSHAKE_ORDER)
"""Revisions that begin with ``initialize``."""
STATELESS_REVISIONS: Final = frozenset(_STATELESS_ORDER)
"""Revisions without a handshake: every request says for itself who asks, in which revision."""
BATCHING_REVISIONS: Final = frozenset({"2025-03-26", "2024-11-05", "2024-10-07"})
"""Revisions in which several messages may come as one array: 2025-03-26 says so, and those before say JSON-RPC 2.0."""


class Era(enum.Enum):
    """How a server is spoken to (2026-07-28, basic/versioning)."""

    HANDSHAKE = "handshake"
    STATELESS = "stateless"


def newest_shared(supported: object, era: Era) -> str | None:
    """Return the newest revision of an era among those that a server lists, ``None`` if there is none."""
    if not isinstance(supported, list | tuple | frozenset | set):
        return None
    order = _STATELESS_ORDER if era is Era.STATELESS else _HANDSHAKE_ORDER
    return next((revision for revision in order if revision in supported), None)
