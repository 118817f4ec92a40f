"""``WWW-Authenticate`` as servers write it, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.auth import Challenge, parse_challenge
from mcp_manager.auth.challenge import read_challenges

PRM = "https://mcp.example.com/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Challenge(401)),
        ("", Challenge(401)),
        ("Bearer", Challenge(401)),
        (f'Bearer resource_metadata="{PRM}"', Challenge(401, resource_metadata=PRM)),
        (f'bearer  scope="a b a",resource_metadata="{PRM}"', Challenge(401, "", ("a", "b"), PRM)),
        ('Basic realm="a, b", Bearer error=invalid_token', Challenge(401, "invalid_token")),
        ('Negotiate abc==, Bearer scope="x"', Challenge(401, "", ("x",))),
        ('DPoP error="use_dpop_nonce", algs="ES256"', Challenge(401, "use_dpop_nonce")),
        (r'Bearer error="in\"valid"', Challenge(401, 'in"valid')),
        ('Bearer scope="one", scope="two"', Challenge(401, "", ("one",))),
        ('Bearer error_description="scope=\\"evil\\"", scope="good"', Challenge(401, "", ("good",))),
        ('Bearer scope="unterminated', Challenge(401)),
        ('Basic realm="x"', Challenge(401)),
    ],
)
def test_challenges_are_read(value: str | None, expected: Challenge) -> None:
    assert parse_challenge(401, value) == expected


NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)), max_size=3))
def test_what_is_written_is_read(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    written = ", ".join(
        f"{scheme} {', '.join(f'{name}={quoted(value)}' for name, value in parameters.items())}"
        for scheme, parameters in challenges
    )
    assert read_challenges(written) == challenges


@given(st.text(max_size=200))
def test_nothing_makes_it_fail(value: str) -> None:
    parse_challenge(401, value)
    parse_challenge(403, "Bearer " + value)


@pytest.mark.parametrize(
    ("values", "dpop", "expected"),
    [
        (['Basic realm="x"', 'Bearer scope="a"'], False, Challenge(401, "", ("a",))),
        (["Bearer", 'DPoP error="use_dpop_nonce"'], True, Challenge(401, "use_dpop_nonce")),
        (["Bearer", 'DPoP error="use_dpop_nonce"'], False, Challenge(401)),
        ([f'Bearer resource_metadata="{PRM}", DPoP algs="ES256"'], True, Challenge(401, resource_metadata=PRM)),
        (['Basic realm="open', 'Bearer error="invalid_token"'], False, Challenge(401, "invalid_token")),
        (['Bearer realm="x"', 'Bearer scope="b"'], False, Challenge(401, "", ("b",))),
        ([], False, Challenge(401)),
    ],
)
def test_one_challenge_is_found_among_several(values: list[str], dpop: bool, expected: Challenge) -> None:
    assert parse_challenge(401, values, dpop=dpop) == expected
