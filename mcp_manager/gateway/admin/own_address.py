"""The address of its own that the admin API may have, with the pages for probers and Prometheus."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from mcp_manager.config import ServeConfig
from mcp_manager.gateway.admin.administered import Administered
from mcp_manager.gateway.admin.authorization import Authorization
from mcp_manager.gateway.admin.problems import NO_STORE, Refusal, problem_of_http
from mcp_manager.gateway.http.connections import Connections
from mcp_manager.gateway.http.listener import Listener
from mcp_manager.gateway.http.web_protocol import expected, serving, unsigned

__all__ = ["OwnAddress"]


class OwnAddress:
    """Listen where ``serve.admin.listen`` says.

    It stays until the end of the gateway, so that ``/ready`` tells while calls under way finish.

    Parameters
    ----------
    serve
        The configuration of the gateway.
    gateway
        The gateway.
    authorization
        Knows which hosts are accepted.
    mounts
        The applications of the API and its page, by the beginning of their paths.
    """

    def __init__(
        self,
        serve: ServeConfig,
        gateway: Administered,
        authorization: Authorization,
        mounts: Sequence[tuple[str, web.Application]],
    ) -> None:
        self.listener: Listener = Listener(serve, is_admin=True)
        self._gateway = gateway
        self._authorization = authorization
        self._app = web.Application(client_max_size=serve.max_request_bytes)
        self._app.on_response_prepare.append(unsigned)
        for prefix, mounted in mounts:
            self._app.add_subapp(prefix, mounted)
        self._app.router.add_route("*", "/{path:.*}", self._answer, expect_handler=expected)
        self._max_bytes = serve.max_request_bytes
        self._connections: Connections | None = None

    async def start(self) -> None:
        """Listen.

        Raises
        ------
        ConfigError
            The address cannot be listened on.
        """
        self.listener.bind()
        self._connections = Connections(self._app, _NoEndpoints(), _never, self._max_bytes)
        await self._connections.start()
        await self.listener.accept(self._connections.protocol)

    async def aclose(self) -> None:
        """Accept nothing more, and close all connections. Idempotent."""
        await self.listener.close()
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.aclose()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        with serving(request) as unreadable:
            if unreadable is not None:
                return unreadable
            try:
                return await self._page(request)
            except Refusal as refusal:
                return refusal.problem.response(refusal.headers)
            except web.HTTPException as error:
                problem, headers = problem_of_http(error)
                return problem.response(headers)

    async def _page(self, request: web.Request) -> web.Response:
        path = request.path
        if path not in ("/health", "/ready", "/metrics"):
            raise web.HTTPNotFound
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ("GET", "HEAD"))
        if path == "/health":
            return web.json_response({"status": "ok"}, headers=NO_STORE)
        if not _is_address(request.headers.get("Host", "")) or "Origin" in request.headers:
            self._authorization.check_source(request)
        if path == "/metrics":
            body, content_type = await self._gateway.metrics(request.headers.get("Accept", ""))
            return web.Response(body=body, headers={**NO_STORE, "Content-Type": content_type})
        reasons = await self._gateway.reasons()
        shown: dict[str, Any] = {"ready": not reasons, **({"reasons": reasons} if reasons else {})}
        return web.json_response(shown, status=503 if reasons else 200, headers=NO_STORE)


class _NoEndpoints:
    """In place of what takes requests of MCP clients: there are none here."""

    @property
    def endpoints(self) -> _NoEndpoints:
        """What tells endpoints by their paths."""
        return self

    def is_endpoint(self, path: bytes) -> bool:
        """Tell that no path is that of an endpoint."""
        return False

    def take_session_request(self, incoming: Any) -> None:
        """Never called."""


def _never(incoming: Any) -> None:
    """Take a POST to an endpoint, of which there is none."""


def _is_address(host: str) -> bool:
    """Tell whether a ``Host`` is an IP address, as that of a container: no name stands for it that could change."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
