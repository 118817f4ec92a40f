# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta
from collections.abc import Iterable

from mcp_manager.bindings.mirror import Mirror
from mcp_manager.calls.call_log import FlightRecord
from mcp_manager.config import ServerConfig
from mcp_manager.events.child_output import StderrLines
from mcp_manager.events.stream import EventStream
from mcp_manager.observe.observation import Kinds
from mcp_manager.observe.scraping import Exposition, ExpositionStream, TextFormat
from mcp_manager.observe.snapshot import FleetSnapshot
from mcp_manager.observe.views import ServerView
from mcp_manager.types import PyHealthStatus, ServerState

class ObservationMirror(Mirror, metaclass=ABCMeta):
    """The public methods of :class:`Observation`, for callers on any thread and loop."""

    def health(self) -> PyHealthStatus:
        """Return the number of servers by health; the three counts always add up to the total."""

    async def health_async(self) -> PyHealthStatus:
        """Return the number of servers by health; the three counts always add up to the total. See :meth:`health`."""

    def server_state(self, server_id: str) -> ServerState:
        """Return the state of a server; ``Stopped`` if the manager is not started yet or was stopped.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """

    async def server_state_async(self, server_id: str) -> ServerState:
        """Return the state of a server; ``Stopped`` if the manager is not started yet or was stopped. See :meth:`server_state`."""

    def server(self, server_id: str) -> ServerView:
        """Return a view of one server.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """

    async def server_async(self, server_id: str) -> ServerView:
        """Return a view of one server; see :meth:`server`."""

    def server_config(self, server_id: str) -> ServerConfig:
        """Return the configuration that a server has; its ``repr`` masks the secrets in it.

        ``instances`` is the configured number: ``server(id).desired`` is the one that :meth:`scale` has set.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """

    async def server_config_async(self, server_id: str) -> ServerConfig:
        """Return the configuration that a server has; its ``repr`` masks the secrets in it. See :meth:`server_config`."""

    def servers(self) -> list[ServerView]:
        """Return views of all servers, in the order of deployment."""

    async def servers_async(self) -> list[ServerView]:
        """Return views of all servers, in the order of deployment; see :meth:`servers`."""

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

    async def metrics_text_async(
        self,
        *,
        format: TextFormat = "text",
        servers: Iterable[str] | None = None,
        families: Iterable[str] | None = None,
    ) -> str:
        """Return all metrics as text; see :meth:`metrics_text`."""

    def scrape(
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

    async def scrape_async(
        self, accept: str | None = "", *, servers: Iterable[str] | None = None, families: Iterable[str] | None = None
    ) -> Exposition:
        """Return the metrics for whoever scrapes, in the best format that both sides know; see :meth:`scrape`."""

    def scrape_stream(
        self, accept: str | None = "", *, servers: Iterable[str] | None = None, families: Iterable[str] | None = None
    ) -> ExpositionStream:
        """Return the metrics in pieces, which are written when they are asked for: for fleets of any size.

        ::

            stream = await manager.scrape_stream(request.headers.get("Accept"))
            return web.Response(body=stream, headers={"Content-Type": stream.content_type})

        See :meth:`scrape` for the parameters.
        """

    async def scrape_stream_async(
        self, accept: str | None = "", *, servers: Iterable[str] | None = None, families: Iterable[str] | None = None
    ) -> ExpositionStream:
        """Return the metrics in pieces, which are written when they are asked for: for fleets of any size; see :meth:`scrape_stream`."""

    def snapshot(self) -> FleetSnapshot:
        """Return the whole fleet at one instant, down to every instance, as plain data without secrets."""

    async def snapshot_async(self) -> FleetSnapshot:
        """Return the whole fleet at one instant, down to every instance, as plain data without secrets; see :meth:`snapshot`."""

    def flight_records(self) -> list[FlightRecord]:
        """Return the latest calls in detail, in the order in which they ended.

        ``flight_records`` of the configuration says how many. Those of a server are also logged when one of its
        circuits opens or the outcome of a call is unknown, at most once a minute per server.
        """

    async def flight_records_async(self) -> list[FlightRecord]:
        """Return the latest calls in detail, in the order in which they ended; see :meth:`flight_records`."""

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

    async def events_async(
        self, *, server_id: str | None = None, kinds: Kinds | None = None, buffer: int = 1_000
    ) -> EventStream:
        """Return a stream of the manager's events from now on: state changes, ends of programs, circuits, changes; see :meth:`events`."""

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

    async def stderr_lines_async(self, server_id: str, *, follow: bool = False) -> StderrLines:
        """Return the latest lines that a server's programs wrote to their standard error, without credentials; see :meth:`stderr_lines`."""
