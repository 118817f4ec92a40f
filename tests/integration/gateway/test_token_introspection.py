"""Clients with tokens that their authorization server is asked about (RFC 7662)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from support.calls import eventually
from support.questioning import StatelessClient
from support.session_clients import SessionClient
from support.token_issuer import AUDIENCE, Request, TokenIssuer

from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway import Gateway
from mcp_manager.gateway.security import introspection, leases
from mcp_manager.gateway.security.authentication import Authentication, Denial
from mcp_manager.gateway.security.principal import Principal

pytestmark = pytest.mark.both_loops

SECRET = "a secret:of the gateway%"


@pytest.fixture
async def issuer() -> AsyncIterator[TokenIssuer]:
    async with TokenIssuer() as issuer:
        issuer.answers["good"] = {"active": True, "sub": "alice", "scope": "a b", "aud": AUDIENCE}
        yield issuer


@pytest.fixture
async def authentication(issuer: TokenIssuer) -> AsyncIterator[Authentication]:
    made = of_issuer(issuer)
    yield made
    await made.aclose()


def of_issuer(server: TokenIssuer, **fields: Any) -> Authentication:
    usual = {"issuer": server.origin, "audience": (AUDIENCE,), "client_id": "gate way", "client_secret": SECRET}
    return Authentication(ClientAuthConfig(type="introspection", **{**usual, **fields}))  # type: ignore[arg-type]


async def shown(authentication: Authentication, token: str) -> Principal | Denial:
    found = authentication.of(Request.bearing(token))
    return await found if isinstance(found, Awaitable) else found


async def test_a_token_is_looked_up_once_while_the_answer_holds(
    issuer: TokenIssuer, authentication: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    await authentication.start()
    issuer.is_open.clear()
    waiting = [asyncio.ensure_future(shown(authentication, "good")) for _ in range(10)]
    while not issuer.waiting:
        await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    issuer.is_open.set()
    found = await asyncio.gather(*waiting[1:])
    principal = found[0]
    assert isinstance(principal, Principal)
    assert principal.name == f"{issuer.origin}#alice"
    assert principal.scopes == {"a", "b"}
    assert "active" not in principal.claims
    assert all(each is principal for each in found)
    assert authentication.of(Request.bearing("good")) is principal
    assert issuer.forms == [{"token": "good", "token_type_hint": "access_token"}]
    assert issuer.authorized == ["gate%20way:a%20secret%3Aof%20the%20gateway%25"]
    # A minute later it is asked again, and the principal stays the same while the answer does.
    later = time.time() + 61
    monkeypatch.setattr("mcp_manager.gateway.security.authentication.time", lambda: later)
    assert await shown(authentication, "good") is principal
    assert len(issuer.forms) == 2
    issuer.answers["good"] = {**issuer.answers["good"], "scope": "a"}
    later += 61
    renewed = await shown(authentication, "good")
    assert isinstance(renewed, Principal)
    assert renewed.scopes == {"a"}
    issuer.answers["good"] = {"active": False}
    later += 61
    assert isinstance(await shown(authentication, "good"), Denial)


async def test_answers_are_judged_as_claims_of_tokens_are(issuer: TokenIssuer, authentication: Authentication) -> None:
    now = int(time.time())
    good = issuer.answers["good"]
    refused: dict[str, Any] = {
        "not active": {"active": False},
        "expired": {**good, "exp": now - 31},
        "not valid yet": {**good, "nbf": now + 40},
        "issuer of the token is not accepted": {**good, "iss": "https://evil.example.com"},
        "for another audience": {**good, "aud": "https://other.example.com"},
        "claim sub": {**good, "sub": 7},
        "bound to a key": {**good, "cnf": {"jkt": "x"}},
    }
    for words, answer in refused.items():
        token = words.replace(" ", "-")
        issuer.answers[token] = answer
        found = await shown(authentication, token)
        assert isinstance(found, Denial)
        assert (found.status, words in found.reason) == (401, True), found
        # Not asked again at once.
        count = len(issuer.forms)
        assert isinstance(authentication.of(Request.bearing(token)), Denial)
        assert len(issuer.forms) == count
    issuer.answers["none"] = {name: value for name, value in good.items() if name != "aud"}
    assert isinstance(await shown(authentication, "none"), Denial)
    issuer.answers["long"] = {**good, "exp": now + 100, "iss": issuer.origin, "aud": [AUDIENCE]}
    found = await shown(authentication, "long")
    assert isinstance(found, Principal)
    assert found.expires_at == now + 130
    # What no token can be is not asked about.
    count = len(issuer.forms)
    for garbage in ("a b", 'x"', "a" * 9_000):
        assert isinstance(authentication.of(Request.bearing(garbage)), Denial)
    assert len(issuer.forms) == count


@pytest.mark.parametrize("answer", [None, [], {}, {"active": "true"}, {"active": 1}, {"error": "invalid_client"}])
async def test_what_is_no_answer_says_nothing_about_the_token(issuer: TokenIssuer, answer: Any) -> None:
    issuer.answers["good"] = answer
    authentication = of_issuer(issuer)
    try:
        found = await shown(authentication, "good")
        assert isinstance(found, Denial)
        assert found.status == 503
    finally:
        await authentication.aclose()


async def test_the_issuer_is_down(
    issuer: TokenIssuer, authentication: Authentication, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.status = 401
    found = await shown(authentication, "good")
    assert isinstance(found, Denial)
    assert (found.status, found.fields) == (503, b"Retry-After: 2\r\n")
    count = issuer.seen.total()
    assert isinstance(authentication.of(Request.bearing("other")), Denial)
    assert issuer.seen.total() == count
    assert SECRET not in caplog.text
    assert "good" not in caplog.text
    assert "cannot look up tokens" in caplog.text
    tokens: Any = authentication._tokens
    tokens._down_until = 0.0
    tokens._refused.clear()
    issuer.status = 200
    assert isinstance(await shown(authentication, "good"), Principal)


async def test_a_token_that_the_issuer_chokes_on_keeps_no_other_out(
    issuer: TokenIssuer, authentication: Authentication
) -> None:
    for status in (400, 404, 413):
        issuer.answers[f"odd{status}"] = status
        found = await shown(authentication, f"odd{status}")
        assert isinstance(found, Denial)
        assert found.status == 503
        issuer.answers[f"fine{status}"] = issuer.answers["good"]
        assert isinstance(await shown(authentication, f"fine{status}"), Principal)


async def test_look_ups_at_a_time_are_bounded(
    issuer: TokenIssuer, authentication: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introspection, "_MOST_PENDING", 40)
    monkeypatch.setattr(introspection, "_MOST_REFUSED", 10)
    issuer.is_open.clear()
    waiting = [asyncio.ensure_future(shown(authentication, f"t{number}")) for number in range(40)]
    while issuer.waiting < 16:
        await asyncio.sleep(0)
    busy = authentication.of(Request.bearing("one-more"))
    assert isinstance(busy, Denial)
    assert busy.status == 503
    issuer.is_open.set()
    found = await asyncio.gather(*waiting)
    assert {each.status for each in found if isinstance(each, Denial)} == {401}
    assert issuer.most_waiting <= 17
    assert len(authentication._tokens._refused) == 10  # type: ignore[union-attr]


async def test_end_while_tokens_are_looked_up(issuer: TokenIssuer, authentication: Authentication) -> None:
    issuer.is_open.clear()
    waiting = asyncio.ensure_future(shown(authentication, "good"))
    while not issuer.waiting:
        await asyncio.sleep(0)
    await authentication.aclose()
    found = await waiting
    assert isinstance(found, Denial)
    assert found.status == 503


async def test_without_a_cache_each_request_is_looked_up(issuer: TokenIssuer) -> None:
    authentication = of_issuer(
        issuer, cache_s=0.0, audience=(), issuer=None, introspection_endpoint=f"{issuer.origin}/introspect"
    )
    try:
        for _ in range(2):
            found = await shown(authentication, "good")
            assert isinstance(found, Principal)
            assert found.name == f"{issuer.origin}#alice"
        assert len(issuer.forms) == 2
        assert authentication.metadata.document("/.well-known/oauth-protected-resource/mcp", b"h") is None
    finally:
        await authentication.aclose()


async def test_streams_end_when_their_token_is_revoked(issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_LOOK_EVERY_S", 0.02)
    good = issuer.answers["good"]
    issuer.answers |= {"other": {**good, "sub": "bob"}, "fewer": {**good, "sub": "carol", "groups": ["staff"]}}
    auth = {
        "type": "introspection",
        "issuer": issuer.origin,
        "audience": [AUDIENCE],
        "client_id": "gate way",
        "client_secret": SECRET,
        "cache_s": 0.05,
    }
    allow = [{"claims": {"sub": ["alice", "bob"]}}, {"claims": {"groups": "staff"}}]
    serve = {"listen": "127.0.0.1:0", "auth": auth, "allow": allow, "legacy_sse": True}
    async with Gateway({"servers": {}}, serve=serve) as gateway, AsyncExitStack() as stack:
        https = {
            token: await stack.enter_async_context(
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}, timeout=aiohttp.ClientTimeout(10))
            )
            for token in issuer.answers
        }
        clients = {token: await SessionClient(http, f"{gateway.url}/mcp").begin({}) for token, http in https.items()}
        standing = {token: await client.get() for token, client in clients.items()}
        wanted = {"notifications": {"toolsListChanged": True}}
        listening = await stack.enter_async_context(
            StatelessClient(https["good"], f"{gateway.url}/mcp").post("subscriptions/listen", wanted)
        )
        sse = await stack.enter_async_context(https["good"].get(f"{gateway.url}/sse"))
        assert {each.status for each in (*standing.values(), listening, sse)} == {200}
        # Asked again and again, the streams of all of them stay.
        count = len(issuer.forms)
        await eventually(lambda: len(issuer.forms) > count + 6, "tokens are looked up again")
        assert len(gateway._security.leases) == 5
        # A token that is revoked, and one that allows less than before.
        issuer.answers["good"] = {"active": False}
        issuer.answers["fewer"] = {**issuer.answers["fewer"], "groups": []}
        for each in (standing["good"], standing["fewer"], listening, sse):
            await each.content.read()
        # The authorization server is down: nobody can say that the third token is not active.
        issuer.status = 503
        count = issuer.seen.total()
        monkeypatch.setattr(introspection, "_DOWN_S", 0.0)
        await eventually(lambda: issuer.seen.total() > count + 1, "the token is looked up again")
        assert not standing["other"].content.at_eof()
        # But not for long.
        monkeypatch.setattr(introspection, "_UNANSWERED_S", 0.1)
        await standing["other"].content.read()
        assert len(gateway._security.leases) == 0
