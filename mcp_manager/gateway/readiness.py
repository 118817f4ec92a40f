"""``Readiness``: whether enough servers are ready for the gateway to serve, and if not, why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mcp_manager.gateway.workers.reports import Reports
from mcp_manager.gateway.workers.worker import Worker
from mcp_manager.manager import McpManager
from mcp_manager.types import ServerState

__all__ = ["Readiness"]

_READY: Final = frozenset({ServerState.HEALTHY, ServerState.DEGRADED})
_MOST_REASONS: Final = 20


class Readiness:
    """Judge the fleet of a gateway.

    Parameters
    ----------
    manager
        The fleet.
    configured
        How many servers the manager deploys when it starts.
    worker
        This process as one of several; ``None`` if it is the only one.

    Attributes
    ----------
    reports
        What all worker processes say; ``None`` if there is only this one.
    has_started
        Whether all servers of the configuration are deployed.
    """

    def __init__(self, manager: McpManager, configured: int, worker: Worker | None) -> None:
        self._manager = manager
        self._configured = configured
        self._worker = worker
        self.reports: Reports | None = None
        self.has_started: bool = False

    def ready_servers(self) -> list[str]:
        """Return the servers that are ready, without those that a sibling runs."""
        elsewhere = () if self._worker is None else self._worker.elsewhere
        return [view.id for view in self._manager.servers() if view.state in _READY and view.id not in elsewhere]

    async def reasons(self, min_ready: int) -> list[str]:
        """Return why the gateway is not ready to serve, in sentences; nothing if it is.

        Parameters
        ----------
        min_ready
            How many servers must be ready, if there are as many.
        """
        views = self._manager.servers()
        # Until all servers of the configuration are deployed, there are more to come.
        total = len(views) if self.has_started else max(len(views), self._configured)
        wanted = min(min_ready, total)
        ready = len(self.ready_servers() if self.reports is None else await self.reports.ready_servers(wanted))
        if ready >= wanted:
            return []
        others = [view for view in views if view.state not in _READY][:_MOST_REASONS]
        return [
            f"{ready} of {total} servers are ready, and {wanted} must be",
            *(f"{view.id}: {view.state.value}{_why(view.reasons)}" for view in others),
        ]


def _why(reasons: Sequence[str]) -> str:
    return f" ({reasons[0]})" if reasons else ""
