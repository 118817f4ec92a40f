"""What every transport to an HTTP endpoint is made from, whichever way the server speaks on it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mcp_manager.auth import Authorization
from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.transports.http.connections.endpoint import Endpoint
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.connections.route import DIRECT, Route
from mcp_manager.transports.http.cookies import CookieJar

__all__ = ["HttpOptions"]


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What transports to one endpoint are made from.

    Parameters
    ----------
    pool
        Where connections come from.
    url, headers
        The endpoint and the headers of every request, credentials included.
    server_id
        Names the server in errors.
    connect_timeout_s
        Bounds each connection attempt, TLS included.
    max_response_bytes
        A reply, or one event of a stream, longer than this is refused.
    lanes
        ``False`` sends everything the ordinary way.
    endpoint
        Where it is, if that is not left to the resolution of the URL's host.
    route
        By which way it is reached.
    authorization
        Where the credentials of requests come from if they are not fixed, ``None`` if ``headers`` has all.
    cookies
        Those of the instance, which outlive each of its sessions.
    secrets
        Masks what the server was trusted with wherever an error quotes it.
    """

    pool: HttpPool
    url: str
    headers: Mapping[str, str]
    server_id: str
    connect_timeout_s: float
    max_response_bytes: int
    lanes: bool = True
    endpoint: Endpoint | None = None
    route: Route = DIRECT
    authorization: Authorization | None = None
    cookies: CookieJar = msgspec.field(default_factory=CookieJar)
    secrets: Secrets = msgspec.field(default_factory=lambda: Secrets(ServerConfig()))
