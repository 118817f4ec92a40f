"""One authorization among several callers: what a late, or an impatient, one changes for the others."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from support.authorization import ProtectedServer

from mcp_manager import AuthConfig, MemoryTokenStore, RedirectHandler
from mcp_manager.auth import Challenge
from mcp_manager.auth.oauth.authorizations import Authorizations


def authorizations(session: aiohttp.ClientSession, handler: RedirectHandler) -> Authorizations:
    return Authorizations("a", AuthConfig(type="oauth"), "client", lambda: session, MemoryTokenStore(), handler)


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
