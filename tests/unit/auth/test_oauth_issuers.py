"""When two issuer identifiers are one authorization server's, and when a token must not cross from one to the other."""

from __future__ import annotations

import pytest

from mcp_manager.auth.oauth.issuers import is_among, is_template_of, same_issuer


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://as.example.com", "https://as.example.com", True),
        ("https://as.example.com", "https://as.example.com/", True),
        ("https://as.example.com:8443/", "https://as.example.com:8443", True),
        ("https://as.example.com/x", "https://as.example.com/x", True),
        ("https://as.example.com/x", "https://as.example.com/x/", False),
        ("https://as.example.com/", "https://as.example.com//", False),
        ("https://as.example.com", "https://as.example.com?", False),
        ("https://as.example.com/?a", "https://as.example.com?a", False),
        ("https://as.example.com", "https://AS.example.com", False),
        ("https://as.example.com", "https://as.example.com:443", False),
        ("https://as.example.com", "http://as.example.com", False),
        ("https://as.example.com", "https://as.example.com.evil", False),
        ("https://as.example.com", "", False),
        ("", "", True),
        ("", "/", False),
        ("x", "y", False),
        ("x/", "x", False),
    ],
)
def test_a_slash_as_the_whole_path_is_all_that_is_overlooked(one: str, other: str, same: bool) -> None:
    assert same_issuer(one, other) is same
    assert same_issuer(other, one) is same


def test_one_among_several_may_be_missing() -> None:
    assert is_among("https://as", (None, "https://as/"))
    assert not is_among("https://as", (None, "https://as/x"))


@pytest.mark.parametrize(
    ("named", "issuer", "fits"),
    [
        ("https://login/{tenantid}/v2.0", "https://login/common/v2.0", True),
        ("https://login/{tenantid}/v2.0", "https://login/organizations/v2.0", True),
        ("https://login/{tenantid}/v2.0", "https://login/consumers/v2.0", True),
        ("https://login/{tenantid}/v2.0", "https://login/1111/v2.0", False),
        ("https://login/{tenantid}/v2.0", "https://login/common/v1.0", False),
        ("https://evil/{tenantid}/v2.0", "https://login/common/v2.0", False),
        ("https://{tenantid}/v2.0", "https://login/v2.0", False),
        ("{tenantid}{tenantid}", "commoncommon", False),
        ("https://login/common/v2.0", "https://login/common/v2.0", False),
    ],
)
def test_entras_template_stands_for_its_shared_tenants_alone(named: str, issuer: str, fits: bool) -> None:
    assert is_template_of(named, issuer) is fits
