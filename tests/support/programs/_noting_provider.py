"""FastMCP's in-memory authorization server, which records what clients do; the official SDK's server uses it too."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from fastmcp.server.auth.providers.in_memory import InMemoryOAuthProvider
from mcp.server.auth.provider import AccessToken, AuthorizationCode, AuthorizationParams, RefreshToken
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

__all__ = ["NotingProvider", "control", "origin_of"]


def origin_of(descriptor: int) -> str:
    """Return the origin of an inherited listening socket; an authorization server must know its own origin."""
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class NotingProvider(InMemoryOAuthProvider):
    """Bind tokens to the requested resource, and record each step of a client."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.notes: list[dict[str, Any]] = []
        self._resources: dict[str, str | None] = {}

    def note(self, step: str, **what: Any) -> None:
        self.notes.append({"step": step, **what})

    def forget(self, what: str) -> None:
        """Forget access tokens, unless ``what`` is ``access`` also refresh tokens, and for ``clients`` also clients."""
        self.access_tokens.clear()
        if what != "access":
            self.refresh_tokens.clear()
        if what == "clients":
            self.clients.clear()

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.note("register", **json.loads(client_info.model_dump_json(exclude_none=True, exclude={"client_secret"})))
        await super().register_client(client_info)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        self.note("authorize", scopes=params.scopes, resource=params.resource)
        url = await super().authorize(client, params)
        self._resources[next(reversed(self.auth_codes))] = params.resource
        return url

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        token = await super().exchange_authorization_code(client, authorization_code)
        self.note("code", method=client.token_endpoint_auth_method)
        return self._bind(token, self._resources.pop(authorization_code.code))

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        resource = self._resources.pop(refresh_token.token)
        token = await super().exchange_refresh_token(client, refresh_token, scopes)
        self.note("refresh", method=client.token_endpoint_auth_method)
        return self._bind(token, resource)

    def _bind(self, token: OAuthToken, resource: str | None) -> OAuthToken:
        held: AccessToken = self.access_tokens[token.access_token]
        self.access_tokens[token.access_token] = held.model_copy(update={"resource": resource})
        self._resources[token.refresh_token or ""] = resource
        return token


def control(provider: NotingProvider) -> Any:
    """Return the handler of ``/control/{what}``, which returns or clears the records, or forgets tokens."""

    async def answer(request: Request) -> Response:
        what = request.path_params["what"]
        if what == "reset":
            provider.notes.clear()
        elif what != "notes":
            provider.forget(what)
        return JSONResponse(provider.notes)

    return answer
