"""Clients with tokens of several authorization servers, whose certificates are of a private authority."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.certificates import make_context
from support.token_issuer import AUDIENCE, Request, TokenIssuer, made_key

from mcp_manager import ConfigError
from mcp_manager.config.access import AllowConfig, ClientAuthConfig
from mcp_manager.config.gateway_tables import serve_config_of
from mcp_manager.gateway.security.authentication import Authentication, Denial
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.rules import Rules

OTHER_AUDIENCE = "https://gateway.example.com/other"


class World:
    """Two authorization servers over TLS with certificates of their own authorities."""

    def __init__(self, one: TokenIssuer, two: TokenIssuer, authorities: list[Path]) -> None:
        self.one = one
        self.two = two
        self.authorities = authorities

    def auth(self, **fields: Any) -> ClientAuthConfig:
        """A configuration that accepts tokens of both."""
        issuers = [
            {
                "issuer": self.two.origin,
                "ca_file": str(self.authorities[1]),
                "audience": [OTHER_AUDIENCE],
                "principal_claim": "name",
                "algorithms": ["EdDSA"],
            }
        ]
        own = {"issuer": self.one.origin, "ca_file": str(self.authorities[0]), "audience": [AUDIENCE]}
        return serve_config_of({"auth": {"type": "jwt", "issuers": issuers, **own, **fields}}).auth


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        issuers, authorities = [], []
        for number, algorithm in enumerate(("ES256", "EdDSA")):
            directory = tmp_path / str(number)
            directory.mkdir()
            context, authority = make_context(directory)
            issuer = await stack.enter_async_context(TokenIssuer(context))
            # Both have a key of the same name, which is another one.
            issuer.keys["key"] = made_key(algorithm)
            issuers.append(issuer)
            authorities.append(authority)
        yield World(*issuers, authorities)


async def shown(authentication: Authentication, token: str) -> Principal | Denial:
    found = authentication.of(Request.bearing(token))
    return await found if isinstance(found, Awaitable) else found


async def refused(authentication: Authentication, token: str) -> str:
    found = await shown(authentication, token)
    assert isinstance(found, Denial), found
    return found.reason


async def named(authentication: Authentication, token: str) -> str:
    found = await shown(authentication, token)
    assert isinstance(found, Principal), found
    return found.name


async def test_each_token_is_examined_by_the_issuer_that_it_names(world: World) -> None:
    one, two = world.one, world.two
    authentication = Authentication(world.auth())
    of_two = {"name": "bob", "aud": OTHER_AUDIENCE}
    assert await named(authentication, one.token("key")) == f"{one.origin}#alice"
    assert await named(authentication, two.token("key", "EdDSA", **of_two)) == f"{two.origin}#bob"
    # What one says in the name of another, or with what only another may say.
    two.keys["ec"] = made_key("ES256")
    assert "signature" in await refused(authentication, two.token("ec", header={"kid": "key"}, iss=one.origin))
    assert "algorithm" in await refused(authentication, one.token("key", iss=two.origin, **of_two))
    assert "for another audience" in await refused(authentication, two.token("key", "EdDSA", name="bob"))
    assert "for another audience" in await refused(authentication, one.token("key", aud=OTHER_AUDIENCE))
    assert "no usable claim name" in await refused(authentication, two.token("key", "EdDSA", aud=OTHER_AUDIENCE))
    assert "issuer of the token is not accepted" in await refused(
        authentication, one.token("key", iss="https://evil.example.com")
    )
    assert "issuer of the token is not accepted" in await refused(authentication, one.token("key", iss=None))
    assert "not a signed JWT" in await refused(authentication, "x.y")
    assert (one.seen["/keys"], two.seen["/keys"]) == (1, 1)
    # A principal lasts as long as its issuer has the key.
    found = [
        await shown(authentication, one.token("key")),
        await shown(authentication, two.token("key", "EdDSA", **of_two)),
    ]
    assert [isinstance(each, Principal) and authentication.is_current(each) for each in found] == [True, True]
    document = authentication.metadata.document("/.well-known/oauth-protected-resource/mcp", b"127.0.0.1:1")
    assert document is not None
    assert json.loads(document)["authorization_servers"] == [one.origin, two.origin]
    await authentication.aclose()


async def test_a_rule_may_be_for_the_tokens_of_one_issuer(world: World) -> None:
    authentication = Authentication(world.auth())
    of_two = {"name": "bob", "aud": OTHER_AUDIENCE, "groups": ["admin"]}
    found = [
        await shown(authentication, world.one.token("key", groups=["admin"])),
        await shown(authentication, world.two.token("key", "EdDSA", **of_two)),
    ]
    rules = Rules([AllowConfig(claims={"groups": "admin", "iss": world.one.origin}, servers=("a",))])
    grants = [rules.grant_of(each) for each in found if isinstance(each, Principal)]
    assert [each is not None and each.shows("a") for each in grants] == [True, False]
    await authentication.aclose()


async def test_an_issuer_that_is_down_keeps_no_others_out(world: World) -> None:
    world.two.status = 500
    authentication = Authentication(world.auth())
    problem = await authentication.probe()
    assert problem.startswith(f"{world.two.origin}: ") and world.one.origin not in problem
    assert await named(authentication, world.one.token("key")) == f"{world.one.origin}#alice"
    token = world.two.token("key", "EdDSA", name="bob", aud=OTHER_AUDIENCE)
    assert "unavailable" in await refused(authentication, token)
    await authentication.aclose()


@pytest.mark.parametrize("kind", ["jwt", "introspection"])
async def test_certificates_of_a_private_authority_are_trusted_if_it_is_named(world: World, kind: str) -> None:
    one = world.one
    one.answers["token"] = {"active": True, "sub": "alice", "aud": AUDIENCE}
    secret = {"client_id": "gateway", "client_secret": "x"} if kind == "introspection" else {}
    token = "token" if kind == "introspection" else one.token("key")
    right, wrong = (str(each) for each in world.authorities)
    for ca_file, is_trusted in ((right, True), (wrong, False), (None, False)):
        authentication = Authentication(world.auth(type=kind, issuers=[], ca_file=ca_file, **secret))
        problem = await authentication.probe()
        assert is_trusted if not problem else "(set serve.auth.ca_file to the certificates to trust)" in problem
        found = await shown(authentication, token)
        assert isinstance(found, Principal) is is_trusted, found
        await authentication.aclose()


async def test_what_cannot_work_is_told(world: World, tmp_path: Path) -> None:
    one = {"issuer": world.one.origin}
    for issuers, text in (
        ([one], r"serve\.auth\.issuers\[0\]\.issuer: duplicate issuer"),
        ([{}], r"serve\.auth\.issuers\[0\]\.issuer: missing"),
        ([{**one, "jwks": "x"}], r"serve\.auth\.issuers\[0\]: unknown field 'jwks'"),
        ([{"issuer": "http://idp.example.com"}], r"serve\.auth\.issuers\[0\]\.issuer: must begin with https"),
        (
            [{"issuer": "https://idp.example.com", "algorithms": ["HS256"]}],
            r"issuers\[0\]\.algorithms\[0\]: is not acc",
        ),
    ):
        with pytest.raises(ConfigError, match=text):
            world.auth(issuers=issuers)
    with pytest.raises(ConfigError, match=r"serve\.auth\.issuers: cannot be combined with type 'introspection'"):
        world.auth(type="introspection", client_id="x", client_secret="x")
    for path in (tmp_path / "none.pem", Path(__file__)):
        with pytest.raises(ConfigError, match=r"serve\.auth\.ca_file"):
            Authentication(world.auth(ca_file=str(path)))
