"""OAuth settings: each grant with what it needs, and nothing that it would ignore."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_manager import AuthConfig, ConfigError
from mcp_manager.config import parse_server_config

EMA = {"client_id": "c", "assertion": "x", "idp_client_id": "i", "idp_token_endpoint": "https://idp/token"}

ENDPOINTS = {"authorization_endpoint": "https://as/authorize", "token_endpoint": "https://as/token"}


def parse(auth: dict[str, Any], **more: Any) -> AuthConfig:
    return parse_server_config({"url": "https://h/mcp", "auth": auth, **more}, server_id="a").auth


@pytest.mark.parametrize(
    "auth",
    [
        {},
        {"client_id": "c", "client_secret": "s", "issuer": "https://as", "client_auth": "client_secret_post"},
        {"client_metadata_url": "https://me.example.com/client.json", "scopes": ["a", "b"], "dpop": True},
        {"grant": "client_credentials", "client_id": "c", "private_key": "k", "signing_algorithm": "RS256"},
        {"grant": "jwt_bearer", "client_id": "c", "assertion_file": "/var/run/token"},
        {"grant": "enterprise", **EMA, "client_secret": "s"},
        {"client_auth": "client_secret_post"},
        {"assume_pkce": True, "send_resource": False, "parameters": {"audience": "https://api"}},
        {"client_id": "c", **ENDPOINTS},
        {"grant": "client_credentials", "client_id": "c", "client_secret": "s", "token_endpoint": "https://as/token"},
    ],
)
def test_what_fits_together_is_accepted(auth: dict[str, Any]) -> None:
    assert parse({"type": "oauth", **auth}).type == "oauth"


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ({"type": "none", "client_id": "c"}, "auth.client_id: cannot be combined with type 'none'"),
        ({"type": "bearer", "token": "t", "dpop": True}, "auth.dpop: cannot be combined"),
        ({"type": "oauth", "key": "k"}, "auth.key: cannot be combined with type 'oauth'"),
        ({"type": "oauth", "grant": "password"}, "auth.grant"),
        ({"type": "oauth", "grant": "client_credentials"}, "auth.client_id: missing"),
        ({"type": "oauth", "grant": "client_credentials", "client_id": "c"}, "client_secret or private_key"),
        ({"type": "oauth", "grant": "jwt_bearer", "client_id": "c"}, "one of assertion and assertion_file"),
        ({"type": "oauth", "grant": "enterprise", **EMA, "idp_client_id": None}, "auth.idp_client_id: missing"),
        ({"type": "oauth", "assertion": "x"}, "auth.assertion: cannot be combined with grant"),
        ({"type": "oauth", "client_secret": "s"}, "auth.client_id: missing"),
        ({"type": "oauth", "client_id": "c", "client_secret": "s", "private_key": "k"}, "cannot be combined"),
        ({"type": "oauth", "client_metadata_url": "http://me/x"}, "must be an https URL with a path"),
        ({"type": "oauth", "client_metadata_url": "https://me"}, "must be an https URL with a path"),
        ({"type": "oauth", "redirect_uri": "myapp"}, "auth.redirect_uri: is not an absolute"),
        ({"type": "oauth", "scopes": ["a b"]}, "auth.scopes[0]: is not a scope"),
        ({"type": "oauth", "client_id": "c\n"}, "auth.client_id"),
        (
            {"type": "oauth", "client_id": "c", "client_auth": "client_secret_post"},
            "auth.client_auth: needs client_secret",
        ),
        ({"type": "oauth", **ENDPOINTS}, "auth.client_id: missing"),
        ({"type": "oauth", "client_id": "c", "token_endpoint": "https://as/t"}, "auth.authorization_endpoint: missing"),
        ({"type": "oauth", "client_id": "c", **ENDPOINTS, "token_endpoint": None}, "auth.token_endpoint: missing"),
        ({"type": "oauth", "client_id": "c", **ENDPOINTS, "token_endpoint": "x"}, "auth.token_endpoint: is not an abs"),
        (
            {"type": "oauth", "grant": "jwt_bearer", **EMA, **ENDPOINTS},
            "auth.authorization_endpoint: cannot be combined with",
        ),
        ({"type": "oauth", "parameters": {"state": "x"}}, "auth.parameters.state: is set by the manager"),
        ({"type": "oauth", "parameters": {"audience": ""}}, "auth.parameters.audience: must not be empty"),
        ({"type": "oauth", "parameters": ["audience"]}, "auth.parameters: expected"),
        ({"type": "oauth", "send_resource": "no"}, "auth.send_resource: expected"),
        ({"type": "none", "assume_pkce": True}, "auth.assume_pkce: cannot be combined with type 'none'"),
    ],
)
def test_what_does_not_is_named(auth: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(auth)
    assert says in str(caught.value)


def test_a_header_of_its_own_contradicts_it() -> None:
    with pytest.raises(ConfigError, match="Authorization is also given"):
        parse({"type": "oauth"}, headers={"authorization": "x"})


def test_repr_shows_no_secret() -> None:
    secrets = dict.fromkeys(("client_secret", "private_key", "assertion", "idp_client_secret"), "sentinel")
    shown = repr(AuthConfig(type="oauth", client_id="c", parameters={"audience": "sentinel"}, **secrets))
    assert "sentinel" not in shown
    assert "client_secret='***'" in shown
    assert "client_id='c'" in shown
