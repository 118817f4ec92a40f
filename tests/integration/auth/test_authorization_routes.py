"""Authorization by the way that a server is reached: its private authority, its client certificate, its proxy."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.authority import Authority
from support.authorization import ProtectedServer, oauth
from support.proxy import ScriptedProxy

from mcp_manager import AuthError, McpManager

AUTH = {"grant": "client_credentials", "client_id": "me", "client_secret": "sentinel-s3cr3t"}
NAME = "127.0.0.99"


class Protected(ProtectedServer):
    """One that speaks TLS, and says that it is where only a proxy finds it."""

    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    showed_certificate: bool = False

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls is not None else 'http'}://{self.host}:{self.port}"

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        self.port = self._runner.addresses[0][1]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.showed_certificate |= bool(request.transport.get_extra_info("peercert"))
        return await super()._serve(request)


def protected(tls: ssl.SSLContext | None, host: str = "127.0.0.1") -> Protected:
    server = Protected()
    server.tls, server.host = tls, host
    return server


async def call(manager: McpManager, server: Protected, **settings: Any) -> None:
    await manager.deploy("a", {"url": server.url, **oauth(**AUTH), **settings})
    await manager.call_tool("a", "echo", {}, timeout=5)


async def test_an_authorization_server_is_trusted_and_told_who_asks(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine = authority.issue("agent")
    with protected(authority.issue("127.0.0.1").load(trusting=authority)) as server:
        async with McpManager() as manager:
            tls = {"ca_file": str(authority.ca_file), "cert_file": str(mine.certificate), "key_file": str(mine.key)}
            await call(manager, server, tls=tls)
        assert server.to("/token")
        assert server.showed_certificate


async def test_an_authorization_server_elsewhere_is_trusted_and_not_shown_the_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine = authority.issue("agent")
    asking = authority.issue("127.0.0.1").load(trusting=authority)
    asking.verify_mode = ssl.CERT_OPTIONAL
    with protected(asking) as elsewhere, protected(authority.issue("127.0.0.1").load()) as server:
        server.resource = {"authorization_servers": [f"{elsewhere.origin}/as1"]}
        server.valid = elsewhere.valid
        async with McpManager() as manager:
            tls = {"ca_file": str(authority.ca_file), "cert_file": str(mine.certificate), "key_file": str(mine.key)}
            await call(manager, server, tls=tls)
        assert elsewhere.to("/token")
        assert not elsewhere.showed_certificate


async def test_an_authorization_server_that_is_not_trusted_is_told_why(tmp_path: Path) -> None:
    trusted, other = Authority(tmp_path), Authority(tmp_path, "Another Authority")
    with (
        protected(other.issue("127.0.0.1").load()) as elsewhere,
        protected(trusted.issue("127.0.0.1").load()) as server,
    ):
        server.resource = {"authorization_servers": [f"{elsewhere.origin}/as1"]}
        async with McpManager() as manager:
            with pytest.raises(AuthError, match=r"signed by an unknown authority \(CN=Another Authority\)") as caught:
                await call(manager, server, tls={"ca_file": str(trusted.ca_file)})
        assert "tls.ca_file" in caught.value.hint
        assert elsewhere.seen == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_authorization_goes_through_the_proxy(tmp_path: Path, scheme: str) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue(NAME).load() if scheme == "https" else None
    with protected(tls, NAME) as server, ScriptedProxy(hosts={NAME: "127.0.0.1"}, credentials="user:word") as proxy:
        async with McpManager() as manager:
            settings = {"tls": {"ca_file": str(authority.ca_file)}, "proxy": proxy.with_credentials("user:word")}
            await call(manager, server, **settings)
        assert server.to("/token")
        assert all("proxy-authorization" not in each.headers for each in server.seen)
        assert len(proxy.requests) > 1
