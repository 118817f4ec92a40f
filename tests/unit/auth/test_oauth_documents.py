"""Bodies and members as real servers write them, and what is shown of them."""

from __future__ import annotations

import pytest

from mcp_manager.auth.oauth.documents import flag, lifetime, masked, read_object, reason_of, seconds, shown_text, texts

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"a": 1}', JSON, {"a": 1}),
        (b'{"a": 1}', "", {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', JSON, {"a": 1}),
        (b'{"a": "\\ud83d"}', JSON, {"a": "\ud83d"}),
        (b'{"a": "\xff"}', JSON, {"a": "�"}),
        (b"[1]", JSON, {}),
        (b'"a=1"', "text/plain", {}),
        (b"", JSON, {}),
        (b"<html>a=1</html>", "text/html", {}),
        (b"[" * 100_000, JSON, {}),
        (b'{"a": ' + b"9" * 10_000 + b"}", JSON, {}),
        (b"a=1&b=x%20y", FORM, {"a": "1", "b": "x y"}),
        (b"a=1", "text/plain", {"a": "1"}),
        (b"a=1", JSON, {}),
        (b"a=1&a=2", FORM, {}),
        (b"&".join(b"a%d=1" % each for each in range(1_000)), FORM, {}),
        (b"a=\xff", FORM, {}),
    ],
    ids=str,
)
def test_a_body_is_an_object_or_empty(body: bytes, kind: str, expected: dict[str, object]) -> None:
    assert read_object(body, kind) == expected


def test_numbers_of_seconds_are_read_and_bounded() -> None:
    read = {
        3600: 3600.0,
        "3600": 3600.0,
        " 7.5 ": 7.5,
        0: 0.0,
        -1: 0.0,
        "": 0.0,
        "soon": 0.0,
        "nan": 0.0,
        "inf": 0.0,
        10**400: 0.0,
        None: 0.0,
        True: 0.0,
    }
    assert {value: seconds(value) for value in read if value is not True} == {
        value: number for value, number in read.items() if value is not True
    }
    assert seconds(True) == 0.0
    assert seconds(["1"]) == 0.0
    assert lifetime(10**15) == lifetime("1e15") < 10**9


def test_lists_of_words_may_be_one_string() -> None:
    assert texts(["a", "", None, 5, "b"]) == ("a", "b")
    assert texts("a b") == ("a", "b")
    assert texts(None) is texts(5) is None
    assert flag(True)
    assert flag("True")
    assert not flag("false")
    assert not flag(1)


def test_reasons_are_found_where_servers_put_them() -> None:
    assert reason_of({"error": "invalid_grant", "error_description": "gone"}) == ("invalid_grant", "gone")
    assert reason_of({"error_code": "not_found", "msg": "Invalid Refresh Token"}) == (
        "not_found",
        "Invalid Refresh Token",
    )
    assert reason_of({"error": {"code": 400, "message": "no", "status": "X"}}) == ("", "no")
    assert reason_of({"error": "two words"}) == ("", "")
    assert reason_of({"error": ["x"], "detail": ["y"]}) == ("", "")
    assert reason_of({}) == ("", "")


def test_what_is_shown_is_one_line_of_visible_ascii() -> None:
    assert shown_text("a\r\nb\x1b[31m\x00c é") == "a b [31m c"
    assert len(shown_text("x" * 10_000)) <= 201


@pytest.mark.parametrize(
    "text",
    [
        "token s3cret/value+1= is unknown",
        "token s3cret%2Fvalue%2B1%3D is unknown",
        "token s3cret/va... is unknown",
        "x" * 1_990 + "s3cret/value+1=",
        "s3cret/value+1=s3cret/value+1=",
    ],
)
def test_no_part_of_a_secret_is_shown(text: str) -> None:
    shown = masked(text, ["s3cret/value+1=", ""])
    assert "***" in shown
    assert "s3cret" not in shown
    assert reason_of({"error": "s3cretvalue"}, ["s3cretvalue"])[0] == ""


def test_words_are_not_taken_for_secrets() -> None:
    assert (
        masked("the refresh token is unknown", ["abcd", "x", "refresh_token_of_mine"]) == "the refresh token is unknown"
    )
