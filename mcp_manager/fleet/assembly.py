"""The assembly of servers: their supervisors, session templates and transports, and what all servers share."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from mcp_manager._core.router import Router
from mcp_manager.auth.base import Authorizations
from mcp_manager.auth.changing import ChangingCredentials
from mcp_manager.auth.redirect import RedirectHandler
from mcp_manager.auth.sources import CredentialProvider, Programs, configured_source, provided_source
from mcp_manager.auth.token_store import MemoryTokenStore, TokenStore
from mcp_manager.config import ManagerConfig, ServerConfig, arguments
from mcp_manager.errors import ConfigError
from mcp_manager.events.child_output import OutputWriter
from mcp_manager.events.feed import EventFeed
from mcp_manager.protocol.capabilities import handshake_capabilities, stateless_capabilities
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.runtime.deadline_timer import DeadlineTimer
from mcp_manager.servers.supervisor import InstanceObserver, Supervisor
from mcp_manager.session import SessionTemplate
from mcp_manager.session.connect_slots import ConnectSlots
from mcp_manager.session.endpoints import Endpoints
from mcp_manager.session.host import HostApplication
from mcp_manager.transports.base import MessageSink, Transport
from mcp_manager.transports.http.connections.limit import default_limit
from mcp_manager.transports.http.connections.user_agent import user_agent
from mcp_manager.transports.stdio.process_activity import usable_cores
from mcp_manager.transports.stdio.transport import StdioTransport

__all__ = ["Assembly", "client_identities", "client_identity"]

logger: logging.Logger = logging.getLogger(__name__)

# Starting a program keeps a core busy for a second or more. On idle cores a few starts at a time would do; on busy
# cores a few get only a small share of the time. Of 25 programs on two busy cores, 8 at a time took 1.3 times as long
# as all at once, and 16 at a time 1.2 times.
_STARTS_PER_CORE: Final = 16
_LOOK_AT_PROGRAMS_S: Final = 0.1
_MOST_WAITING_PROGRAMS: Final = 4096
_MOST_WAITING: Final = 512


class Assembly:
    """Make the supervisors of a manager's servers.

    ``http`` is the one pool behind every HTTP server.

    Parameters
    ----------
    config
        The manager's settings.
    host
        The manager's side of every session.
    token_store, redirect_handler, credentials
        See :class:`~mcp_manager.McpManager`.
    """

    def __init__(
        self,
        config: ManagerConfig,
        host: HostApplication,
        token_store: TokenStore | None = None,
        redirect_handler: RedirectHandler | None = None,
        credentials: Mapping[str, CredentialProvider] | None = None,
    ) -> None:
        # Imported only when a manager is made, because aiohttp takes half of the time of an import.
        from mcp_manager.transports.http.connections.pool import HttpPool  # noqa: PLC0415

        self._config = config
        self._host = host
        self._shared_host = (
            host
            if host.shared_identity is None
            else msgspec.structs.replace(host, identity=host.shared_identity, shared_identity=None)
        )
        self._token_store = token_store if token_store is not None else MemoryTokenStore()
        for method in ("load", "save"):
            if not callable(getattr(self._token_store, method, None)):
                raise ConfigError(
                    f"token_store must have the methods of a TokenStore, not {arguments.shown(token_store)}",
                    hint="FileTokenStore(directory) keeps tokens in files",
                )
        self._redirect_handler = arguments.as_callback(redirect_handler, "redirect_handler")
        self._credentials = arguments.as_settings(credentials, "credentials")
        for server_id, provide in self._credentials.items():
            if not callable(provide):
                raise ConfigError(f"credentials must be functions by server id, not {arguments.shown(server_id)}")
        self._programs = Programs()
        # One for all servers: each access to a method creates another bound method.
        self._make_transport = self._transport
        self._timer = DeadlineTimer(host.lag)
        self._connect_slots = ConnectSlots(config.connect_concurrency, most_waiting=_most_waiting())
        starts = config.start_concurrency or _STARTS_PER_CORE * usable_cores()
        # A program that only waits needs no core, so its slot is lent to another one.
        self._start_slots = ConnectSlots(starts, most_waiting=_MOST_WAITING_PROGRAMS, look_s=_LOOK_AT_PROGRAMS_S)
        self.http: HttpPool = HttpPool(
            max_connections=default_limit() if config.max_connections is None else config.max_connections,
            max_connections_per_origin=config.max_connections_per_origin,
            timer=self._timer,
            lag=host.lag,
            sender=user_agent(config.client_name, config.client_version),
        )

    @property
    def events(self) -> EventFeed:
        """Tells of what happens to servers."""
        return self._host.events

    def supervisor(
        self, server_id: str, config: ServerConfig, router: Router, observer: InstanceObserver
    ) -> Supervisor:
        """Make the supervisor of a server, which has no instances yet."""
        return Supervisor(self.template(server_id, config), router, observer, self._host.clock)

    def template(self, server_id: str, config: ServerConfig, before: SessionTemplate | None = None) -> SessionTemplate:
        """Make a server's session template; ``before`` is the one of the configuration that it replaces."""
        if not config.tls.verify:
            logger.warning(
                "server %r: tls.verify is false: anybody in between can read and change the traffic",
                server_id,
                extra={"event": "tls_unverified", "server_id": server_id},
            )
        authorizations = self._authorizations(server_id, config)
        endpoints = Endpoints(random.getrandbits(64)) if config.discovery.kind != "none" else None
        template = SessionTemplate(
            server_id,
            config,
            self._host if config.url is not None else self._shared_host,
            self._make_transport,
            self._start_slots if config.command is not None else self._connect_slots,
            authorizations,
            endpoints,
        )
        if before is not None:
            template.succeed(before)
        return template

    def _authorizations(self, server_id: str, config: ServerConfig) -> Authorizations | None:
        """Return what obtains a server's credentials, ``None`` if they are fixed."""
        provide = self._credentials.get(server_id)
        if provide is not None:
            _check_provided(server_id, config)
            return ChangingCredentials(server_id, provided_source(provide))
        if config.auth.type != "oauth":
            source = configured_source(server_id, config, self._programs)
            return None if source is None else ChangingCredentials(server_id, source)
        # Imported only if it is used, because it takes long.
        from mcp_manager.auth.oauth.authorizations import OAuthAuthorizations  # noqa: PLC0415
        from mcp_manager.transports.http.connections.routed_client import RoutedClient  # noqa: PLC0415

        client = RoutedClient(self.http, config)
        return OAuthAuthorizations(
            server_id,
            config.auth,
            self._config.client_name,
            lambda: client,
            self._token_store,
            self._redirect_handler,
        )

    def _transport(self, session: SessionTemplate, index: int, sink: MessageSink, sse: bool, number: int) -> Transport:
        server_id, config, authorizations = session.server_id, session.config, session.authorizations
        endpoints = session.endpoints
        if config.server is not None:
            # Few managers have one.
            from mcp_manager.transports.memory.transport import MemoryTransport  # noqa: PLC0415

            return MemoryTransport(
                config,
                containment=session.containment,
                sink=sink,
                timer=self._timer,
                secrets=session.secrets,
                check=session.check_frame,
                context=self._host.context,
            )
        if config.command is not None:
            output = OutputWriter(self.events.outputs.of(server_id), index, session.secrets)
            # The variables that a new program inherits may have changed since the last one.
            session.secrets.adjust(config)
            return StdioTransport(
                config,
                server_id=server_id,
                sink=sink,
                timer=self._timer,
                secrets=session.secrets,
                output=output,
                check=session.check_frame,
            )
        # Imported late, because aiohttp takes half of the time that an import of the package would take.
        from yarl import URL  # noqa: PLC0415

        from mcp_manager.transports.http.connections.route import route_of  # noqa: PLC0415
        from mcp_manager.transports.http.options import HttpOptions  # noqa: PLC0415
        from mcp_manager.transports.http.sse import HttpSseTransport  # noqa: PLC0415
        from mcp_manager.transports.http.transport import HttpTransport  # noqa: PLC0415

        bare_origin = session.bare_origin(index)
        url = config.instance_url(index) if bare_origin is None else bare_origin.url
        where = URL(url)
        options = HttpOptions(
            pool=self.http,
            url=url,
            headers=session.request_headers(),
            server_id=server_id,
            connect_timeout_s=config.connect_timeout_s,
            max_response_bytes=config.max_response_bytes,
            lanes=self._config.http_lanes,
            endpoint=endpoints[index] if endpoints is not None else None,
            route=route_of(config, where, os.environ),
            authorization=authorizations.of(url) if authorizations is not None else None,
            authorizations=authorizations,
            bare_origin=bare_origin,
            cookies=session.cookies(number),
            secrets=session.secrets,
            check=session.check_frame,
        )
        kind = HttpSseTransport if sse or config.transport == "sse" else HttpTransport
        return kind(options, sink)


