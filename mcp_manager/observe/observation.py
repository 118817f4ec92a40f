"""The read-only part of the manager: states, views, snapshots, metrics and the latest calls."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from mcp_manager._core.router import Router
from mcp_manager.calls.call_log import CallLog, FlightRecord
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.config import ManagerConfig, ServerConfig, arguments
from mcp_manager.errors import ConfigError, ServerNotFoundError
from mcp_manager.events.child_output import StderrLines
from mcp_manager.events.feed import EventFeed
from mcp_manager.events.records import Event
from mcp_manager.events.stream import EventStream
from mcp_manager.health import HealthMonitor
from mcp_manager.observe.steady_reading import steadily
from mcp_manager.observe.views import Judge, ServerView, fleet_health, server_info, server_view
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.runtime.phase import Phase, not_running, shown_manager
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import PyHealthStatus, PyServerInfo, Selector, ServerState

if TYPE_CHECKING:
    from mcp_manager.observe.metrics import Source
    from mcp_manager.observe.scraping import Exposition, ExpositionStream, Scrapes, TextFormat
    from mcp_manager.observe.snapshot import FleetSnapshot
    from mcp_manager.transports.http.connections.pool import HttpPool

__all__ = ["Observation"]

T = TypeVar("T")

Kinds = type[Event] | Iterable[type[Event]]
"""The classes of the events that are wanted."""


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
    _events: EventFeed
    _phase: Phase
    _loop: asyncio.AbstractEventLoop | None
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

    def __repr__(self) -> str:
        return shown_manager(type(self), self._phase, len(self._servers or self._idle_servers()))

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

    def server_config(self, server_id: str) -> ServerConfig:
        """Return the configuration that a server has; its ``repr`` masks the secrets in it.

        ``instances`` is the configured number: ``server(id).desired`` is the one that :meth:`scale` has set.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """
        self._judge()
        return self._supervisor_of(server_id).config

    def servers(self) -> list[ServerView]:
        """Return views of all servers, in the order of deployment."""
        return self._of_each(partial(server_view, judge=self._judge(), router=self._router, now_ns=time.monotonic_ns()))

    def _server_infos(self) -> list[PyServerInfo]:
        """Return a short view of every server, in the order of deployment."""
        return self._of_each(partial(server_info, judge=self._judge()))

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
        self, accept: str | None = "", *, servers: Iterable[str] | None = None, families: Iterable[str] | None = None
    ) -> Exposition:
        """Return the metrics for whoever scrapes, in the best format that both sides know.

        This works on any loop, and is cheapest on the manager's own, which goes on after every half millisecond of
        work. Equal scrapes within a second show one reading, whose values are up to a second old. With more than 10,000
        used servers, the page has more than 50 MB: send :meth:`scrape_stream` instead.

        Parameters
        ----------
        accept
            The ``Accept`` header field of the request; ``None`` or "" if it has none.
        servers, families
            See :meth:`metrics_text`, whose errors it raises.
        """
        source, accept = self._metrics_source(), "" if accept is None else arguments.as_text(accept, "accept")
        scrapes = await self._scrapes_made()
        return await scrapes.whole(source, accept, servers, families, is_here=self._is_here())

    async def scrape_stream(
        self, accept: str | None = "", *, servers: Iterable[str] | None = None, families: Iterable[str] | None = None
    ) -> ExpositionStream:
        """Return the metrics in pieces, which are written when they are asked for: for fleets of any size.

        ::

            stream = await manager.scrape_stream(request.headers.get("Accept"))
            return web.Response(body=stream, headers={"Content-Type": stream.content_type})

        See :meth:`scrape` for the parameters.
        """
        source, accept = self._metrics_source(), "" if accept is None else arguments.as_text(accept, "accept")
        scrapes = await self._scrapes_made()
        return await scrapes.stream(source, accept, servers, families, is_here=self._is_here())

    async def _scrapes_made(self) -> Scrapes:
        if self._scrapes is None:
            # This takes tens of milliseconds, for which the loop must not be held.
            scraping = await asyncio.to_thread(import_module, "mcp_manager.observe.scraping")
            if self._scrapes is None:
                self._scrapes = scraping.Scrapes()
        return self._scrapes

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

    def events(self, *, server_id: str | None = None, kinds: Kinds | None = None, buffer: int = 1_000) -> EventStream:
        """Return a stream of the manager's events from now on: state changes, ends of programs, circuits, changes.

        ::

            async for event in manager.events(kinds=[ServerStateChanged]):
                print(event.server_id, event.state, event.reasons)

        It ends when the manager stops, and needs no closing.

        Parameters
        ----------
        server_id
            A server, deployed or not, whose events are wanted; ``None`` for all events.
        kinds
            A class of events, such as :class:`ServerStateChanged`, or several; ``None`` for all.
        buffer
            The most events that wait to be taken. Then the oldest are dropped, and an :class:`EventsMissed` says how
            many.

        Raises
        ------
        ConfigError, InvalidRequestError, ServerNotFoundError
            An argument is of a wrong type; a ``ValueError``.
        NotRunningError
            The manager was stopped.
        """
        self._check_audible()
        if server_id is not None:
            arguments.check_server_id(server_id)
        arguments.check_count(buffer, "buffer", least=1)
        return self._events.listen(server_id, _as_kinds(kinds), buffer, self._loop)

    def stderr_lines(self, server_id: str, *, follow: bool = False) -> StderrLines:
        """Return the latest lines that a server's programs wrote to their standard error, without credentials.

        The last 200 lines are kept, and at most 64 KiB, also of programs that have ended. Read them with ``async for``
        on any event loop, or with ``for`` on any thread but that of the manager's loop.

        Parameters
        ----------
        server_id
            The server.
        follow
            Whether to wait for further lines, until the server is removed or the manager stops. If more than 8 MiB wait
            to be taken, the oldest are dropped, and counted by ``missed`` of the next one.

        Raises
        ------
        ServerNotFoundError
            No such server.
        ConfigError
            The server is not a program.
        """
        self._judge()
        supervisor = self._supervisor_of(server_id)
        if supervisor.config.command is None:
            raise ConfigError(
                f"server {server_id!r} is no program: only programs write to a standard error", server_id=server_id
            )
        return self._events.outputs.of(server_id).read(follow=arguments.as_flag(follow, "follow"), home=self._loop)

    def _check_audible(self) -> None:
        """Raise :class:`NotRunningError` if nothing will be told any more."""
        self._judge()
        if self._phase is Phase.STOPPED:
            raise not_running(self._phase)

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


def _as_kinds(kinds: Kinds | None) -> tuple[type[Event], ...]:
    if kinds is None:
        return ()
    found = (kinds,) if isinstance(kinds, type) else tuple(kinds) if isinstance(kinds, Iterable) else (kinds,)
    wrong = [each for each in found if not (isinstance(each, type) and issubclass(each, Event))]
    if wrong or not found:
        named = arguments.shown(wrong[0]) if wrong else "an empty list"
        raise ConfigError(f"kinds must be classes of events, such as ServerStateChanged, not {named}")
    return found
