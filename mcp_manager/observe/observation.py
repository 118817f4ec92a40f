"""The read-only part of the manager: states, views, snapshots, metrics and the latest calls."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mcp_manager._core.router import Router
from mcp_manager.calls.call_log import CallLog, FlightRecord
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.config import ManagerConfig
from mcp_manager.config.arguments import as_text
from mcp_manager.errors import ServerNotFoundError
from mcp_manager.health import HealthMonitor
from mcp_manager.observe.steady_reading import steadily
from mcp_manager.observe.views import Judge, ServerView, fleet_health, server_view
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import PyHealthStatus, Selector, ServerState

if TYPE_CHECKING:
    from mcp_manager.observe.metrics import Source
    from mcp_manager.observe.scraping import Exposition, Scrapes, TextFormat
    from mcp_manager.observe.snapshot import FleetSnapshot
    from mcp_manager.transports.http.connections.pool import HttpPool

__all__ = ["Observation"]

T = TypeVar("T")


class Observation(ABC):
    """The methods of a manager that only read.

    They work on any thread and loop, even while the manager's own loop is blocked; before the start and after the end
    they show no server, but for the configured or past ids in :meth:`server_state`. On the manager's own loop they assess states at once. Elsewhere they return the
    latest assessment, which follows every change.
    """

    _config: ManagerConfig
    _servers: dict[str, Supervisor]
    _monitor: HealthMonitor
    _router: Router
    _call_log: CallLog
    _dispatcher: Dispatcher
    _http: HttpPool
    _lag: LoopLag
    _scrapes: Scrapes | None = None

    @abstractmethod
    def _is_here(self) -> bool:
        """Tell whether this is the manager's own loop."""

    @abstractmethod
    def _supervisor_of(self, server_id: str) -> Supervisor:
        """Return the supervisor of a server.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """

    @abstractmethod
    def _idle_servers(self) -> Collection[str]:
        """Return the ids of the servers that a manager will have when it starts, or had before it stopped."""

    @abstractmethod
    def _judge(self) -> Judge:
        """Return the function that assesses servers on this thread.

        Raises
        ------
        NotRunningError
            This process is a forked child of the manager's.
        """

    def health(self) -> PyHealthStatus:
        """Return the number of servers by health; the three counts always add up to the total."""
        self._judge()
        counts = self._monitor.tally.counts if self._servers else (0, 0, 0)
        return fleet_health(counts, self._router, time.monotonic_ns(), steadily(self._lag.view).longest_s)

    def server_state(self, server_id: str) -> ServerState:
        """Return the state of a server; ``Stopped`` if the manager is not started yet or was stopped.

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
        """Return a view of one server.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """
        read = partial(server_view, judge=self._judge(), router=self._router, now_ns=time.monotonic_ns())
        supervisor = self._supervisor_of(server_id)
        try:
            return steadily(partial(read, supervisor))
        except LookupError:
            if self._servers.get(server_id) is supervisor:
                raise
            raise ServerNotFoundError(server_id) from None

    def servers(self) -> list[ServerView]:
        """Return views of all servers, in the order of deployment."""
        return self._of_each(partial(server_view, judge=self._judge(), router=self._router, now_ns=time.monotonic_ns()))

    def metrics_text(
        self,
        *,
        format: TextFormat = "text",
        servers: Iterable[str] | None = None,
        families: Iterable[str] | None = None,
    ) -> str:
        """Return all metrics as text.

        Servers that were never used (``connect = "lazy"`` and no call yet) only count in ``mcp_servers``. On the
        manager's own loop, this holds the loop until the text is complete: with thousands of used servers, await
        :meth:`scrape` there. On any other thread, the loop goes on meanwhile.

        Parameters
        ----------
        format
            ``text`` for the Prometheus text format 0.0.4, ``openmetrics`` for OpenMetrics 1.0.
        servers, families
            Show only these servers, by id, and only these families, by name. With ``servers``, families that concern
            no single server are left out; unknown ids are ignored.

        Raises
        ------
        InvalidRequestError
            There is no such format or family; a ``ValueError``.
        NotRunningError
            This process is a forked child of the manager's.
        """
        from mcp_manager.observe import scraping  # noqa: PLC0415

        source, what = self._metrics_source(), scraping.wanted(servers, families)
        return scraping.text_of(source, format, what, is_shared=not self._is_here())

    async def scrape(
        self, accept: str = "", *, servers: Iterable[str] | None = None, families: Iterable[str] | None = None
    ) -> Exposition:
        """Return the metrics for whoever scrapes, in the best format that both sides know.

        This works on any loop, and is cheapest on the manager's own. It holds the loop for a few milliseconds at a
        time, also for pages of tens of megabytes; freeing larger ones takes longer. Equal scrapes within a second share
        one page, whose values are up to a second old.

        Parameters
        ----------
        accept
            The ``Accept`` header field of the request.
        servers, families
            See :meth:`metrics_text`, whose errors it raises.
        """
        from mcp_manager.observe import scraping  # noqa: PLC0415

        as_text(accept, "accept")
        source, what = self._metrics_source(), scraping.wanted(servers, families)
        if self._scrapes is None:
            self._scrapes = scraping.Scrapes()
        if self._is_here():
            return await self._scrapes.page_here(source, accept, what)
        return await asyncio.to_thread(self._scrapes.page_elsewhere, source, accept, what)

    def _metrics_source(self) -> Source:
        """Return what the metrics are read from.

        Raises
        ------
        NotRunningError
            This process is a forked child of the manager's.
        """
        from mcp_manager.observe.metrics import Source  # noqa: PLC0415

        self._judge()
        return Source(
            self._servers, self._monitor, self._router, self._dispatcher, self._http, self._lag, time.monotonic_ns
        )

    def snapshot(self) -> FleetSnapshot:
        """Return the whole fleet at one instant, down to every instance, as plain data without secrets."""
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
            loop_lag=steadily(self._lag.view),
        )

    def flight_records(self) -> list[FlightRecord]:
        """Return the latest calls in detail, in the order in which they ended.

        ``flight_records`` of the configuration says how many. Those of a server are also logged when one of its
        circuits opens or the outcome of a call is unknown, at most once a minute per server.
        """
        self._judge()
        return steadily(self._call_log.records)

    def _request_timeout_s(self, server_id: str | Selector) -> float | None:
        """Return the default timeout of a server's calls in seconds; ``None`` if there is no such server."""
        supervisor = self._servers.get(server_id) if isinstance(server_id, str) else None
        return None if supervisor is None else supervisor.request_timeout_ns / 1e9

    def _of_each(self, read: Callable[[Supervisor], T]) -> list[T]:
        """Read every server, except those that another thread removes meanwhile."""
        found = []
        for supervisor in steadily(lambda: list(self._servers.values())):
            try:
                found.append(steadily(partial(read, supervisor)))
            except LookupError:
                if self._servers.get(supervisor.server_id) is supervisor:
                    raise
        return found
