"""The authorization response: which one is ours, and what is passed on of one that is not."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from yarl import URL

from mcp_manager.auth.oauth.authorization_code import CodeRequest
from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.metadata import AuthorizationServer
from mcp_manager.errors import AuthError

ISSUER = "https://as.example.com"


def nowhere() -> Any:
    raise AssertionError("nothing is sent")


HTTP = OAuthHttp(nowhere, "a", URL("https://h/mcp"))


def request(*, sends_iss: bool = True, scopes: tuple[str, ...] = ()) -> CodeRequest:
    server = AuthorizationServer(
        issuer=ISSUER,
        token_endpoint=f"{ISSUER}/token",
        authorization_endpoint=f"{ISSUER}/authorize?tenant=1",
        sends_iss=sends_iss,
    )
    return CodeRequest(
        server=server, client_id="c", redirect_uri="http://127.0.0.1:1/cb", resource="https://h/mcp", scopes=scopes
    )


def test_the_request_keeps_the_endpoints_query_and_is_never_the_same() -> None:
    one, two = (parse_qs(urlsplit(request(scopes=("a", "b")).url()).query) for _ in range(2))
    assert one["tenant"] == ["1"]
    assert one["scope"] == ["a b"]
    assert one["code_challenge_method"] == ["S256"]
    assert one["resource"] == ["https://h/mcp"]
    assert one["state"] != two["state"]
    assert one["code_challenge"] != two["code_challenge"]
    assert "scope" not in parse_qs(urlsplit(request().url()).query)


def test_a_response_is_taken_as_url_or_as_parameters() -> None:
    asked = request()
    fields = {"state": asked.state, "code": "x", "iss": ISSUER}
    assert asked.code(HTTP, fields) == "x"
    assert asked.code(HTTP, f"http://127.0.0.1:1/cb?{urlencode(fields)}") == "x"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": "other"}, "state differs"),
        ({"state": None}, "state differs"),
        ({"state": "é"}, "state differs"),
        ({"iss": None}, "iss is missing"),
        ({"iss": ISSUER + "/"}, "iss differs"),
        ({"iss": "HTTPS://as.example.com"}, "iss differs"),
        ({"iss": "https://as.example.com:443"}, "iss differs"),
        ({"iss": ""}, "iss differs"),
        ({"code": None}, "no code"),
        ({"error": "access_denied"}, "access_denied"),
        ({"error": "<script>"}, "an unknown error"),
    ],
)
def test_a_response_that_does_not_fit_is_refused(change: dict[str, str | None], says: str) -> None:
    asked = request()
    fields = {"state": asked.state, "code": "x", "iss": ISSUER, **change}
    with pytest.raises(AuthError, match=says) as caught:
        asked.code(HTTP, {name: value for name, value in fields.items() if value is not None})
    assert "script" not in str(caught.value)


def test_an_error_of_somebody_else_is_not_passed_on() -> None:
    asked = request()
    with pytest.raises(AuthError) as caught:
        asked.code(HTTP, {"state": asked.state, "iss": "https://evil", "error": "call_this_number"})
    assert "call_this_number" not in str(caught.value)


def test_a_parameter_that_is_given_twice_makes_the_response_nobodys() -> None:
    asked = request()
    with pytest.raises(AuthError):
        asked.code(HTTP, f"http://h/?state={asked.state}&iss={ISSUER}&code=x&code=y")


def test_no_repr_shows_verifier_or_state() -> None:
    asked = request()
    assert asked.verifier not in repr(asked)
    assert asked.state not in repr(asked)
