"""Clients with JWT access tokens: which tokens are accepted, and what is fetched of their issuer, how often."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import msgspec
import pytest
from joserfc.jwk import OctKey
from support.token_issuer import AUDIENCE, ISSUED, Request, TokenIssuer, made_key

from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.security import authentication as authentication_module
from mcp_manager.gateway.security import issuer_keys
from mcp_manager.gateway.security.authentication import Authentication, Denial
from mcp_manager.gateway.security.principal import Principal

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def issuer() -> AsyncIterator[TokenIssuer]:
    async with TokenIssuer() as issuer:
        issuer.keys["one"] = made_key("ES256")
        yield issuer


@pytest.fixture
async def authentication(issuer: TokenIssuer) -> AsyncIterator[Authentication]:
    made = of_issuer(issuer)
    yield made
    await made.aclose()


def of_issuer(issuer: TokenIssuer, **fields: Any) -> Authentication:
    return Authentication(ClientAuthConfig(type="jwt", issuer=issuer.origin, **{"audience": (AUDIENCE,), **fields}))


async def shown(authentication: Authentication, request: Request | str) -> Principal | Denial:
    found = authentication.of(Request.bearing(request) if isinstance(request, str) else request)
    return await found if isinstance(found, Awaitable) else found


async def reason(authentication: Authentication, token: str) -> str:
    found = await shown(authentication, token)
    assert isinstance(found, Denial), found
    return found.reason


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_tokens_of_each_algorithm_are_accepted(issuer: TokenIssuer, authentication: Authentication) -> None:
    for algorithm in ISSUED:
        issuer.keys[algorithm] = made_key(algorithm)
    for algorithm in ISSUED:
        token = issuer.token(algorithm, algorithm, scope="read write", groups=["support"])
        principal = await shown(authentication, token)
        assert isinstance(principal, Principal), (algorithm, principal)
        assert principal.name == f"{issuer.origin}#alice"
        assert principal.scopes == {"read", "write"}
        assert principal.claims["groups"] == ["support"]
        assert principal.credential == token
        assert token not in repr(principal)
        # The same object, and nothing is fetched or awaited.
        assert authentication.of(Request.bearing(token)) is principal
    assert issuer.seen["/keys"] == 1


async def test_tokens_that_are_refused(issuer: TokenIssuer, authentication: Authentication) -> None:
    now = int(time.time())
    good = issuer.token("one")
    await shown(authentication, good)
    head, body, signature = good.split(".")
    other = TokenIssuer()
    other.origin, other.keys = issuer.origin, {"one": made_key("ES256")}
    stolen = OctKey.import_key(json.dumps(issuer.keys["one"].as_dict(private=False)).encode())
    issuer.keys["oct"] = stolen
    forged = issuer.token("oct", "HS256", {"kid": "one"})
    del issuer.keys["oct"]
    cases = {
        "not a signed JWT": ["x.y", "a.b.c.d.e", "..", f"{head}.{body}.{signature}.", f"{part([])}.{body}.{signature}"],
        "signature of the token is invalid": [
            other.token("one"),
            f"{head}.{body}.",
            f"{head}.{body}.AAAA",
            f"{head}.{part({'iss': issuer.origin, 'aud': AUDIENCE, 'sub': 'bob', 'exp': now + 9})}.{signature}",
        ],
        "algorithm": [
            forged,
            f"{part({'alg': 'none'})}.{body}.",
            f"{part({'alg': 5})}.{body}.{signature}",
            f"{part({'alg': 'ES512', 'kid': 'one'})}.{body}.{signature}",
        ],
        "key that the issuer does not publish": [
            issuer.token("one", header={"kid": "two"}),
            f"{part({'alg': 'RS256', 'kid': 'one'})}.{body}.{signature}",
        ],
        "critical": [issuer.token("one", header={"crit": ["x"], "x": 1}), issuer.token("one", header={"b64": True})],
        "not an access token": [
            issuer.token("one", header={"typ": "id+jwt"}),
            issuer.token("one", header={"typ": "dpop+jwt"}),
            issuer.token("one", header={"typ": "JWT"}, at_hash="x"),
            issuer.token("one", header={"typ": None}, token_use="id"),
            issuer.token("one", header={"typ": None}, typ="Refresh"),
            issuer.token("one", header={"typ": "JWT"}, events={}),
        ],
        "expired": [issuer.token("one", exp=now - 31), issuer.token("one", exp=-5)],
        "not valid yet": [issuer.token("one", nbf=now + 40)],
        "issued in the future": [issuer.token("one", iat=now + 40)],
        "has no expiry time": [issuer.token("one", exp=None)],
        "a time that is not a number": [
            issuer.token("one", exp="soon"),
            issuer.token("one", nbf=True),
            issuer.token("one", iat=[]),
            issuer.token("one", exp=10**400),
            issuer.token("one", nbf=-(10**400)),
            issuer.token("one", exp=(now + 600) * 1000),
        ],
        "issuer of the token is not accepted": [
            issuer.token("one", iss="https://evil.example.com"),
            issuer.token("one", iss=None),
        ],
        "for another audience": [
            issuer.token("one", aud="https://other.example.com/mcp"),
            issuer.token("one", aud=None),
            issuer.token("one", aud=[]),
            issuer.token("one", aud={"a": AUDIENCE}),
            issuer.token("one", aud=AUDIENCE + "/x"),
        ],
        "claim sub": [
            issuer.token("one", sub=None),
            issuer.token("one", sub=7),
            issuer.token("one", sub=""),
            issuer.token("one", sub="a\nb"),
            issuer.token("one", sub="a" * 600),
        ],
        "bound to a key": [issuer.token("one", cnf={"jkt": "x"})],
        "characters": ["a b", 'a"b', "a%b"],
        "too long": ["a" * 16_385],
    }
    for words, tokens in cases.items():
        for token in tokens:
            assert words in await reason(authentication, token), (words, token)
    assert "several tokens" in await reason(authentication, f"{good}, Bearer {good}")
    assert issuer.seen["/keys"] == 1
    for fine in (
        issuer.token("one", exp=now - 20, nbf=now + 20, iat=now + 20),
        issuer.token("one", header={"typ": None, "kid": None}),
        issuer.token("one", header={"typ": "application/at+JWT"}),
        issuer.token("one", header={"typ": "JWT"}, nonce="n"),
        issuer.token("one", aud=["x", AUDIENCE]),
        issuer.token("one", exp=now + 10.5),
    ):
        assert isinstance(await shown(authentication, fine), Principal), fine


async def test_unusable_keys_are_left_out(issuer: TokenIssuer, authentication: Authentication) -> None:
    public = issuer.keys["one"].as_dict(private=False)
    issuer.published = [
        {"kty": "oct", "k": "AAAA", "kid": "one"},
        {**public, "kid": "one", "use": "enc"},
        {**public, "kid": "one", "key_ops": ["encrypt"]},
        {**public, "kid": ["one"]},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "one"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "one"},
        {"kty": "EC", "crv": ["P-256"], "kid": "one"},
        {"kty": "new"},
        "text",  # type: ignore[list-item]
    ]
    found = await shown(authentication, issuer.token("one"))
    assert isinstance(found, Denial)
    assert found.status == 503
    assert b"Retry-After: " in found.fields
    assert b"WWW-Authenticate" not in found.fields


async def test_keys_rotate_and_are_fetched_once_for_all_who_wait(
    issuer: TokenIssuer, authentication: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    await authentication.start()
    await shown(authentication, issuer.token("one"))
    issuer.keys["two"] = made_key("ES256")
    token = issuer.token("two")
    # A moment after the last time, nobody is asked: made-up keys must be cheap.
    assert "does not publish" in await reason(authentication, token)
    assert issuer.seen["/keys"] == 1
    # As if it were longer ago.
    keys = authentication._tokens._keys  # type: ignore[union-attr]
    keys._next_at = 0.0
    issuer.is_open.clear()
    waiting = [asyncio.ensure_future(shown(authentication, token)) for _ in range(20)]
    while issuer.seen["/keys"] < 2:
        await asyncio.sleep(0)
    # Whoever began it goes: the others are not disturbed.
    for each in waiting[:3]:
        each.cancel()
    await asyncio.wait(waiting[:3])
    assert all(each.cancelled() for each in waiting[:3])
    issuer.is_open.set()
    found = await asyncio.gather(*waiting[3:])
    assert {type(each) for each in found} == {Principal}
    assert issuer.seen["/keys"] == 2
    # What the issuer has withdrawn goes once the keys are old.
    del issuer.keys["one"]
    gone = TokenIssuer()
    gone.origin, gone.keys = issuer.origin, {"one": made_key("ES256")}
    keys._next_at = keys._stale_at = 0.0
    await shown(authentication, issuer.token("two", jti="a"))
    fetching = keys._fetching
    assert fetching is not None
    await asyncio.wait({fetching})
    assert "does not publish" in await reason(authentication, gone.token("one"))
    assert issuer.seen["/keys"] == 3


async def test_keys_are_kept_while_the_issuer_is_down(issuer: TokenIssuer, authentication: Authentication) -> None:
    token = issuer.token("one")
    issuer.status = 500
    found = await shown(authentication, token)
    assert isinstance(found, Denial)
    assert (found.status, found.fields) == (503, b"Retry-After: 5\r\n")
    # Not asked again at once.
    count = issuer.seen.total()
    assert isinstance(authentication.of(Request.bearing(token)), Denial)
    assert issuer.seen.total() == count
    keys = authentication._tokens._keys  # type: ignore[union-attr]
    keys._next_at = 0.0
    issuer.status = 200
    assert isinstance(await shown(authentication, token), Principal)
    issuer.status = 500
    keys._next_at = keys._stale_at = 0.0
    assert isinstance(authentication.of(Request.bearing(issuer.token("one", jti="b"))), Principal)
    assert keys._fetching is not None
    await asyncio.wait({keys._fetching})
    assert isinstance(authentication.of(Request.bearing(issuer.token("one", jti="c"))), Principal)
    # With an unknown key, the token may well be good: that cannot be told now.
    found = await shown(authentication, issuer.token("one", header={"kid": "new"}))
    assert isinstance(found, Denial)
    assert found.status == 503


async def test_a_key_that_the_issuer_withdraws_ends_what_it_has_signed(
    issuer: TokenIssuer, authentication: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token("one")
    principal = await shown(authentication, token)
    assert isinstance(principal, Principal)
    issuer.keys = {"two": made_key("ES256")}
    keys = authentication._tokens._keys  # type: ignore[union-attr]
    keys._next_at = keys._stale_at = 0.0
    # A stream that stands asks nobody, but sees to it that the keys are fetched again.
    assert authentication.is_current(principal)
    fetching = keys._fetching
    assert fetching is not None
    await asyncio.wait({fetching})
    assert not authentication.is_current(principal)
    # Nor is the token, which is known, accepted for the rest of its time.
    monkeypatch.setattr(authentication_module, "time", lambda: time.time() + 61)
    assert "does not publish" in await reason(authentication, token)


@pytest.mark.parametrize(
    ("metadata", "redirect"),
    [
        ({"issuer": "https://other.example.com"}, ""),
        ({"jwks_uri": None}, ""),
        ({"jwks_uri": "http://keys.example.com/"}, ""),
        ({"jwks_uri": "file:///etc/passwd"}, ""),
        ({}, "http://169.254.169.254/latest"),
        ({}, "/keys"),
    ],
)
async def test_documents_of_the_issuer_are_checked(
    issuer: TokenIssuer, metadata: dict[str, Any], redirect: str
) -> None:
    issuer.metadata = metadata
    if redirect:
        issuer.redirects["/keys"] = redirect
    authentication = of_issuer(issuer)
    try:
        found = await shown(authentication, issuer.token("one"))
        assert isinstance(found, Denial)
        assert found.status == 503
    finally:
        await authentication.aclose()


async def test_scopes_that_every_token_needs(issuer: TokenIssuer) -> None:
    authentication = of_issuer(issuer, scopes=("mcp:use", "mcp:read"))
    try:
        found = await shown(authentication, issuer.token("one", scope="mcp:use other"))
        assert isinstance(found, Denial)
        assert found.status == 403
        challenge = found.fields.decode()
        assert 'error="insufficient_scope"' in challenge
        assert 'scope="mcp:use mcp:read"' in challenge
        assert 'resource_metadata="http://127.0.0.1:1/.well-known/oauth-protected-resource/mcp"' in challenge
        for claims in ({"scope": "mcp:read mcp:use"}, {"scp": ["mcp:use", "mcp:read"]}, {"scp": "mcp:use mcp:read"}):
            assert isinstance(await shown(authentication, issuer.token("one", **claims)), Principal), claims
    finally:
        await authentication.aclose()


async def test_a_token_for_one_endpoint_is_for_no_other(issuer: TokenIssuer) -> None:
    authentication = of_issuer(issuer, audience=(), resource="https://gateway.example.com/base")
    try:
        narrow = issuer.token("one", aud=["https://gateway.example.com/base/mcp/support"])
        wide = issuer.token("one", aud="https://gateway.example.com/base")
        above = issuer.token("one", aud="https://gateway.example.com/")
        for _ in range(2):
            assert isinstance(await shown(authentication, Request.bearing(narrow, "/mcp/support")), Principal)
            found = await shown(authentication, Request.bearing(narrow, "/mcp"))
            assert isinstance(found, Denial)
            assert found.status == 401
            assert isinstance(await shown(authentication, Request.bearing(wide, "/servers/a/mcp")), Principal)
            assert isinstance(await shown(authentication, above), Denial)
            assert isinstance(await shown(authentication, Request.bearing(narrow, "/messages")), Denial)
            old = issuer.token("one", aud="https://gateway.example.com/base/servers/a/sse")
            for path, kind in (("/servers/a/sse", Principal), ("/messages", Principal), ("/servers/a/mcp", Denial)):
                assert isinstance(await shown(authentication, Request.bearing(old, path)), kind), path
        document = msgspec.json.decode(
            authentication.metadata.document("/.well-known/oauth-protected-resource/base/mcp/support", None) or b""
        )
        assert document["resource"] == "https://gateway.example.com/base/mcp/support"
        assert document["authorization_servers"] == [issuer.origin]
        assert document["bearer_methods_supported"] == ["header"]
    finally:
        await authentication.aclose()


async def test_names_of_principals_are_unambiguous(issuer: TokenIssuer) -> None:
    authentication = of_issuer(issuer, principal_claim="email")
    try:
        for email, name in (("a#b", "a%23b"), ("a%23b", "a%2523b"), ("a@b.c", "a@b.c")):
            found = await shown(authentication, issuer.token("one", email=email))
            assert isinstance(found, Principal)
            assert found.name == f"{issuer.origin}#{name}"
    finally:
        await authentication.aclose()


async def test_end_while_keys_are_fetched(issuer: TokenIssuer) -> None:
    authentication = of_issuer(issuer)
    issuer.is_open.clear()
    await authentication.start()
    waiting = asyncio.ensure_future(shown(authentication, issuer.token("one")))
    while not issuer.waiting:
        await asyncio.sleep(0)
    await authentication.aclose()
    found = await waiting
    assert isinstance(found, Denial)
    assert found.status == 503
    await authentication.aclose()


async def test_known_tokens_are_bounded(
    issuer: TokenIssuer, authentication: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_manager.gateway.security.authentication._MOST_KNOWN", 3)
    tokens = [issuer.token("one", jti=str(number)) for number in range(6)]
    for token in tokens:
        await shown(authentication, token)
    assert len(authentication._known) == 3
    for token in tokens:
        assert isinstance(await shown(authentication, token), Principal)
    assert issuer_keys.ALGORITHMS.keys() >= ISSUED.keys()