def _check_provided(server_id: str, config: ServerConfig) -> None:
    """Raise :class:`ConfigError` for a server whose configuration leaves no room for a credential provider."""
    if config.server is not None:
        problem, hint = "do not apply to a server in memory", "the object has its own settings"
    elif config.command is not None:
        problem, hint = "do not apply to a stdio server", "pass credentials to a child process in env"
    elif config.auth.type != "none" or config.headers_command:
        problem, hint = "are given both in its configuration and to the manager", "drop auth and headers_command"
    else:
        return
    raise ConfigError(f"Invalid server config: credentials {problem}", server_id=server_id, hint=hint)


def client_identity(
    config: ManagerConfig, handlers: Collection[str], capabilities: Mapping[str, Any]
) -> ClientIdentity:
    """Return the client's identity; ``capabilities`` are declared beyond those that follow from the handlers."""
    return ClientIdentity(
        name=config.client_name,
        version=config.client_version,
        capabilities=handshake_capabilities(handlers, capabilities),
        stateless_capabilities=stateless_capabilities(handlers, capabilities),
    )


def client_identities(
    config: ManagerConfig, handlers: Collection[str], capabilities: Mapping[str, Any], shared: Mapping[str, Any] | None
) -> tuple[ClientIdentity, ClientIdentity | None]:
    """Return the client's identity, and that for servers whose session all callers share, ``None`` if it is the same.

    Parameters
    ----------
    config
        Has the name and version of the client.
    handlers, capabilities
        See :func:`client_identity`.
    shared
        What servers with a shared session are told; then others are told ``capabilities`` alone. ``None`` for no
        difference.
    """
    if shared is None:
        return client_identity(config, handlers, capabilities), None
    shared = arguments.as_settings(shared, "shared_capabilities")
    return client_identity(config, (), capabilities), client_identity(config, (), shared)


def _most_waiting() -> int:
    """Return how many connections may wait for an answer beyond ``connect_concurrency``: each holds a descriptor."""
    try:
        import resource  # noqa: PLC0415 - exists only on Unix
    except ImportError:
        return _MOST_WAITING
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_WAITING if limit == resource.RLIM_INFINITY else max(1, min(_MOST_WAITING, limit // 2))
