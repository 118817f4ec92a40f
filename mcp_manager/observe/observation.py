"""The verbs for whoever wants to know what is going on: the whole fleet at one instant, and its latest calls."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from mcp_manager._core.router import Router
from mcp_manager.calls.call_log import CallLog, FlightRecord
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.config import ManagerConfig
from mcp_manager.errors import ServerNotFoundError
from mcp_manager.health import HealthMonitor
from mcp_manager.observe.views import Judge, ServerView, fleet_health, server_view
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import PyHealthStatus, Selector, ServerState

if TYPE_CHECKING:
    from mcp_manager.observe.snapshot import FleetSnapshot
    from mcp_manager.transports.http.connections.pool import HttpPool

__all__ = ["Observation"]

T = TypeVar("T")

# How often a reading begins anew because another thread changed what was being read.
_READINGS: Final = 100


class Observation:
    """Show what there is to see; nothing changes by it.

    All of it answers on any thread and loop, whether or not the manager's own loop is free to run: before the start and
    after the end, of a fleet without servers. On the manager's own loop states are judged anew; elsewhere they are shown
    as they were found last, which is at every change.
    """

    _config: ManagerConfig
    _servers: dict[str, Supervisor]
    _monitor: HealthMonitor
    _router: Router
    _flights: CallLog
    _dispatcher: Dispatcher
    _http: HttpPool
    _lag: LoopLag

    @abstractmethod
    def _supervisor_of(self, server_id: str) -> Supervisor:
        """Return the supervisor of a server; raises :class:`ServerNotFoundError`."""

    @abstractmethod
    def _idle_servers(self) -> Collection[str]:
        """Return the ids of servers that a manager which does not run would have, or has had."""

    @abstractmethod
    def _judge(self) -> Judge:
        """Return how servers are judged here; raises :class:`NotRunningError` in a forked child of the manager's process."""

    def health(self) -> PyHealthStatus:
        """Count the servers by health; the three counts always add up to the total."""
        self._judge()
        counts = self._monitor.tally.counts if self._servers else (0, 0, 0)
        return fleet_health(counts, self._router, time.monotonic_ns(), _steadily(self._lag.view).longest_s)

    def server_state(self, server_id: str) -> ServerState:
        """Tell what a server is shown as: ``Stopped`` if it is one of a manager that is not started yet, or stopped.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """
        judge = self._judge()
        try:
            return judge(self._supervisor_of(server_id))[0]
        except ServerNotFoundError:
            if isinstance(server_id, str) and server_id in self._idle_servers():
                return ServerState.STOPPED
            raise

    def server(self, server_id: str) -> ServerView:
        """Show one server; raises :class:`ServerNotFoundError`."""
        read = partial(server_view, judge=self._judge(), router=self._router, now_ns=time.monotonic_ns())
        supervisor = self._supervisor_of(server_id)
        try:
            return _steadily(partial(read, supervisor))
        except LookupError:
            if self._servers.get(server_id) is supervisor:
                raise
            raise ServerNotFoundError(server_id) from None

    def servers(self) -> list[ServerView]:
        """Show every server, in the order of deployment."""
        return self._of_each(partial(server_view, judge=self._judge(), router=self._router, now_ns=time.monotonic_ns()))

    def metrics_text(self) -> str:
        """Render all metrics in the Prometheus text format."""
        from mcp_manager.observe import metrics  # noqa: PLC0415

        self._judge()
        return metrics.render(
            self._of_each(
                partial(
                    metrics.scrape,
                    router=self._router,
                    http=self._http,
                    recoveries=self._dispatcher.recoveries,
                    now_ns=time.monotonic_ns(),
                )
            ),
            self._lag,
        )

    def snapshot(self) -> FleetSnapshot:
        """Show the whole fleet at one instant, down to every instance, as plain data without secrets."""
        # For those who look.
        from mcp_manager.observe.snapshot import FleetSnapshot, manager_snapshot, server_snapshot  # noqa: PLC0415

        judge, now_ns = self._judge(), time.monotonic_ns()
        taken_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        health = self.health()
        servers = self._of_each(partial(server_snapshot, judge=judge, router=self._router, now_ns=now_ns))
        return FleetSnapshot(
            taken_at=taken_at,
            manager=manager_snapshot(self._config),
            health=health,
            servers=tuple(servers),
            loop_lag=_steadily(self._lag.view),
        )

    def flight_records(self) -> list[FlightRecord]:
        """Show the latest calls in detail, in the order in which they ended: see ``flight_records`` of the configuration.

        The latest of a server are also written to the log when a circuit of it opens, or nobody knows what became of a
        call: at most once a minute for each server.
        """
        self._judge()
        return _steadily(self._flights.records)

    def _request_timeout_s(self, server_id: str | Selector) -> float | None:
        """Return what a call of this server may take if it does not say; ``None`` if this is no server."""
        supervisor = self._servers.get(server_id) if isinstance(server_id, str) else None
        return None if supervisor is None else supervisor.request_timeout_ns / 1e9

    def _of_each(self, read: Callable[[Supervisor], T]) -> list[T]:
        """Read every server, without those that another thread removes meanwhile."""
        found = []
        for supervisor in _steadily(lambda: list(self._servers.values())):
            try:
                found.append(_steadily(partial(read, supervisor)))
            except LookupError:
                if self._servers.get(supervisor.server_id) is supervisor:
                    raise
        return found


def _steadily(read: Callable[[], T]) -> T:
    """Read what another thread may be changing: anew, if it did so in the midst of it."""
    for _ in range(_READINGS):
        try:
            return read()
        except RuntimeError:
            # A dictionary, set or queue that changed during its iteration.
            continue
    return read()
