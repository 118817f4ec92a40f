"""What every session of one server is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.session.connect_slots import ConnectSlots
from mcp_manager.session.endpoints import Endpoints
from mcp_manager.session.host import HostApplication
from mcp_manager.session.knowledge.knowledge import Knowledge
from mcp_manager.transports.base import MessageSink, Transport
from mcp_manager.transports.containment import ContainedTransport, Containment
from mcp_manager.transports.http.cookies import CookieJar

if TYPE_CHECKING:
    from mcp_manager.auth.oauth.authorizations import Authorizations

__all__ = ["SessionTemplate", "TransportFactory"]

TransportFactory = Callable[["SessionTemplate", int, MessageSink, bool, int], Transport]
"""``make(template, index, sink, sse, number)`` makes the transport of an instance; with ``sse``, HTTP+SSE in place of HTTP."""


class SessionTemplate:
    """Make the transports of one server's sessions, and hold what they share.

    Parameters
    ----------
    server_id, config
        The server and its configuration.
    host
        The manager's side of every session.
    make_transport
        See :data:`TransportFactory`.
    connect_slots
        Bounds how many sessions of its kind are made at a time, over all servers.
    authorizations
        Obtains the server's tokens, ``None`` where its credentials are fixed.
    endpoints
        Where its instances are, if they are found by name.
    """

    __slots__ = (
        "_containment",
        "_cookies",
        "_knowledge",
        "_make_transport",
        "_secrets",
        "authorizations",
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
        self.server_id = server_id
        self.config = config
        self.host = host
        self._make_transport = make_transport
        self.connect_slots = connect_slots
        self.authorizations = authorizations
        self.endpoints = endpoints
        self._knowledge: Knowledge | None = None
        self._containment: Containment | None = None
        self._cookies: dict[int, CookieJar] | None = None
        self._secrets: Secrets | None = None

    @property
    def knowledge(self) -> Knowledge:
        """What is known of the server and outlives its sessions."""
        if self._knowledge is None:
            host = self.host
            self._knowledge = Knowledge(
                self.server_id, self.config, self.secrets, host.clock, host.listened, host.began
            )
        return self._knowledge

    @property
    def fault_counts(self) -> dict[str, int]:
        """How often the server sent something that it should not have, by kind."""
        return {} if self._knowledge is None else self._knowledge.fault_counts

    @property
    def is_flooding(self) -> bool:
        """Whether the server sends more than there is time to read."""
        return self._knowledge is not None and self._knowledge.is_flooding

    @property
    def secrets(self) -> Secrets:
        """The server's credentials, which are masked in every text."""
        if self._secrets is None:
            self._secrets = Secrets(self.config)
        return self._secrets

    @property
    def containment(self) -> Containment:
        """Turns unexpected exceptions into errors of the server's calls."""
        if self._containment is None:
            self._containment = Containment(self.server_id, self.secrets)
        return self._containment

    def places(self, count: int) -> Sequence[int]:
        """Return the indexes of at most so many instances: the first ones, or those of what was found."""
        return range(count) if self.endpoints is None else self.endpoints.chosen(count)

    def succeed(self, before: SessionTemplate) -> None:
        """Ask of the server what was asked of it under the configuration that this one replaces."""
        self.knowledge.succeed(before.knowledge)

    def forget_instance(self, number: int) -> None:
        """Forget what the sessions of an instance were told of."""
        if self._cookies is not None:
            self._cookies.pop(number, None)
        if self._knowledge is not None:
            self._knowledge.forget_instance(number)

    def transport(self, index: int, sink: MessageSink, sse: bool, number: int) -> Transport:
        """Make the transport of an instance; with ``sse``, HTTP+SSE in place of streamable HTTP."""
        return ContainedTransport(self._make_transport(self, index, sink, sse, number), self.containment)

    def cookies(self, number: int) -> CookieJar:
        """Return those that the sessions of an instance were given."""
        if self._cookies is None:
            self._cookies = {}
        return self._cookies.setdefault(number, CookieJar())

    def place(self, index: int) -> str:
        """Name what an instance's era is a property of: the origin of its URL, its endpoint, or the one program."""
        if self.config.command is not None:
            return ""
        from yarl import URL  # noqa: PLC0415  (it comes with aiohttp, which is loaded with the first transport)

        origin = str(URL(self.config.instance_url(index)).origin())
        return origin if self.endpoints is None else f"{origin} at {self.endpoints[index]}"
