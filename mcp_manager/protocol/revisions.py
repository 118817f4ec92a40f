"""The supported revisions of MCP, as sets: dates are never compared."""

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

# The newest first. The last one is a draft of 2024-11-05 that the official TypeScript SDK accepts; some servers always
# answer with it.
_HANDSHAKE_ORDER: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", "2024-10-07")
_STATELESS_ORDER: Final = ("2026-07-28",)

HANDSHAKE_REVISIONS: Final = frozenset(_HANDSHAKE_ORDER)
"""Revisions whose sessions begin with ``initialize``."""
STATELESS_REVISIONS: Final = frozenset(_STATELESS_ORDER)
"""Revisions without a handshake: every request names the client and the revision."""
BATCHING_REVISIONS: Final = frozenset({"2025-03-26", "2024-11-05", "2024-10-07"})
"""Revisions that allow several messages in one array: 2025-03-26 explicitly, the earlier ones through JSON-RPC 2.0."""


class Era(enum.Enum):
    """Whether a server uses a handshake or is stateless (2026-07-28, basic/versioning)."""

    HANDSHAKE = "handshake"
    STATELESS = "stateless"


def newest_shared(supported: object, era: Era) -> str | None:
    """Return the newest revision of an era that a server supports, ``None`` if there is none."""
    if not isinstance(supported, list | tuple | frozenset | set):
        return None
    order = _STATELESS_ORDER if era is Era.STATELESS else _HANDSHAKE_ORDER
    return next((revision for revision in order if revision in supported), None)
