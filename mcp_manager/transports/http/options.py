"""The options of a transport to an HTTP endpoint, for Streamable HTTP and for HTTP+SSE."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mcp_manager.auth import Authorization
from mcp_manager.auth.base import Authorizations
from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets, is_credential
from mcp_manager.transports.base import FrameCheck, permit_all
from mcp_manager.transports.http.bare_origin import BareOrigin
from mcp_manager.transports.http.connections.endpoint import Endpoint
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.connections.route import DIRECT, Route
from mcp_manager.transports.http.cookies import CookieJar
from mcp_manager.transports.http.status import Credentials

__all__ = ["HttpOptions"]


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the transports to one endpoint.

    Parameters
    ----------
    pool
        The manager's connections.
    url, headers
        The endpoint, and the header fields of every request, credentials included.
    server_id
        Names the server in errors.
    connect_timeout_s
        Bounds each connection attempt, TLS included.
    max_response_bytes
        The longest reply, or event of a stream, in bytes.
    lanes
        Whether requests may go over lanes; ``False`` sends all of them as plain aiohttp requests.
    endpoint
        The address to connect to, ``None`` to resolve the URL's host.
    route
        TLS settings, proxy and unix socket.
    authorization
        Obtains the credentials of requests, ``None`` if ``headers`` has all of them.
    authorizations
        Obtain those of requests to another URL of the same origin.
    bare_origin
        Where the endpoint is if the configured URL has no path; ``None`` if it has one.
    cookies
        The cookies of the instance, which outlive its sessions.
    secrets
        Masks the server's credentials wherever an error quotes them.
    check
        Checks each message right before it is sent.
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
    authorizations: Authorizations | None = None
    bare_origin: BareOrigin | None = None
    cookies: CookieJar = msgspec.field(default_factory=CookieJar)
    secrets: Secrets = msgspec.field(default_factory=lambda: Secrets(ServerConfig()))
    check: FrameCheck = permit_all

    @property
    def credentials(self) -> Credentials:
        """The kind of credentials that requests are sent with."""
        if self.authorization is not None:
            return Credentials.OBTAINED
        sent = self.secrets.are_sent or any(is_credential(name) for name in self.headers)
        return Credentials.FIXED if sent else Credentials.NONE
