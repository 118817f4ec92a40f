"""A fastmcp server behind fastmcp's own authorization server, or behind its proxy of another one."""

from __future__ import annotations

import secrets
from typing import Any

from _noting_provider import NotingProvider, control, origin_of
from _serving import argument_parser, serve
from fastmcp import FastMCP
from fastmcp.server.auth import AccessToken, OAuthProxy, TokenVerifier
from key_value.aio.stores.memory import MemoryStore
from mcp.server.auth.provider import AuthorizationParams
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route


class Upstream(TokenVerifier):
    """The identity provider behind the proxy: it accepts every user, and forgets tokens on demand."""

    def __init__(self) -> None:
        super().__init__(required_scopes=["user"])
        self.notes: list[dict[str, Any]] = []
        self.access: set[str] = set()
        self.refresh: set[str] = set()

    def forget(self, what: str) -> None:
        self.access.clear()
        if what != "access":
            self.refresh.clear()

    async def verify_token(self, token: str) -> AccessToken | None:
        return AccessToken(token=token, client_id="proxy", scopes=["user"]) if token in self.access else None

    async def authorize(self, request: Request) -> Response:
        query = request.query_params
        return RedirectResponse(f"{query['redirect_uri']}?code=upstream&state={query['state']}", status_code=302)

    async def token(self, request: Request) -> Response:
        form = await request.form()
        if form["grant_type"] == "refresh_token" and form["refresh_token"] not in self.refresh:
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        access, refresh = secrets.token_urlsafe(), secrets.token_urlsafe()
        self.access.add(access)
        self.refresh.add(refresh)
        return JSONResponse(
            {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 3600}
        )


class NotingProxy(OAuthProxy):
    """A proxy that records what clients do."""

    def __init__(self, upstream: Upstream, **settings: Any) -> None:
        super().__init__(token_verifier=upstream, **settings)
        self.upstream = upstream

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.upstream.notes.append({"step": "register", "scope": client_info.scope})
        await super().register_client(client_info)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        self.upstream.notes.append({"step": "authorize", "scopes": params.scopes, "resource": params.resource})
        return await super().authorize(client, params)

    async def exchange_refresh_token(self, *arguments: Any) -> Any:
        token = await super().exchange_refresh_token(*arguments)
        self.upstream.notes.append({"step": "refresh"})
        return token


def own(origin: str) -> tuple[Any, Any, list[Route]]:
    """Return FastMCP's own authorization server."""
    provider = NotingProvider(
        base_url=origin,
        client_registration_options=ClientRegistrationOptions(enabled=True, valid_scopes=["user"]),
        required_scopes=["user"],
    )
    return provider, provider, []


def proxy(origin: str) -> tuple[Any, Any, list[Route]]:
    """Return fastmcp's proxy of an identity provider in the same process."""
    upstream = Upstream()
    auth = NotingProxy(
        upstream,
        upstream_authorization_endpoint=f"{origin}/upstream/authorize",
        upstream_token_endpoint=f"{origin}/upstream/token",
        upstream_client_id="proxy",
        upstream_client_secret="proxy's own secret",
        base_url=origin,
        client_storage=MemoryStore(),
        require_authorization_consent="external",
    )
    routes = [
        Route("/upstream/authorize", upstream.authorize),
        Route("/upstream/token", upstream.token, methods=["POST"]),
    ]
    return auth, upstream, routes


if __name__ == "__main__":
    parser = argument_parser()
    parser.add_argument("--proxy", action="store_true", help="be the proxy of another authorization server")
    options = parser.parse_args()
    auth, noting, more = (proxy if options.proxy else own)(origin_of(options.fd))
    server: FastMCP[None] = FastMCP("private", auth=auth)

    @server.tool
    def echo(text: str) -> str:
        """Return the text."""
        return text

    app = server.http_app(path="/mcp")
    app.router.routes.extend([*more, Route("/control/{what}", control(noting), methods=["POST"])])
    serve(app, options.fd)
