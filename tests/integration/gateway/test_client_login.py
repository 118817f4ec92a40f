"""Clients that log in to a gateway with OAuth: from the challenge to a call, as clients of any MCP server do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web
from mcp import ClientSession
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from support.authorization import ProtectedServer, Seen, oauth
from support.era_server import EraServer
from support.token_issuer import TokenIssuer, made_key

from mcp_manager import AuthError, McpManager
from mcp_manager.gateway import Gateway

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


class Site:
    """A gateway with the authorization server of its clients: that issues, and ``keys`` signs."""

    def __init__(self, gateway: Gateway, base: str, issuer: ProtectedServer, keys: TokenIssuer) -> None:
        self.gateway = gateway
        self.base = base
        self.issuer = issuer
        self.keys = keys
        self.subject = "alice"
        self.issued: list[str] = []
        issuer.token_reply = self._reply

    def _reply(self, seen: Seen, body: dict[str, Any]) -> web.Response:
        claims = {"sub": self.subject, "iss": f"{self.issuer.origin}/as1", "scope": seen.form.get("scope", "mcp:use")}
        self.issued.append(self.keys.token("one", aud=seen.form.get("resource"), **claims))
        return web.json_response({**body, "access_token": self.issued[-1]})

    def expect(self, path: str) -> str:
        """Let the authorization server issue tokens for an endpoint; return its URL."""
        self.issuer.resource = {"resource": f"{self.base}{path}"}
        return f"{self.base}{path}"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    with ProtectedServer() as issuer, EraServer("2025-11-25") as server:
        async with TokenIssuer() as keys:
            listener = socket.create_server(("127.0.0.1", 0))
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            keys.keys["one"] = made_key("ES256")
            serve = {
                "auth": {
                    "type": "jwt",
                    "issuer": f"{issuer.origin}/as1",
                    "jwks_url": f"{keys.origin}/keys",
                    "resource": base,
                    "scopes": ["mcp:use"],
                }
            }
            gateway = Gateway({"servers": {"s": {"url": server.url}}, "views": {"few": {}}}, serve=serve)
            await gateway.start([listener])
            try:
                yield Site(gateway, base, issuer, keys)
            finally:
                await gateway.stop()


async def test_the_manager_logs_in_to_a_gateway(site: Site) -> None:
    whole, view = site.expect("/mcp"), f"{site.base}/mcp/few"
    async with McpManager(redirect_handler=site.issuer.agree) as manager:
        await manager.deploy("g", {"url": whole, **oauth()})
        result = await manager.call_tool("g", "s__echo", {"text": "x"})
        assert not result.is_error
        [asked] = site.issuer.to("/authorize")
        # The challenge named the scope, and the metadata of the path the resource.
        assert asked.query["scope"] == "mcp:use"
        assert asked.query["resource"] == whole
        # Another endpoint needs a token of its own.
        site.expect("/mcp/few")
        await manager.deploy("v", {"url": view, **oauth()})
        await manager.call_tool("v", "s__echo", {"text": "x"})
        assert len(site.issued) == 2
    # Such a token opens that endpoint alone.
    async with aiohttp.ClientSession() as http:
        fields = {"Authorization": f"Bearer {site.issued[1]}", "Accept": "application/json, text/event-stream"}
        for url, status in ((view, 200), (whole, 401)):
            async with http.post(url, json=INITIALIZE, headers=fields) as response:
                challenge = response.headers.get("WWW-Authenticate", "")
                assert (response.status, "invalid_token" in challenge) == (status, status == 401), challenge
                assert site.issued[1] not in challenge + await response.text()
        async with http.post(whole, json=INITIALIZE, headers={"Accept": fields["Accept"]}) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == (
                f'Bearer resource_metadata="{site.base}/.well-known/oauth-protected-resource/mcp", scope="mcp:use"'
            )
        # Web pages ask first, because they send MCP-Protocol-Version.
        page = {"Origin": "http://localhost:6274", "Access-Control-Request-Headers": "mcp-protocol-version"}
        async with http.options(f"{site.base}/.well-known/oauth-protected-resource/mcp", headers=page) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == page["Origin"]
            assert response.headers["Access-Control-Allow-Headers"] == "mcp-protocol-version"
        for path in ("", "/mcp", "/mcp/few", "/mcp/none", "/servers/s/mcp"):
            async with http.get(f"{site.base}/.well-known/oauth-protected-resource{path}") as response:
                assert response.status == 200
                assert await response.json() == {
                    "resource": f"{site.base}{path}",
                    "authorization_servers": [f"{site.issuer.origin}/as1"],
                    "scopes_supported": ["mcp:use"],
                    "bearer_methods_supported": ["header"],
                    "resource_name": "mcp-manager",
                }


async def test_a_token_with_too_few_scopes_is_not_used_for_ever(site: Site) -> None:
    url = site.expect("/mcp")
    real = site._reply
    site.issuer.token_reply = lambda seen, body: real(
        Seen(seen.verb, seen.path, seen.headers, seen.query, {**seen.form, "scope": "other"}), body
    )
    async with McpManager(redirect_handler=site.issuer.agree) as manager:
        await manager.deploy("g", {"url": url, **oauth()})
        with pytest.raises(AuthError):
            await manager.call_tool("g", "s__echo", {"text": "x"})
        assert 1 <= len(site.issuer.to("/authorize")) <= 3


class Storage:
    """Keep the tokens of a client of the SDK."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


async def test_a_client_of_the_official_sdk_logs_in(site: Site) -> None:
    url = site.expect("/mcp")
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def redirect(where: str) -> None:
        answers.put_nowait(await site.issuer.agree(where))

    async def answer() -> AuthorizationCodeResult:
        query = {name: values[0] for name, values in parse_qs(urlsplit(await answers.get()).query).items()}
        return AuthorizationCodeResult(code=query["code"], state=query["state"], iss=query.get("iss"))

    about = OAuthClientMetadata(redirect_uris=["http://localhost:1/back"], client_name="t")  # type: ignore[list-item]
    provider = OAuthClientProvider(url, about, Storage(), redirect, answer)
    async with (
        create_mcp_http_client(auth=provider) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        result = await session.call_tool("s__echo", {"text": "x"})
        assert not result.is_error
    assert len(site.issued) == 1
