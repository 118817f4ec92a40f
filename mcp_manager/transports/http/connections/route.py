"""The route to a server: TLS settings, proxy and unix socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec
from yarl import URL

from mcp_manager.config import ServerConfig, TlsConfig
from mcp_manager.transports.http.connections.addresses import refuse_special_address
from mcp_manager.transports.http.connections.endpoint import Endpoint, tls_name
from mcp_manager.transports.http.connections.proxy import Proxy, proxy_of
from mcp_manager.transports.http.connections.tls import TlsContexts

__all__ = [
    "DIRECT",
    "Destination",
    "Route",
    "UnusableProxyError",
    "connect_timeout",
    "proxy_fields",
    "request_options",
    "route_of",
    "socket_path_of",
]

_SOCKET: Final = "unix:"
_SHARE_OF_PROXY: Final = 0.9


class Route(msgspec.Struct, frozen=True):
    """How one origin is reached.

    Parameters
    ----------
    tls
        The TLS settings of the server's configuration.
    proxy
        The proxy to connect to in place of the origin.
    unix_socket
        The absolute path of the socket to connect to in place of the origin.
    elsewhere
        Whether the origin is a third party that the server refers to, such as an authorization server; then only a part
        of ``tls`` applies (see :meth:`TlsContexts.of`).
    """

    tls: TlsConfig = TlsConfig()
    proxy: Proxy | None = None
    unix_socket: str | None = None
    elsewhere: bool = False

    def carries_lanes(self, url: URL) -> bool:
        """Return whether lanes can use this route: a proxy without a tunnel needs requests of another form."""
        return self.proxy is None or url.scheme == "https"

    def connected(self, url: URL) -> URL:
        """Return the URL of the host that a connection to ``url`` is made to: the proxy's, if there is one."""
        return url if self.proxy is None or self.proxy.problem else self.proxy.url

    def __str__(self) -> str:
        if self.proxy is not None and not self.proxy.problem:
            return f" through the proxy {self.proxy.url.origin()}"
        return f" over unix_socket {self.unix_socket}" if self.unix_socket is not None else ""


DIRECT: Final = Route()


class Destination(NamedTuple):
    """Everything that must be the same for two connections to be interchangeable.

    ``origin`` is scheme, host and port; ``endpoint`` is one of the addresses behind it, ``None`` if any will do.
    """

    origin: URL
    endpoint: Endpoint | None
    route: Route


class UnusableProxyError(OSError):
    """The environment names a proxy that cannot be used."""


def route_of(config: ServerConfig, url: URL, environment: Mapping[str, str], *, elsewhere: bool = False) -> Route:
    """Return the route to one of a server's URLs, or with ``elsewhere`` to a third party that the server refers to."""
    path = config.unix_socket if not elsewhere else None
    # Addresses that DNS discovery has found are connected to directly, as are sockets.
    is_near = not elsewhere and (path is not None or config.discovery.kind != "none")
    return Route(
        config.tls,
        None if is_near else proxy_of(config.proxy, url, environment),
        os.path.abspath(os.path.expanduser(path)) if path else None,
        elsewhere,
    )


async def request_options(route: Route, contexts: TlsContexts, url: URL, endpoint: Endpoint | None) -> dict[str, Any]:
    """Return the options of an aiohttp request for a route.

    They are part of aiohttp's connection key, so connections of different routes are never shared.

    Raises
    ------
    OSError
        A certificate or a proxy cannot be used.
    """
    if route.unix_socket is not None:
        # The only part of the connection key that plain HTTP does not use otherwise.
        return {"server_hostname": _SOCKET + route.unix_socket}
    options: dict[str, Any] = {"server_hostname": tls_name(url, endpoint)}
    proxy = route.proxy
    if proxy is not None:
        if proxy.problem:
            raise UnusableProxyError(proxy.problem)
        # The proxy resolves names, so only literal addresses can be checked here.
        refuse_special_address(url.host or "")
        options["proxy"] = proxy.url
        if proxy.credentials is not None:
            options["proxy_headers"] = {"Proxy-Authorization": proxy.credentials}
    if url.scheme == "https" or (proxy is not None and proxy.url.scheme == "https"):
        options["ssl"] = await contexts.of(route.tls, elsewhere=route.elsewhere)
    return options


def connect_timeout(seconds: float, route: Route) -> aiohttp.ClientTimeout:
    """Return the timeout of a connection attempt.

    With a proxy it includes the tunnel, which a proxy may accept and never make, and it is 10 % shorter: it ends before
    the timeout of the MCP handshake, so that the error names the proxy.
    """
    if route.proxy is None:
        return aiohttp.ClientTimeout(total=None, sock_connect=seconds)
    seconds *= _SHARE_OF_PROXY
    return aiohttp.ClientTimeout(total=None, connect=seconds, sock_connect=seconds)


def proxy_fields(route: Route, url: URL) -> dict[str, str]:
    """Return the header fields that a request to a proxy without a tunnel needs; ``{}`` for all other requests."""
    if route.proxy is None or route.proxy.credentials is None or url.scheme != "http":
        return {}
    return {"Proxy-Authorization": route.proxy.credentials}


def socket_path_of(server_hostname: str | None) -> str | None:
    """Return the path of the unix socket that a request goes to, ``None`` if it goes to a host."""
    if server_hostname is None or not server_hostname.startswith(_SOCKET):
        return None
    return server_hostname.removeprefix(_SOCKET)
