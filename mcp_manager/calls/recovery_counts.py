"""The counts of retries, hedges and fallbacks by server, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mcp_manager.servers.supervisor import Recovery, Supervisor

__all__ = ["Recoveries", "Recovery"]

_NONE: Final[Mapping[Recovery, int]] = {}


class Recoveries:
    """Count recoveries by server and kind.

    The counts are kept with the server: they end with it, and a later server with the same id has its own.
    """

    __slots__ = ()

    def count(self, supervisor: Supervisor, recovery: Recovery) -> None:
        """Add one to the count of a server and kind."""
        if supervisor.recoveries is None:
            supervisor.recoveries = {}
        counts = supervisor.recoveries
        counts[recovery] = counts.get(recovery, 0) + 1

    def of(self, supervisor: Supervisor) -> Mapping[Recovery, int]:
        """Return a server's counts by kind; kinds without any are missing."""
        return supervisor.recoveries or _NONE
