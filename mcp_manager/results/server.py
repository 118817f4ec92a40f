"""What a server says of itself when it is asked (2026-07-28, server/discover)."""

from __future__ import annotations

from typing import Any

from mcp_manager.results.record import CacheableResult

__all__ = ["DiscoverResult"]


class DiscoverResult(CacheableResult, frozen=True, kw_only=True):
    """The revisions a server speaks and what it can do; its name, if it gives one, is in ``meta``."""

    supported_versions: list[str]
    capabilities: dict[str, Any]
    instructions: str | None = None
