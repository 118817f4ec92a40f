"""The revisions of MCP that exist, as sets: a revision is known or it isn't, dates are never compared."""

from __future__ import annotations

from typing import Final

__all__ = ["HANDSHAKE_REVISIONS", "LATEST_HANDSHAKE_REVISION"]

LATEST_HANDSHAKE_REVISION: Final = "2025-11-25"

HANDSHAKE_REVISIONS: Final = frozenset({"2025-03-26", "2025-06-18", "2025-11-25", "2024-11-05"})
"""Revisions that begin with ``initialize``. Servers of 2026-07-28 that also speak one of these answer it too."""
