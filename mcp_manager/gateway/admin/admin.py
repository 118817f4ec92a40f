"""``Admin``: the admin API of a gateway and its page, wherever they are served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from secrets import token_bytes
from typing import Any

import msgspec
from aiohttp import web

from mcp_manager._version import __version__
from mcp_manager.config import AdminConfig, ManagerConfig, ServeConfig
from mcp_manager.config.listen_address import parse_listen_address
from mcp_manager.gateway.admin import openapi
from mcp_manager.gateway.admin.administered import Administered
from mcp_manager.gateway.admin.application import api_application, nowhere, page_application, sibling_application
from mcp_manager.gateway.admin.authorization import Authorization
from mcp_manager.gateway.admin.configuration import Configurations
from mcp_manager.gateway.admin.current import FROM_SIBLING, PRINCIPAL
from mcp_manager.gateway.admin.events import AdminEvents
from mcp_manager.gateway.admin.fleet_state import FleetState
from mcp_manager.gateway.admin.own_address import OwnAddress
from mcp_manager.gateway.admin.records import GatewaySnapshot, GatewayStatus
from mcp_manager.gateway.admin.requests import json_response, take_query
from mcp_manager.gateway.admin.revisions import Revisions
from mcp_manager.gateway.admin.server_acts import ServerActs
from mcp_manager.gateway.admin.server_details import ServerDetails
from mcp_manager.gateway.admin.servers import Servers
from mcp_manager.gateway.admin.sibling_acts import ROOT, AdminSiblings
from mcp_manager.gateway.admin.snapshots import merged_snapshot
from mcp_manager.gateway.admin.static_files import PageFiles
from mcp_manager.gateway.http.hosts import Hosts
from mcp_manager.gateway.http.reception import Reception
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.gateway.workers.worker import Worker

__all__ = ["Admin", "AdminParts"]


class AdminParts(msgspec.Struct, frozen=True, eq=False):
    """Parts of a gateway.

    Parameters
    ----------
    reception
        What its clients see.
    pins
        The definitions that were approved of.
    settings
        The settings of its manager.
    worker
        This process as one of several; ``None`` if it is the only one.
    """

    reception: Reception
    pins: Pins
    settings: ManagerConfig
    worker: Worker | None


class Admin:
    """Administer a gateway over HTTP.

    Parameters
    ----------
    config
        How.
    gateway
        The gateway.
    parts
        What else it is made of.

    Attributes
    ----------
    configurations
        Knows the file of the gateway, once somebody has told it.
    """

    def __init__(self, config: AdminConfig, gateway: Administered, parts: AdminParts) -> None:
        reception, worker = parts.reception, parts.worker
        self._config = config
        self._gateway = gateway
        self._reception = reception
        self._began = time.monotonic()
        self._worker = worker
        self._workers = 1 if worker is None else worker.assignment.count
        self._events = AdminEvents(reception.keep_alives, reception.security.leases)
        key = token_bytes(32) if worker is None else worker.assignment.secret.encode()
        manager, revisions = gateway.manager, Revisions(key)
        self._state = FleetState(manager, worker, parts.settings.servers)
        siblings = self._siblings = None if worker is None else AdminSiblings(worker, gateway, self._state)
        self._servers = Servers(manager, revisions, siblings)
        self._acts = ServerActs(manager, self._servers, revisions, siblings)
        self._details = ServerDetails(manager, parts.pins, siblings)
        self.configurations: Configurations = Configurations(gateway, self._state, siblings, parts.settings, key)
        # For the other workers, which want no events of each other.
        self._own_events: AdminEvents | None = None
        if siblings is not None:
            siblings.replace = self.configurations.replace
            self._own_events = AdminEvents(reception.keep_alives, reception.security.leases)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._followed: ServeConfig = gateway.serve
        self._hosts = reception.hosts
        if config.listen is not None:
            serve = gateway.serve
            self._hosts = Hosts(parse_listen_address(config.listen), serve.allowed_hosts, serve.allowed_origins)
        self._authorization = Authorization(config, reception.security, self._accepted)
        self._own: OwnAddress | None = None
        # Of several workers, one is enough: it knows what all of them do.
        if config.listen is not None and (worker is None or not worker.assignment.number):
            self._own = OwnAddress(gateway.serve, gateway, self._authorization, self._mounts())

    def _accepted(self) -> Hosts:
        """Return which hosts are accepted: those of an address of its own follow the configuration as well."""
        serve = self._gateway.serve
        if serve is not self._followed:
            self._followed = serve
            if self._hosts is not self._reception.hosts:
                self._hosts.replace(serve.allowed_hosts, serve.allowed_origins)
        return self._hosts

    @property
    def url(self) -> str:
        """The URL below which the API and its page are; "" before it is known."""
        return self._gateway.url if self._own is None else self._own.listener.url

    def mounts(self) -> list[tuple[str, web.Application]]:
        """Return the applications for the address of the gateway, by the beginning of their paths."""
        made = [] if self._config.listen is not None else self._mounts()
        if self._worker is not None and self._siblings is not None:
            routes = [*self.routes(), *self._siblings.routes()]
            made.append((ROOT, sibling_application(routes, self._worker.siblings.trust)))
        return made

    def _mounts(self) -> list[tuple[str, web.Application]]:
        made = [("/api/v1", self._api(self.routes()))]
        if self._config.ui:
            made.append(("/ui", page_application(PageFiles().routes(), self._authorization)))
        return made

    def routes(self) -> list[web.RouteDef]:
        """Return the resources of the API, below ``/api/v1``."""
        return [
            *openapi.routes(),
            *self._servers.routes(),
            *self._acts.routes(),
            *self._details.routes(),
            *self.configurations.routes(),
            web.get("/snapshot", self._snapshot),
            web.get("/events", self._serve_events),
        ]

    def _api(self, routes: list[web.RouteDef]) -> web.Application:
        accounting = self._reception.security.accounting
        relay = nowhere if self._siblings is None else self._siblings.relay
        return api_application(
            routes, self._authorization, accounting, lambda: self._gateway.is_draining, relay, self._tasks
        )

    async def start(self) -> None:
        """Listen at the address of its own, if there is one; raises :class:`ConfigError` if that is not possible."""
        if self._own is not None:
            await self._own.start()

    def follow(self) -> None:
        """Begin to take events, once the manager has been started."""
        if self._siblings is None:
            self._events.follow(self._gateway.manager, lambda _: True, None)
            return
        self._events.follow(self._gateway.manager, self._siblings.is_own, self._own_events)
        self._siblings.follow(self._events)

    def read_by(self, path: str, reload: Callable[[], Awaitable[str | None]]) -> None:
        """Take note of the file of the gateway.

        Parameters
        ----------
        path
            The file.
        reload
            Reads it again; returns what is wrong with it, ``None`` if it was applied.
        """
        self.configurations.path = path
        self.configurations.reload = reload
        if self._siblings is not None:
            self._siblings.reload = reload

    def applied(self, config: ManagerConfig) -> None:
        """Take note that a configuration was applied to the whole fleet."""
        self._state.applied(config.servers)

    def drain(self) -> None:
        """End the streams."""
        self._events.end()
        if self._own_events is not None:
            self._own_events.end()

    async def aclose(self) -> None:
        """End everything. Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._siblings is not None:
            await self._siblings.aclose()
        if self._own_events is not None:
            await self._own_events.aclose()
        await self._acts.aclose()
        await self._events.aclose()
        if self._own is not None:
            await self._own.aclose()

    async def _status(self) -> GatewayStatus:
        reasons = await self._gateway.reasons()
        return GatewayStatus(
            version=__version__,
            url=self._gateway.url,
            uptime_s=round(time.monotonic() - self._began, 3),
            workers=self._workers,
            draining=self._gateway.is_draining,
            ready=not reasons,
            reasons=tuple(reasons),
            sessions=len(self._reception.eras.handshake.sessions),
            streams=self._reception.keep_alives.streams,
            requests=self._reception.under_way,
            config_path=self.configurations.path,
            config_problem=self.configurations.problem_of_file(),
        )

    async def _snapshot(self, request: web.Request) -> web.Response:
        take_query(request)
        status = await self._status()
        fleet = self._gateway.manager.snapshot()
        snapshot = GatewaySnapshot(**msgspec.structs.asdict(fleet), gateway=status)
        if self._siblings is None or FROM_SIBLING.get():
            return json_response(snapshot)
        shown = msgspec.to_builtins(snapshot)
        return json_response(merged_snapshot(shown, await self._siblings.read("/snapshot"), self._owner_of_program))

    def _owner_of_program(self, server_id: str) -> int | None:
        """Return the number of the worker that runs the program of a server; ``None`` if it is no program."""
        config = self._state.servers().get(server_id)
        if self._siblings is None or config is None or config.transport != "stdio":
            return None
        return self._siblings.owner(server_id)

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        take_query(request)
        events = self._own_events if FROM_SIBLING.get() and self._own_events is not None else self._events
        return await events.serve(request, PRINCIPAL.get())
