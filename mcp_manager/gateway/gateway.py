"""``Gateway``: one HTTP endpoint for a whole fleet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Final, Self, Unpack
from urllib.parse import quote

import msgspec
from prometheus_client.exposition import choose_encoder

from mcp_manager._version import __version__
from mcp_manager.auth.options import AuthOptions
from mcp_manager.config import ServeConfig, ViewConfig
from mcp_manager.config.arguments import as_path
from mcp_manager.config.gateway_tables import check_serve_with_servers, serve_config_of, view_configs_of
from mcp_manager.config.load import load_fleet_file
from mcp_manager.config.sources import FleetSource, ManagerSource, fleet_config_of, fleet_file_of
from mcp_manager.fleet import Applied
from mcp_manager.gateway.admin.admin import Admin, AdminParts
from mcp_manager.gateway.answering import Answering
from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.endpoints.selection import hot_tools
from mcp_manager.gateway.endpoints.table import EndpointTable
from mcp_manager.gateway.eras.handshake import HandshakeEra
from mcp_manager.gateway.eras.listen_streams import ListenStreams
from mcp_manager.gateway.eras.stateless import StatelessEra
from mcp_manager.gateway.forwarding import SHARED_CAPABILITIES, Forwarding
from mcp_manager.gateway.http.connections import Connections
from mcp_manager.gateway.http.direct_calls import DirectCalls
from mcp_manager.gateway.http.endpoint_paths import EndpointPaths
from mcp_manager.gateway.http.hosts import Hosts
from mcp_manager.gateway.http.keep_alives import KeepAlives
from mcp_manager.gateway.http.legacy_sse import LegacySse
from mcp_manager.gateway.http.listener import Listener
from mcp_manager.gateway.http.reception import Eras, Reception
from mcp_manager.gateway.http.traffic import with_page
from mcp_manager.gateway.http.web import application
from mcp_manager.gateway.loops import Mark
from mcp_manager.gateway.news import News
from mcp_manager.gateway.readiness import Readiness
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.gateway.security.principal import EVERYBODY, Principal
from mcp_manager.gateway.security.security import Security
from mcp_manager.gateway.serve_changes import FOLLOWED, ServeChanges
from mcp_manager.gateway.sessions.ids import SessionIds
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.gateway.sessions.table import SessionTable
from mcp_manager.gateway.stdio import StdioServer, endpoint_on_stdio, standard_streams
from mcp_manager.gateway.unattributed import Unattributed
from mcp_manager.gateway.workers.passing import Passing
from mcp_manager.gateway.workers.reports import Reports
from mcp_manager.gateway.workers.worker import Worker
from mcp_manager.manager import McpManager
from mcp_manager.protocol.trace_context import TraceContext
from mcp_manager.runtime.background import background_task, read_failure, to_its_end

__all__ = ["Gateway", "GatewayOptions"]

_ON_THEIR_WAY_S: Final = 0.1
_STDIO_DRAIN_S: Final = 5.0
# The wait for a client's answer ends first: then the client is told so, and the server is told why.
_AFTER_WAIT_S: Final = 5.0


class GatewayOptions(AuthOptions, total=False):
    """The parameters that :class:`Gateway` passes to its :class:`McpManager`."""

    trace_context: TraceContext | None


class Gateway:
    """Serve a whole fleet at one address, to MCP clients of all revisions.

    Use it in an ``async with`` block, or call :meth:`start` and :meth:`stop`. It makes a manager of its own, which
    starts and stops with it.

    Parameters
    ----------
    config
        The fleet, in any form that :class:`~mcp_manager.McpManager` takes. The tables ``serve`` and ``views`` of a file
        or mapping are used as well.
    serve
        How it is served: a :class:`~mcp_manager.ServeConfig`, or a mapping of its fields. Default: that of ``config``,
        else all defaults.
    views
        The views by name, each a :class:`~mcp_manager.ViewConfig` or a mapping. Default: those of ``config``.
    worker
        This process as one of several that serve the address; ``None`` if it is the only one.
    stdio
        Whether only :meth:`serve_stdio` is used: nobody authenticates there, so that ``serve.auth`` needs no file.
    options
        ``token_store``, ``redirect_handler``, ``credentials`` and ``trace_context`` of the manager.

    Attributes
    ----------
    manager
        The manager of the fleet: deploy servers to it, or watch it, while the gateway serves.
    serve
        The configuration in force.
    views
        The views in force, by name.
    admin
        The admin API; ``None`` without one.

    Raises
    ------
    ConfigError
        Something in the configuration is wrong, the address is not of this machine, or the package ``cryptography`` is
        missing.

    Example
    -------
    ::

        async with Gateway("fleet.toml") as gateway:
            print(gateway.url)
            await asyncio.Event().wait()
    """

    def __init__(
        self,
        config: ManagerSource | None = None,
        *,
        serve: ServeConfig | Mapping[str, Any] | None = None,
        views: Mapping[str, ViewConfig | Mapping[str, Any]] | None = None,
        worker: Worker | None = None,
        stdio: bool = False,
        **options: Unpack[GatewayOptions],
    ) -> None:
        file = fleet_file_of(config)
        self.serve: ServeConfig = serve_config_of(file.serve or ServeConfig() if serve is None else serve)
        self.views: dict[str, ViewConfig] = view_configs_of(file.views if views is None else views)
        check_serve_with_servers(self.serve, file.config.servers)
        number = 0 if worker is None else worker.assignment.number
        self._worker = worker
        self._listener = Listener(self.serve)
        self._sealer = Sealer(self.serve.session_keys if worker is None else worker.assignment.session_keys)
        self._news = News(self.serve.list_changed_delay_s)
        self._sessions = SessionTable(self._news, self.serve, number)
        mark = Mark("" if worker is None else worker.assignment.secret)
        self.manager: McpManager = McpManager(
            # Whoever answers servers here is a client.
            msgspec.structs.replace(
                file.config if worker is None else worker.divided(file.config),
                handler_timeout_s=self.serve.input_wait_s + _AFTER_WAIT_S,
            ),
            handlers={**self._news.handlers(), **Unattributed(self._sessions, self._news.tasks).handlers()},
            capabilities=mark.among({}),
            shared_capabilities=mark.among(SHARED_CAPABILITIES),
            **options,
        )
        self._security = Security(self.serve, 1 if worker is None else worker.assignment.count, is_local=stdio)
        self._sessions.levels.is_shared = self._security.is_required
        credentials = self._security.serve_fleet(self.manager)
        forwarding = Forwarding(self.manager, self.serve.sessions, self.serve.stateful, credentials)
        answering = Answering(forwarding)
        ids = SessionIds(self._sealer, self.serve.session_ttl_s, number)
        self._eras = Eras(
            HandshakeEra(answering, self._sessions, ids, mark),
            StatelessEra(
                answering,
                self._sealer,
                input_wait_s=self.serve.input_wait_s,
                worker=number,
                levels=self._sessions.levels,
                mark=mark,
                streams=ListenStreams(self._news, self._security.leases),
            ),
        )
        self._endpoints = EndpointTable(
            self.manager, self._news, self._sealer, self.views, self.serve.page_size, hot=hot_tools(self.serve)
        )
        self._endpoints.show_to_each(forwarding)
        self._pins = Pins(self.serve.pins)
        self._endpoints.pin(self._pins)
        self._paths = EndpointPaths(self._endpoints.find)
        self._news.watch(self._paths.changed)
        self._keep_alives = KeepAlives(self.serve.keepalive_s)
        hosts = Hosts(self._listener.address, self.serve.allowed_hosts, self.serve.allowed_origins)
        self._reception = Reception(self._eras, self._paths, hosts, self._keep_alives, self._security)
        self._reception.traffic.others.append(self._pins)
        self._readiness = Readiness(self.manager, len(file.config.servers), worker)
        self._direct = DirectCalls(self._reception, self.manager, forwarding, self._pins)
        self._changes = ServeChanges(self._listener, self._reception, self._endpoints, self._news, ids, self._pins)
        self._reports: Reports | None = None
        if worker is not None:
            self._reception.passing = Passing(worker.siblings, ids, self._eras.stateless.worker_of, self.serve.stateful)
            self._security.accounting.client_of = self._reception.passing.client_of
            self._reports = Reports(worker.siblings, self._own_metrics, self._readiness.ready_servers)
            self._readiness.reports = self._reports
        self._legacy_sse: LegacySse | None = None
        if self.serve.legacy_sse:
            self._legacy_sse = LegacySse(self._eras.handshake, self._reception)
        self._connections: Connections | None = None
        self._stdio: StdioServer | None = None
        self.admin: Admin | None = None
        if self.serve.admin is not None and not stdio:
            parts = AdminParts(self._reception, self._pins, file.config, worker)
            self.admin = Admin(self.serve.admin, self, parts)
        self._is_draining = self._has_stopped = False

    @classmethod
    def from_file(cls, path: str | PathLike[str], *, lenient: bool = False, **options: Unpack[GatewayOptions]) -> Self:
        """Make a gateway from a configuration file with the tables ``serve`` and ``views``.

        Parameters
        ----------
        path
            The file; see :func:`~mcp_manager.load_manager_config`.
        lenient
            Leave out the servers that are wrong, with a warning for each problem.
        options
            As for the class.

        Raises
        ------
        ConfigError
            The file cannot be read or something in it is wrong; ``problems`` lists everything.
        """
        file = load_fleet_file(as_path(path), lenient=lenient)
        return cls(file.config, serve=file.serve, views=file.views, **options)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The URL of the gateway, such as ``http://127.0.0.1:8080``, or ``unix:/path``; "" before it is started."""
        return self._listener.url

    @property
    def port(self) -> int:
        """The TCP port that is listened on; 0 before the start, and on a unix socket."""
        return self._listener.port

    @property
    def is_draining(self) -> bool:
        """Whether it takes no new connections, because it is about to end."""
        return self._is_draining

    @property
    def under_way(self) -> int:
        """How many requests of clients are under way."""
        return self._reception.under_way

    async def start(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Start the manager, and listen. Servers that cannot be reached are retried until they answer.

        Parameters
        ----------
        sockets
            Sockets that listen already, in place of the configured address.

        Raises
        ------
        ConfigError
            The address cannot be listened on.
        """
        extra = None if self._legacy_sse is None else self._legacy_sse.serve
        mounts = () if self.admin is None else self.admin.mounts()
        app = application(self._reception, self, self.serve.max_request_bytes, extra, mounts)
        starting = None
        try:
            # First, because programs need not be started in vain.
            self._listener.bind(sockets if self._worker is None else [self._worker.listener])
            if self.admin is not None:
                await self.admin.start()
            await self._security.start()
            self._connections = Connections(app, self._reception, self._direct.path, self.serve.max_request_bytes)
            await self._connections.start()
            starting = background_task(self.manager.start(), "start the manager of the gateway")
            await asyncio.sleep(0)
            self._news.start(self.manager)
            self._keep_alives.start()
            await self._listener.accept(self._connections.protocol)
            if self._worker is not None:
                await self._worker.listen_to_siblings(self._connections.protocol)
            await starting
            self._readiness.has_started = True
            if self.admin is not None:
                self.admin.follow()
        except BaseException:
            if starting is not None:
                starting.cancel()
                await asyncio.wait({starting})
                read_failure(starting)
            await self.stop()
            raise

    async def serve_stdio(self, path: str = "/mcp", stop: asyncio.Event | None = None) -> None:
        """Serve one client on standard input and output, in place of :meth:`start`, until it ends; then :meth:`stop`.

        Meanwhile, all else that this process writes to standard output goes to standard error. At the end of the
        input, requests under way have up to five seconds to finish.

        Parameters
        ----------
        path
            The endpoint that the client sees, by its path.
        stop
            Ends it at once when it is set, as for a signal.

        Raises
        ------
        ConfigError
            There is no such endpoint, or the rules do not show it to this client.
        """
        starting = None
        try:
            with standard_streams() as (source, target):
                await self._security.start()
                starting = background_task(self.manager.start(), "start the manager of the gateway")
                await asyncio.sleep(0)
                self._news.start(self.manager)
                endpoint = endpoint_on_stdio(self._paths, path, self._security.everybody().grant)
                server = self._stdio = StdioServer(
                    self._eras.handshake,
                    self._eras.stateless,
                    endpoint,
                    sender=self._security.accounting.connected(self._security.everybody(), endpoint.name),
                    max_request_bytes=self.serve.max_request_bytes,
                    drain_timeout_s=min(_STDIO_DRAIN_S, self.serve.drain_timeout_s),
                )
                await server.serve(source, target, stop)
        finally:
            if starting is not None:
                starting.cancel()
                await asyncio.wait({starting})
                read_failure(starting)
            await self.stop()

    def take(self, incoming: Incoming) -> None:
        """Take a POST that something else has read; its response goes to ``incoming``."""
        self._reception.take(incoming)

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Accept no new connections, end the streams that clients may open again, and wait for calls under way.

        Parameters
        ----------
        timeout_s
            Seconds to wait; default: ``drain_timeout_s``.

        Returns
        -------
        Whether all of them have ended.
        """
        self._is_draining = True
        await self._listener.finish()
        self._eras.handshake.drain()
        self._eras.stateless.drain()
        if self._legacy_sse is not None:
            self._legacy_sse.drain()
        if self.admin is not None:
            self.admin.drain()
        timeout_s = self.serve.drain_timeout_s if timeout_s is None else timeout_s
        if self._connections is not None:
            # For requests that are on their way.
            await asyncio.sleep(min(_ON_THEIR_WAY_S, timeout_s))
            self._connections.drain()
        return await self._reception.wait_idle(timeout_s)

    async def stop(self) -> None:
        """End everything at once; :meth:`drain` first lets calls under way finish. Idempotent."""
        if not self._has_stopped:
            self._has_stopped = self._is_draining = True
            await to_its_end(self._stop())

    async def _stop(self) -> None:
        await self._listener.close()
        if self.admin is not None:
            await self.admin.aclose()
        await self._reception.cancel()
        if self._worker is not None:
            await self._worker.aclose()
        await self._eras.handshake.aclose()
        await self._eras.stateless.aclose()
        self._keep_alives.stop()
        if self._connections is not None:
            await self._connections.aclose()
        await self._news.aclose()
        await self._endpoints.aclose()
        # First, because tokens are requested over connections of the manager.
        await self._security.aclose()
        await self.manager.stop()

    @property
    def reports(self) -> Reports | None:
        """What all worker processes say, if there are several."""
        return self._reports

    async def reasons(self) -> list[str]:
        """Return why the gateway is not ready to serve, in sentences; nothing if it is."""
        if self._is_draining:
            return ["the gateway is shutting down"]
        return await self._readiness.reasons(self.serve.min_ready)

    def description(self, principal: Principal = EVERYBODY) -> dict[str, Any]:
        """Return what is served to a principal, and where, as plain data."""
        views = ["/mcp", *(f"/mcp/{quote(name)}" for name in self.views)]
        servers = [f"/servers/{quote(view.id, safe='')}/mcp" for view in self.manager.servers()]
        grant = principal.grant
        return {
            "name": "mcp-manager",
            "version": __version__,
            "endpoints": [path for path in views if grant is None or self._paths.find(path, grant) is not None],
            "servers": [path for path in servers if grant is None or self._paths.find(path, grant) is not None],
            "health": ["/health", "/ready", "/metrics"],
        }

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the page of metrics of the fleet and the gateway, and its content type.

        Parameters
        ----------
        accept
            The ``Accept`` header field of the request.
        """
        page = await (self._own_metrics(accept) if self._reports is None else self._reports.metrics(accept))
        return page, choose_encoder(accept)[1]

    async def _own_metrics(self, accept: str) -> bytes:
        page = await self.manager.scrape(accept)
        return with_page(self._reception.traffic, accept, page.body)

    async def apply(self, config: FleetSource) -> Applied:
        """Make the fleet match a configuration, as :meth:`McpManager.apply` does; ``serve`` and ``views`` stay."""
        fleet = fleet_config_of(config)
        if self.admin is not None:
            self.admin.applied(fleet)
        return await self.manager.apply(fleet if self._worker is None else self._worker.divided(fleet))

    async def replace_serve(self, serve: ServeConfig | Mapping[str, Any]) -> None:
        """Let what can change while the gateway serves be as in another configuration; streams end if ``auth`` differs.

        Parameters
        ----------
        serve
            The configuration, of which the fields in :data:`FOLLOWED` are taken.

        Raises
        ------
        ConfigError
            Something is wrong, or other machines could reach a gateway without ``auth``; nothing was changed.
        """
        checked = serve_config_of(serve)
        changed = msgspec.structs.replace(self.serve, **{name: getattr(checked, name) for name in FOLLOWED})
        ending = self._changes.follow(self.serve, changed)
        self.serve = changed
        self._regrant_stdio()
        await ending

    def replace_views(self, views: Mapping[str, ViewConfig | Mapping[str, Any]]) -> None:
        """Serve these views from now on, in place of those that are there.

        Raises
        ------
        ConfigError
            A view is wrong; nothing was changed.
        """
        checked = view_configs_of(views)
        if checked != self.views:
            self.views = checked
            self._endpoints.replace_views(checked)
            self._paths.clear()

    def _regrant_stdio(self) -> None:
        """Let the client on standard input see what it may see by now."""
        if self._stdio is not None:
            name = self._stdio.endpoint.name
            self._stdio.endpoint = self._endpoints.named(name, self._security.everybody().grant)
