"""Whatever an authorization server sends, it is read without a failure and shown without a secret."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.auth.oauth.documents import lifetime, masked, read_object, reason_of, seconds, shown_text, texts
from mcp_manager.auth.oauth.issuers import same_issuer

KINDS = st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", "text/html", ""])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["error", "error_description", "error_code", "code", "message", "msg", "detail", "x"]), VALUES
)
SECRETS = st.text(string.ascii_letters + string.digits + "+/=_-", min_size=8, max_size=40)


@given(body=st.binary(), kind=KINDS)
def test_any_body_is_an_object(body: bytes, kind: str) -> None:
    assert isinstance(read_object(body, kind), dict)


@given(document=DOCUMENTS)
def test_any_json_object_is_read_as_what_it_is(document: dict[str, Any]) -> None:
    assert read_object(json.dumps(document).encode(), "application/json").keys() == document.keys()


@given(document=DOCUMENTS)
def test_any_refusal_has_a_reason_that_fits_on_a_line(document: dict[str, Any]) -> None:
    code, words = reason_of(document)
    assert len(code) <= 64
    assert len(words) <= 201
    assert (code + words.removesuffix("…")).isascii()
    assert (code + words.removesuffix("…")).isprintable()


@given(value=VALUES)
def test_any_member_is_a_number_and_words(value: Any) -> None:
    assert 0.0 <= lifetime(value) <= seconds(value) < float("inf")
    assert all(isinstance(each, str) for each in texts(value) or ())
    assert isinstance(shown_text(str(value)), str)


@given(secret=SECRETS, before=st.text(), after=st.text(), cut=st.integers(min_value=8))
def test_no_part_of_a_secret_is_shown(secret: str, before: str, after: str, cut: int) -> None:
    shown = masked(before + secret[:cut] + after, [secret])
    assert not [at for at in range(len(secret) - 7) if secret[at : at + 8] in shown]


@given(one=st.text("ahtps:/.?#", max_size=20), other=st.text("ahtps:/.?#", max_size=20))
def test_issuers_are_the_same_to_each_other_and_differ_in_no_more_than_a_slash(one: str, other: str) -> None:
    assert same_issuer(one, one)
    assert same_issuer(one, other) is same_issuer(other, one)
    if same_issuer(one, other):
        assert one.removesuffix("/") == other.removesuffix("/")
