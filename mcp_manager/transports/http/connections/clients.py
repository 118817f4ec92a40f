"""aiohttp's sessions, which open all connections, and the sockets that each server has open."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from yarl import URL

from mcp_manager.auth.addresses import address_rule
from mcp_manager.runtime.forks import keep_from_children
from mcp_manager.transports.http.connections.addresses import refuse_special_address
from mcp_manager.transports.http.connections.connector import RoutedConnector
from mcp_manager.transports.http.connections.names import Names
from mcp_manager.transports.http.connections.tls import TlsContexts
from mcp_manager.transports.http.connections.user_agent import USER_AGENT, user_agent

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType
    from aiohttp.connector import Connection

__all__ = ["KEEPALIVE_S", "Clients", "connecting_server", "request_check"]

T = TypeVar("T")

connecting_server: ContextVar[str] = ContextVar("connecting_server", default="")
"""The server that a connection opened by the current task is counted for."""

request_check: ContextVar[Callable[[], object] | None] = ContextVar("request_check", default=None)
"""Raises an error if the request of the current task may not be sent; called when there is a connection for it."""

# uvicorn closes idle connections after 5 s, and a request sent in that moment is lost.
KEEPALIVE_S: Final = 4.0
# Seconds, seconds and probes: a silent peer is given up after two minutes.
_KEEPALIVE_PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class _CheckedRequest(aiohttp.ClientRequest):
    """A request that is checked when its connection is made, which may take long; a refused one sends nothing."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        check = request_check.get()
        if check is not None:
            # If it raises, aiohttp closes the connection.
            check()
        return await super().send(conn)


class Clients:
    """Own aiohttp's sessions, each made with its first use on the running loop, and count the sockets of each server.

    Parameters
    ----------
    sender
        The ``User-Agent`` of requests that have none of their own.
    """

    def __init__(self, sender: str = "") -> None:
        self.user_agent: str = sender or user_agent("")
        self.tls: TlsContexts = TlsContexts()
        self._names: Names | None = None
        self._shared: aiohttp.ClientSession | None = None
        self._lasting: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._sockets: dict[str, list[socket.socket]] = {}

    @property
    def shared(self) -> aiohttp.ClientSession:
        """The session for most requests, which keeps idle connections."""
        if self._shared is None:
            self._shared = self._make_client(self._open_socket)
        return self._shared

    @property
    def lasting(self) -> aiohttp.ClientSession:
        """The session for streams that stay open."""
        if self._lasting is None:
            self._lasting = self._make_client(self._open_lasting_socket)
        return self._lasting

    @property
    def fresh(self) -> aiohttp.ClientSession:
        """The session that opens a new connection for each request."""
        if self._fresh is None:
            self._fresh = self._make_client(self._open_socket, force_close=True)
        return self._fresh

    async def connecting(self, url: URL, connect: Callable[[], Awaitable[T]]) -> T:
        """Connect to the host of a URL; see :meth:`Names.connecting`."""
        return await self._resolver().connecting(url, connect)

    def doubt(self, url: URL) -> None:
        """Note that a connection to a URL was lost; see :meth:`Names.doubt`."""
        if self._names is not None:
            self._names.doubt(url)

    def open_connections(self, server_id: str) -> int:
        """Count the sockets open to a server, in use or idle."""
        # Another thread may call this, so it changes nothing.
        sockets = self._sockets.get(server_id)
        return sum(held.fileno() != -1 for held in tuple(sockets)) if sockets else 0

    def forget(self, server_id: str) -> None:
        """Stop counting for a removed server; its idle connections end with their keep-alive time."""
        self._sockets.pop(server_id, None)
        self.tls.drop_identities()

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        clients = (self._shared, self._lasting, self._fresh)
        self._shared = self._lasting = self._fresh = None
        self._sockets.clear()
        for client in clients:
            if client is not None:
                await client.close()
        if self._names is not None:
            await self._names.close()
            self._names = None

    def _resolver(self) -> Names:
        if self._names is None:
            self._names = Names()
        return self._names

    def _make_client(
        self, open_socket: Callable[[AddrInfoType], socket.socket], *, force_close: bool = False
    ) -> aiohttp.ClientSession:
        connector = RoutedConnector(
            # ConnectionPermits bounds them.
            limit=0,
            force_close=force_close,
            keepalive_timeout=None if force_close else KEEPALIVE_S,
            socket_factory=open_socket,
            variables=(connecting_server, address_rule),
            resolver=self._resolver(),
        )
        self._resolver().serve(connector)
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            request_class=_CheckedRequest,
            trace_configs=[tracing],
            # aiohttp's jar shares cookies among the ports of a host: one server's would reach another.
            cookie_jar=aiohttp.DummyCookieJar(),
            # A decompression bomb would exceed the limit that was checked many times over.
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=1 << 18,
            headers={USER_AGENT: self.user_agent},
        )

    def _open_socket(self, address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = address
        if family != socket.AF_UNIX:
            # Checked right before the connection, so that it also catches names that resolve to such an address.
            refuse_special_address(str(where[0]))
            rule = address_rule.get()
            if rule is not None:
                rule.check(str(where[0]))
        opened = socket.socket(family, kind, protocol)
        keep_from_children(opened)
        opened.setblocking(False)
        server_id = connecting_server.get()
        if server_id:
            others = [held for held in self._sockets.get(server_id, ()) if held.fileno() != -1]
            self._sockets[server_id] = [*others, opened]
        return opened

    def _open_lasting_socket(self, address: AddrInfoType) -> socket.socket:
        opened = self._open_socket(address)
        # Nothing is sent on it, so without probes a vanished peer would never be noticed.
        if opened.family == socket.AF_UNIX:
            return opened
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE_PROBES.items():
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return opened


async def _note_reuse(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionReuseconnParams) -> None:
    exchange = context.trace_request_ctx
    if exchange is not None:
        exchange.reused = True
