"""The template of one server's sessions: what they are made from and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakSet

from mcp_manager._core.jsonrpc import scan
from mcp_manager.auth import request_headers
from mcp_manager.auth.base import Authorizations
from mcp_manager.auth.caller import Caller
from mcp_manager.auth.caller_credentials import CallerCredentials
from mcp_manager.config import ServerConfig, ToolsConfig
from mcp_manager.config.redaction import Secrets, shown_place
from mcp_manager.protocol.tool_rules import check_request, rules_of
from mcp_manager.session.caller_host import host_for
from mcp_manager.session.connect_slots import ConnectSlots
from mcp_manager.session.endpoints import Endpoints
from mcp_manager.session.host import HostApplication
from mcp_manager.session.knowledge.knowledge import Knowledge
from mcp_manager.transports.base import MessageSink, Transport
from mcp_manager.transports.containment import ContainedTransport, Containment
from mcp_manager.transports.http.bare_origin import BareOrigin, is_bare
from mcp_manager.transports.http.cookies import CookieJar

__all__ = ["SessionTemplate", "TransportFactory"]

TransportFactory = Callable[["SessionTemplate", int, MessageSink, bool, int], Transport]
"""``make(template, index, sink, sse, number)`` makes a transport; see :meth:`SessionTemplate.transport`."""

# As many as scan() takes: with rules, params may be nested as deeply as without.
_MOST_LEVELS: Final = 4096


class SessionTemplate:
    """Make the transports of one server's sessions, and hold what they share.

    Parameters
    ----------
    server_id, config
        The server and its configuration.
    host
        What all sessions of the manager share.
    make_transport
        See :data:`TransportFactory`.
    connect_slots
        Limits how many sessions of this kind are made at a time, over all servers.
    authorizations
        Obtains the server's credentials; ``None`` if they are fixed.
    endpoints
        The endpoints that DNS finds for the server; ``None`` if its configuration names them.
    """

    __slots__ = (
        "__weakref__",
        "_bare_origins",
        "_containment",
        "_cookies",
        "_for_callers",
        "_knowledge",
        "_make_transport",
        "_secrets",
        "_tool_rules",
        "authorizations",
        "caller",
        "config",
        "connect_slots",
        "endpoints",
        "host",
        "server_id",
    )

    def __init__(
        self,
        server_id: str,
        config: ServerConfig,
        host: HostApplication,
        make_transport: TransportFactory,
        connect_slots: ConnectSlots,
        authorizations: Authorizations | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        self.server_id: str = server_id
        self.config: ServerConfig = config
        self.host: HostApplication = host
        self._make_transport = make_transport
        self.connect_slots: ConnectSlots = connect_slots
        self.authorizations: Authorizations | None = authorizations
        # Of a template for the sessions of one caller: the caller's credentials.
        self.caller: CallerCredentials | None = None
        self.endpoints: Endpoints | None = endpoints
        # Created when they are needed, as the server may never be called.
        self._for_callers: WeakSet[SessionTemplate] | None = None
        self._knowledge: Knowledge | None = None
        self._containment: Containment | None = None
        self._cookies: dict[int, CookieJar] | None = None
        self._bare_origins: dict[str, BareOrigin] = {}
        self._secrets: Secrets | None = None
        self._tool_rules = rules_of(config.tools)

    @property
    def knowledge(self) -> Knowledge:
        """What is known about the server and outlives its sessions."""
        if self._knowledge is None:
            host = self.host
            self._knowledge = Knowledge(
                self.server_id, self.config, self.secrets, host.clock, host.listened, host.began
            )
        return self._knowledge

    def for_caller(self, caller: Caller) -> SessionTemplate:
        """Return a template for the sessions of one caller, who shares nothing that a session has learned or obtained.

        Parameters
        ----------
        caller
            The caller, whose newer credentials ``caller`` of the template takes.
        """
        credentials = CallerCredentials(self.server_id, caller, self.authorizations)

        def forget_tools() -> None:
            template.knowledge.outputs.forget()
            template.knowledge.hints.forget()

        host = host_for(self.host, credentials, forget_tools)
        template = SessionTemplate(
            self.server_id, self.config, host, self._make_transport, self.connect_slots, credentials, self.endpoints
        )
        template.caller = credentials
        template._tool_rules = self._tool_rules
        template._bare_origins = self._bare_origins
        template.knowledge.share(self.knowledge)
        if self._for_callers is None:
            self._for_callers = WeakSet()
        self._for_callers.add(template)
        return template

    def request_headers(self) -> dict[str, str]:
        """Return the header fields of every request, but for credentials that are obtained."""
        if self.caller is not None and self.caller.caller.auth is not None:
            return dict(self.config.headers)
        return request_headers(self.config)

    @property
    def fault_counts(self) -> dict[str, int]:
        """How often the server broke a rule, by kind of fault."""
        return {} if self._knowledge is None else self._knowledge.fault_counts

    @property
    def is_flooding(self) -> bool:
        """Whether the server sends more than there is time to read; see :attr:`PeerFaults.is_flooding`."""
        return self._knowledge is not None and self._knowledge.is_flooding

    @property
    def secrets(self) -> Secrets:
        """The server's credentials, which are masked in every text."""
        if self._secrets is None:
            self._secrets = Secrets(self.config)
        return self._secrets

    @property
    def containment(self) -> Containment:
        """Turns unexpected exceptions into errors for the server's callers."""
        if self._containment is None:
            self._containment = Containment(self.server_id, self.secrets)
        return self._containment

    @property
    def calls_need_python(self) -> bool:
        """Whether calls cannot take the compiled path: they are hedged, or their results are kept."""
        return self.config.hedge.enabled or self.config.fallback.stale_s > 0

    def adjust(self, config: ServerConfig) -> None:
        """Take another configuration of the same connection, also for callers; sessions go on."""
        self.config = config
        self._tool_rules = rules_of(config.tools)
        for template in self._for_callers or ():
            template.adjust(config)
        if self._knowledge is not None:
            self._knowledge.adjust(config)
        if self._secrets is not None:
            self._secrets.adjust(config)

    def restrict(self, tools: ToolsConfig) -> None:
        """Apply other rules of tools to all that is sent from now on, also for callers."""
        self._tool_rules = rules_of(tools)
        for template in self._for_callers or ():
            template.restrict(tools)

    def check_frame(self, frame: bytes) -> None:
        """Check a message that is about to be sent: the rules may have changed while it waited, or since it failed.

        Raises
        ------
        ToolNotAllowedError
            The rules of the server's tools forbid it.
        """
        if self._tool_rules is not None and frame:
            message = scan(frame, max_depth=_MOST_LEVELS)
            if message.method is not None:
                check_request(self.server_id, self._tool_rules, message.method, message.params)

    def places(self, count: int) -> Sequence[int]:
        """Return the indexes of at most ``count`` endpoints: 0, 1, …, or those chosen among what DNS found."""
        return range(count) if self.endpoints is None else self.endpoints.chosen(count)

    def succeed(self, before: SessionTemplate) -> None:
        """Take over the subscriptions and the log level from the template that this one replaces."""
        self.knowledge.succeed(before.knowledge)

    def forget_instance(self, number: int) -> None:
        """Forget the cookies of an instance that is gone, and which notifications it received."""
        if self._cookies is not None:
            self._cookies.pop(number, None)
        if self._knowledge is not None:
            self._knowledge.forget_instance(number)

    def transport(self, index: int, sink: MessageSink, sse: bool, number: int) -> Transport:
        """Make the transport of one session.

        Parameters
        ----------
        index
            The endpoint, by its index.
        sink
            Takes what the transport reports.
        sse
            Whether to use HTTP+SSE in place of streamable HTTP.
        number
            The number of the instance.
        """
        return ContainedTransport(self._make_transport(self, index, sink, sse, number), self.containment)

    def cookies(self, number: int) -> CookieJar:
        """Return the cookies of an instance, which its sessions share."""
        if self._cookies is None:
            self._cookies = {}
        return self._cookies.setdefault(number, CookieJar())

    def bare_origin(self, index: int) -> BareOrigin | None:
        """Return what is known of the endpoint behind a URL, ``None`` if the URL has a path."""
        url = self.config.instance_url(index)
        if not is_bare(url):
            return None
        known = self._bare_origins.get(url)
        if known is None:
            known = self._bare_origins[url] = BareOrigin(self.server_id, url, shown_place(self.config, url))
        return known

    @property
    def found_endpoints(self) -> tuple[str, ...]:
        """The endpoints that were found behind URLs without a path, with secrets masked."""
        return tuple(shown for each in self._bare_origins.copy().values() if (shown := each.shown) is not None)

    def endpoint_key(self, index: int) -> str:
        """Return the key under which the era of an endpoint is kept: its origin, and its address if DNS found it.

        "" for a program or a server in memory, which all instances run.
        """
        if self.config.url is None:
            return ""
        from yarl import URL  # noqa: PLC0415  (it comes with aiohttp, which is loaded with the first transport)

        origin = str(URL(self.config.instance_url(index)).origin())
        return origin if self.endpoints is None else f"{origin} at {self.endpoints[index]}"
