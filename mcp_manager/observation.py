"""The verbs for whoever wants to know what is going on: the whole fleet at one instant, and its latest calls."""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mcp_manager._core.router import Router
from mcp_manager.config import ManagerConfig
from mcp_manager.dispatch.flight_log import FlightLog, FlightRecord
from mcp_manager.health import HealthMonitor
from mcp_manager.supervisor import Supervisor
from mcp_manager.types import PyHealthStatus

if TYPE_CHECKING:
    from mcp_manager.snapshot import FleetSnapshot

__all__ = ["Observation"]


class Observation:
    """Show what there is to see; nothing changes by it."""

    _config: ManagerConfig
    _servers: dict[str, Supervisor]
    _monitor: HealthMonitor
    _router: Router
    _flights: FlightLog

    @abstractmethod
    def _check_running(self) -> None:
        """Raise :class:`NotRunningError` unless the manager runs on this loop."""

    @abstractmethod
    def health(self) -> PyHealthStatus:
        """Count the servers by health."""

    def snapshot(self) -> FleetSnapshot:
        """Show the whole fleet at one instant, down to every instance, as plain data without secrets."""
        # For those who look.
        from mcp_manager.snapshot import fleet_snapshot  # noqa: PLC0415

        health = self.health()
        now_ns, taken_at = time.monotonic_ns(), datetime.now(UTC).isoformat(timespec="milliseconds")
        return fleet_snapshot(
            self._config, self._servers.values(), self._monitor, self._router, health, now_ns, taken_at
        )

    def flight_records(self) -> list[FlightRecord]:
        """Show the latest calls in detail, in the order in which they ended: see ``flight_records`` of the configuration.

        The latest of a server are also written to the log when a circuit of it opens, it becomes Unhealthy, or nobody
        knows what became of a call: at most once a minute for each server.
        """
        self._check_running()
        return self._flights.records()
