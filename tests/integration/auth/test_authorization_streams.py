"""OAuth where requests are no plain calls: event streams that stand open, several challenges, several servers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from support.authorization import ProtectedServer, authorized, oauth
from support.transports import http_transport

from mcp_manager import AuthConfig, AuthError, McpManager, MemoryTokenStore
from mcp_manager._core.http_message import Exchange
from mcp_manager.auth.oauth.authorizations import OAuthAuthorizations
from mcp_manager.transports.http.connections.pool import HttpPool


@pytest.mark.parametrize(
    "others", [('Basic realm="x"',), ("Negotiate", 'Basic realm="x", charset="UTF-8"'), ("= odd",)]
)
async def test_the_challenge_that_matters_is_found_among_several_header_fields(others: tuple[str, ...]) -> None:
    with ProtectedServer(other_challenges=others, scope_needed="read") as server:
        async with authorized(server) as manager:
            await manager.call_tool("a", "echo", {})
        assert [each.query["scope"] for each in server.to("/authorize")] == ["read"]


@pytest.mark.parametrize("kind", [{}, {"token_type": "DPoP", "nonce": "n"}])
async def test_the_stream_of_http_sse_is_authorized(kind: dict[str, Any]) -> None:
    with ProtectedServer(has_stream=True, speaks_sse=True, **kind) as server:
        async with McpManager(redirect_handler=server.agree) as manager:
            config = oauth(dpop=bool(kind))
            await manager.deploy("a", {"url": server.url, "transport": "sse", **config})
            await manager.call_tool("a", "echo", {})
        assert len(server.to("/authorize")) == 1


async def test_a_standing_stream_that_is_refused_is_authorized_and_opened_again() -> None:
    with ProtectedServer(has_stream=True) as server:
        async with authorized(server) as manager:
            await manager.call_tool("a", "echo", {})
            await server.wait_until(lambda: len(server.streams_opened) == 1)
            server.valid.clear()
            server.end_streams()
            await server.wait_until(lambda: len(server.streams_opened) == 2)
        assert len(set(server.streams_opened)) == 2
        assert len(server.to("/authorize")) == 2


async def test_a_late_refusal_of_a_token_that_was_replaced_is_no_refusal_of_the_next() -> None:
    with ProtectedServer() as server:
        async with McpManager(redirect_handler=server.agree) as manager:
            await manager.deploy("a", {"url": server.url, **oauth()})
            # Two connections, so that the next two calls go out at once.
            late = asyncio.create_task(manager.call_tool("a", "echo", {"late": True}))
            await server.wait_until(lambda: server.late == 1)
            await manager.call_tool("a", "echo", {})
            server.release()
            await late
            server.valid.clear()
            late = asyncio.create_task(manager.call_tool("a", "echo", {"late": True}))
            await server.wait_until(lambda: server.late == 1)
            await manager.call_tool("a", "echo", {})
            assert len(server.to("/authorize")) == 2
            server.release()
            await server.wait_until(lambda: server.late == 1)
            server.release()
            assert (await late).text == "done"
        # Sent again with the token that is there: the user is not asked for a third one.
        assert len(server.to("/authorize")) == 2


async def test_one_request_asks_the_user_once_for_a_token_that_is_refused() -> None:
    with ProtectedServer(refuses_all=True) as server:
        async with authorized(server) as manager:
            with pytest.raises(AuthError):
                await manager.call_tool("a", "echo", {})
        assert len(server.to("/authorize")) == 1


async def test_of_several_authorization_servers_the_clients_own_is_asked() -> None:
    with ProtectedServer() as server:
        server.more_issuers = (f"{server.origin}/as2",)
        async with authorized(server, client_id="c", issuer=f"{server.origin}/as1") as manager:
            await manager.call_tool("a", "echo", {})
        assert len(server.to("/as1/authorize")) == 1
        assert server.to("/as2/authorize") == []


class DumbStore(MemoryTokenStore):
    async def save(self, key: str, record: bytes | None) -> None:
        raise OSError("disk full")


async def test_a_token_that_cannot_be_kept_is_used_even_so(caplog: pytest.LogCaptureFixture) -> None:
    with ProtectedServer() as server:
        async with authorized(server, token_store=DumbStore()) as manager:
            await manager.call_tool("a", "echo", {})
    assert "is not stored (OSError)" in caplog.text
    assert "sentinel" not in caplog.text


async def test_a_kept_token_is_not_another_users() -> None:
    store = MemoryTokenStore()
    with ProtectedServer() as server:
        for assertion in ("one", "two"):
            async with authorized(
                server, token_store=store, grant="jwt_bearer", client_id="w", assertion=assertion
            ) as manager:
                await manager.call_tool("a", "echo", {})
        assert [each.form["assertion"] for each in server.to("/token")] == ["one", "two"]


async def test_what_another_process_has_renewed_is_taken_and_its_refresh_token_not_used_twice() -> None:
    store = MemoryTokenStore()
    with ProtectedServer(gives_refresh=True) as server:
        async with contextlib.AsyncExitStack() as stack:
            managers = [
                await stack.enter_async_context(McpManager(token_store=store, redirect_handler=server.agree))
                for _ in range(2)
            ]
            for manager in managers:
                await manager.deploy("a", {"url": server.url, **oauth()})
                await manager.call_tool("a", "echo", {})
            server.valid.clear()
            for manager in managers:
                await manager.call_tool("a", "echo", {})
        assert [each.form["grant_type"] for each in server.to("/token")] == ["authorization_code", "refresh_token"]


@pytest.mark.parametrize(("status", "code", "asked", "registered"), [(429, "x", 1, 1), (400, "invalid_client", 2, 2)])
async def test_what_a_refused_renewal_costs(status: int, code: str, asked: int, registered: int) -> None:
    with ProtectedServer(gives_refresh=True) as server:

        async def agree(url: str) -> str:
            server.token_status = 200
            return await server.agree(url)

        async with authorized(server, agree) as manager:
            await manager.call_tool("a", "echo", {})
            server.valid.clear()
            server.token_status, server.token_error = status, code
            with contextlib.suppress(AuthError):
                await manager.call_tool("a", "echo", {})
        assert (len(server.to("/authorize")), len(server.to("/register"))) == (asked, registered)


async def test_a_request_whose_stream_lasts_has_a_proof_of_its_own() -> None:
    with ProtectedServer(token_type="DPoP", nonce="n") as server:
        pool = HttpPool()
        auth = AuthConfig(type="oauth", dpop=True)
        authorizations = OAuthAuthorizations(
            "a", auth, "client", lambda: pool.clients.shared, MemoryTokenStore(), server.agree
        )
        transport = http_transport(pool, server.url, authorizations.of(server.url))
        try:
            frame = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
            reply = await transport.exchange_lasting(Exchange(frame, 1, 0))
            assert reply.id == 1
        finally:
            await transport.aclose(0.0)
            await authorizations.aclose()
            await pool.aclose()
        proofs = [each.headers["dpop"] for each in server.to("/mcp") if "dpop" in each.headers]
        assert len(set(proofs)) == len(proofs) == 2
