"""The record of a server's self-description (2026-07-28, server/discover)."""

from __future__ import annotations

from typing import Any

from mcp_manager.results.record import CacheableResult

__all__ = ["DiscoverResult"]


class DiscoverResult(CacheableResult, frozen=True, kw_only=True):
    """The result of ``server/discover``.

    Parameters
    ----------
    supported_versions
        The revisions of MCP that the server supports.
    capabilities
        Its capabilities by name.
    instructions
        Its instructions for models, or ``None``.
    ttl_ms
        How long the result may be cached, in milliseconds, or ``None``.
    cache_scope
        ``public`` if requests with other credentials may get the cached result too, else ``private``, or ``None``.
    result_type
        ``complete``, or ``None``.
    meta
        The result's ``_meta``, which may hold the server's name; or ``None``.
    """

    supported_versions: list[str]
    capabilities: dict[str, Any]
    instructions: str | None = None
