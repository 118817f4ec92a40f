"""The one aiohttp session and connector behind every HTTP server: limits, TLS, DNS, and which addresses are allowed."""

from __future__ import annotations

import ipaddress
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType

__all__ = ["HttpPool", "connecting_server"]

connecting_server: ContextVar[str] = ContextVar("connecting_server", default="")
"""The server on whose behalf the current task may open a connection."""

# uvicorn closes idle connections after 5 s: reusing one in that moment loses the request.
_KEEPALIVE_S: Final = 4.0


class HttpPool:
    """Own the aiohttp connector of a manager and count the sockets each server holds.

    Parameters
    ----------
    max_connections
        The most connections open at once over all servers, 0 for no limit. A request beyond it waits for one,
        within its deadline.
    """

    def __init__(self, *, max_connections: int = 0) -> None:
        self._max_connections = max_connections
        self._client: aiohttp.ClientSession | None = None
        self._sockets: dict[str, list[socket.socket]] = {}

    @property
    def client(self) -> aiohttp.ClientSession:
        """The shared session, made on first use on the running loop."""
        if self._client is None:
            connector = aiohttp.TCPConnector(
                limit=self._max_connections,
                keepalive_timeout=_KEEPALIVE_S,
                socket_factory=self._open_socket,
            )
            self._client = aiohttp.ClientSession(
                connector=connector,
                # Cookies are shared between the ports of a host: one server's would reach another.
                cookie_jar=aiohttp.DummyCookieJar(),
                # A decompressed bomb is many times the limit that was checked.
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
                read_bufsize=1 << 18,
                skip_auto_headers=("User-Agent",),
            )
        return self._client

    def open_connections(self, server_id: str) -> int:
        """Count the sockets open to a server, in use or idle."""
        sockets = self._sockets.get(server_id)
        if sockets is None:
            return 0
        sockets[:] = [held for held in sockets if held.fileno() != -1]
        return len(sockets)

    def forget(self, server_id: str) -> None:
        """Stop counting for a server that is gone; its idle connections end with their keep-alive."""
        self._sockets.pop(server_id, None)

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        client, self._client = self._client, None
        self._sockets.clear()
        if client is not None:
            await client.close()

    def _open_socket(self, address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = address
        _refuse_special_address(where)
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        server_id = connecting_server.get()
        if server_id:
            self.open_connections(server_id)
            self._sockets.setdefault(server_id, []).append(opened)
        return opened


def _refuse_special_address(where: tuple[Any, ...]) -> None:
    # The last moment before a connection: names that resolve to such an address are caught too.
    address = ipaddress.ip_address(str(where[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise OSError(
            f"connecting to {address} is not allowed: link-local, multicast and unspecified addresses are blocked"
        )
