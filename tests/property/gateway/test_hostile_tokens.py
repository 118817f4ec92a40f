"""Whatever a token says, it is refused without an error and without a fetch, unless the issuer has signed it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.token_issuer import AUDIENCE, Request, TokenIssuer, made_key

from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.security.authentication import Authentication, Denial
from mcp_manager.gateway.security.principal import Principal

HEADER = ("alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty")
CLAIMS = ("iss", "aud", "sub", "exp", "nbf", "iat", "scope", "scp", "cnf", "typ", "jti", "events")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 1e308, 2**63, "RS256", "ES256", "EdDSA", "none", "HS256", "one", "at+jwt"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.sampled_from([AUDIENCE, 1, None, "x"]), max_size=3),
    st.just({}),
)


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@st.composite
def tokens(draw: st.DrawFn, issuer: TokenIssuer, good: str) -> str:
    """Draw a token that is nearly right."""
    header, claims, signature = good.split(".")
    kind = draw(st.sampled_from(["header", "claims", "signature", "characters", "anything"]))
    if kind == "header":
        changed = draw(st.dictionaries(st.sampled_from(HEADER), VALUES, min_size=1, max_size=3))
        header = encoded(json.dumps({"alg": "ES256", "kid": "one", "typ": "at+jwt", **changed}).encode())
    elif kind == "claims":
        changed = draw(st.dictionaries(st.sampled_from(CLAIMS), VALUES, min_size=1, max_size=3))
        usual = {"iss": issuer.origin, "aud": AUDIENCE, "sub": "eve", "exp": int(time.time()) + 60}
        claims = encoded(json.dumps({**usual, **changed}).encode())
    elif kind == "signature":
        signature = encoded(draw(st.binary(max_size=70)))
    elif kind == "characters":
        at = draw(st.integers(0, len(good) - 1))
        return good[:at] + draw(st.sampled_from("A0-_.=+/~")) + good[at + 1 :]
    else:
        header, claims = (encoded(draw(st.binary(max_size=20))) for _ in range(2))
    return f"{header}.{claims}.{signature}"


async def test_only_what_the_issuer_has_signed_is_accepted() -> None:
    async with TokenIssuer() as issuer:
        issuer.keys["one"] = made_key("ES256")
        authentication = Authentication(ClientAuthConfig(type="jwt", issuer=issuer.origin, audience=(AUDIENCE,)))
        good = issuer.token("one")
        fetching: Any = authentication.of(Request.bearing(good))
        assert isinstance(await fetching, Principal)
        count = issuer.seen.total()

        @given(tokens(issuer, good))
        def examine(token: str) -> None:
            found = authentication.of(Request.bearing(token))
            if isinstance(found, Principal):
                # Only the last character of the signature has bits that mean nothing.
                assert token[: len(good) - 1] == good[:-1]
            else:
                assert isinstance(found, Denial)
                assert found.status in (400, 401)

        examine()
        assert issuer.seen.total() == count
        await authentication.aclose()
