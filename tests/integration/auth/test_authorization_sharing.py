"""One authorization among several callers: what a late, or an impatient, one changes for the others."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from support.authorization import ProtectedServer

from mcp_manager import AuthConfig, MemoryTokenStore, RedirectHandler
from mcp_manager.auth import Challenge
from mcp_manager.auth.oauth import flow
from mcp_manager.auth.oauth.authorizations import OAuthAuthorizations


def authorizations(session: aiohttp.ClientSession, handler: RedirectHandler) -> OAuthAuthorizations:
    return OAuthAuthorizations("a", AuthConfig(type="oauth"), "client", lambda: session, MemoryTokenStore(), handler)


async def test_a_late_refusal_of_an_old_token_obtains_nothing() -> None:
    with ProtectedServer() as server:
        async with aiohttp.ClientSession() as session:
            authorization = authorizations(session, server.agree).of(server.url)
            sent_with = authorization.generation
            assert await authorization.challenged(Challenge(401), sent_with)
            assert await authorization.challenged(Challenge(401), sent_with)
            await authorization.aclose()
        assert len(server.to("/authorize")) == 1


async def test_who_gives_up_waiting_does_not_end_the_flow() -> None:
    asked, agreed = asyncio.Event(), asyncio.Event()
    with ProtectedServer() as server:

        async def slowly(url: str) -> str:
            answer = await server.agree(url)
            asked.set()
            await agreed.wait()
            return answer

        async with aiohttp.ClientSession() as session:
            authorization = authorizations(session, slowly).of(server.url)
            first, second = (asyncio.create_task(authorization.challenged(Challenge(401), 0)) for _ in range(2))
            await asked.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            agreed.set()
            assert await second
            await authorization.aclose()
        assert len(server.to("/authorize")) == 1


async def test_a_renewal_under_way_that_is_refused_does_not_end_what_a_user_would_allow() -> None:
    with ProtectedServer(gives_refresh=True) as server:

        async def agree(url: str) -> str:
            server.token_status = 200
            return await server.agree(url)

        async with aiohttp.ClientSession() as session:
            authorization = authorizations(session, agree).of(server.url)
            assert await authorization.challenged(Challenge(401), 0)
            server.token_status = 400
            authorization._renew_soon()
            assert await authorization.challenged(Challenge(401), authorization.generation)
            await authorization.aclose()
        assert len(server.to("/authorize")) == 2


async def test_a_renewal_that_fails_is_tried_again_while_the_token_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_RENEW_SHARE", 0.99)
    monkeypatch.setattr(flow, "_FIRST_HOLD_OFF_S", 0.05)
    renewed = asyncio.Event()
    with ProtectedServer(gives_refresh=True, lifetime_s=30.0) as server:
        async with aiohttp.ClientSession() as session:
            authorization = authorizations(session, server.agree).of(server.url)
            assert await authorization.challenged(Challenge(401), 0)
            server.token_status = 503
            await server.wait_for("/token", 3)
            authorization.subscribe(renewed.set)
            server.token_status = 200
            await asyncio.wait_for(renewed.wait(), 20)
            await authorization.aclose()
        assert len(server.to("/authorize")) == 1


async def test_a_token_that_lives_for_a_moment_is_not_renewed_without_pause() -> None:
    with ProtectedServer(gives_refresh=True, lifetime_s=0.2) as server:
        async with aiohttp.ClientSession() as session:
            authorization = authorizations(session, server.agree).of(server.url)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await authorization.challenged(Challenge(401), 0)
            await server.wait_for("/token", 4)
            await authorization.aclose()
            assert loop.time() - began >= 3 * flow._SHORTEST_RENEWAL_S
