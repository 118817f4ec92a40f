"""The verbs for whoever wants to know what is going on: the whole fleet at one instant, and its latest calls."""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mcp_manager._core.router import Router
from mcp_manager.config import ManagerConfig
from mcp_manager.dispatch.dispatcher import Dispatcher
from mcp_manager.dispatch.flight_log import FlightLog, FlightRecord
from mcp_manager.health import HealthMonitor
from mcp_manager.supervisor import Supervisor
from mcp_manager.types import PyHealthStatus
from mcp_manager.views import ServerView, fleet_health, server_reading, server_view

if TYPE_CHECKING:
    from mcp_manager.snapshot import FleetSnapshot
    from mcp_manager.transports.http_pool import HttpPool

__all__ = ["Observation"]


class Observation:
    """Show what there is to see; nothing changes by it."""

    _config: ManagerConfig
    _servers: dict[str, Supervisor]
    _monitor: HealthMonitor
    _router: Router
    _flights: FlightLog
    _dispatcher: Dispatcher
    _http: HttpPool

    @abstractmethod
    def _supervisor_of(self, server_id: str) -> Supervisor:
        """Return the supervisor of a server; raises :class:`ServerNotFoundError`."""

    @abstractmethod
    def _check_running(self) -> None:
        """Raise :class:`NotRunningError` unless the manager runs on this loop."""

    def health(self) -> PyHealthStatus:
        """Count the servers by health; the three counts always add up to the total."""
        self._check_running()
        return fleet_health(self._monitor, self._router, time.monotonic_ns())

    def server(self, server_id: str) -> ServerView:
        """Show one server; raises :class:`ServerNotFoundError`."""
        self._check_running()
        return server_view(self._supervisor_of(server_id), self._monitor, self._router, time.monotonic_ns())

    def servers(self) -> list[ServerView]:
        """Show every server, in the order of deployment."""
        self._check_running()
        now_ns = time.monotonic_ns()
        return [server_view(each, self._monitor, self._router, now_ns) for each in self._servers.values()]

    def metrics_text(self) -> str:
        """Render all metrics in the Prometheus text format."""
        from mcp_manager import metrics  # noqa: PLC0415  (it brings a web server, for those who scrape)

        self._check_running()
        now_ns = time.monotonic_ns()
        recoveries = self._dispatcher.recoveries
        return metrics.render(
            [server_reading(each, self._router, self._http, recoveries, now_ns) for each in self._servers.values()]
        )

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

        The latest of a server are also written to the log when a circuit of it opens, or nobody knows what became of a
        call: at most once a minute for each server.
        """
        self._check_running()
        return self._flights.records()
