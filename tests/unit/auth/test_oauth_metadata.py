"""Where metadata is looked for, which resource is ours, and where credentials may be sent."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.metadata import metadata_urls
from mcp_manager.auth.oauth.resource_metadata import fits, resource_urls
from mcp_manager.errors import AuthError


def nowhere() -> Any:
    raise AssertionError("nothing is sent")


def http(server: str) -> OAuthHttp:
    return OAuthHttp(nowhere, "a", URL(server))


def test_the_resource_is_looked_for_below_its_path_and_at_the_root() -> None:
    well_known = "https://h/.well-known/oauth-protected-resource"
    assert list(map(str, resource_urls(URL("https://h/a/mcp")))) == [f"{well_known}/a/mcp", well_known]
    assert list(map(str, resource_urls(URL("https://h/")))) == [well_known]
    assert str(resource_urls(URL("https://h/mcp?t=1"))[0]) == f"{well_known}/mcp?t=1"


def test_metadata_is_looked_for_in_the_order_of_the_specification() -> None:
    assert list(map(str, metadata_urls(URL("https://h/t1")))) == [
        "https://h/.well-known/oauth-authorization-server/t1",
        "https://h/.well-known/openid-configuration/t1",
        "https://h/t1/.well-known/openid-configuration",
    ]
    for root in ("https://h", "https://h/"):
        assert list(map(str, metadata_urls(URL(root)))) == [
            "https://h/.well-known/oauth-authorization-server",
            "https://h/.well-known/openid-configuration",
        ]


@pytest.mark.parametrize(
    ("resource", "is_ours"),
    [
        ("https://h/a/mcp", True),
        ("https://H/a/mcp", True),
        ("https://h:443/a/mcp/", True),
        ("https://h/a", True),
        ("https://h", True),
        ("https://h/a/mc", False),
        ("https://h/a/mcp/more", False),
        ("https://h/b", False),
        ("http://h/a/mcp", False),
        ("https://h:444/a/mcp", False),
        ("https://evil/a/mcp", False),
        ("https://h/a/mcp?t=1", False),
        ("mcp", False),
        ("", False),
    ],
)
def test_a_resource_is_the_server_or_what_it_is_part_of(resource: str, is_ours: bool) -> None:
    assert fits(resource, URL("https://h/a/mcp")) is is_ours


@pytest.mark.parametrize(
    ("server", "url", "trusted", "allowed"),
    [
        ("https://h/mcp", "https://as/token", False, True),
        ("https://h/mcp", "http://as/token", False, False),
        ("https://h/mcp", "http://as/token", True, False),
        ("https://h/mcp", "http://127.0.0.1:1/token", False, False),
        ("https://h/mcp", "https://localhost/token", False, False),
        ("https://h/mcp", "http://[::1]/token", False, False),
        ("https://h/mcp", "http://127.0.0.1:1/token", True, True),
        ("http://127.0.0.1:2/mcp", "http://localhost:1/token", False, True),
        ("http://internal/mcp", "http://internal/token", False, True),
        ("https://h/mcp", "file:///etc/passwd", False, False),
        ("https://h/mcp", "https://u:p@as/token", False, False),
        ("https://h/mcp", "https://as/token#x", False, False),
        ("https://h/mcp", "/token", False, False),
        ("https://h/mcp", None, False, False),
    ],
)
def test_credentials_go_over_tls_or_nowhere_else(server: str, url: object, trusted: bool, allowed: bool) -> None:
    if allowed:
        assert str(http(server).checked(url, "it", trusted=trusted)) == url
    else:
        with pytest.raises(AuthError):
            http(server).checked(url, "it", trusted=trusted)
