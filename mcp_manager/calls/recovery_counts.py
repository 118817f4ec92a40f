"""The counts of retries, hedges and fallbacks by server, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from mcp_manager._core.records import Server

__all__ = ["Recoveries", "Recovery"]

Recovery = Literal["retry", "hedge", "server", "stale", "static"]
"""A retry, a hedge, or the source of a fallback: another server, the last good result, or a configured result."""

_NONE: Final[Mapping[Recovery, int]] = {}


class Recoveries:
    """Count recoveries by server and kind; a server without any takes no memory.

    Servers are the router's records: another server may have the id before one has ended.
    """

    def __init__(self) -> None:
        self._counts: dict[Server, dict[Recovery, int]] = {}

    def count(self, server: Server, recovery: Recovery) -> None:
        """Add one to the count of a server and kind."""
        counts = self._counts.setdefault(server, {})
        counts[recovery] = counts.get(recovery, 0) + 1

    def of(self, server: Server) -> Mapping[Recovery, int]:
        """Return a server's counts by kind; kinds without any are missing."""
        return self._counts.get(server, _NONE)

    def forget(self, server: Server) -> None:
        """Forget the counts of a server that has ended."""
        self._counts.pop(server, None)
