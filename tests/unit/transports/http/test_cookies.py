"""Cookies: RFC 6265 for one origin, within bounds."""

from __future__ import annotations

import pytest
from yarl import URL

from mcp_manager.transports.http.cookies import MAX_COOKIE_BYTES, MAX_COOKIES, MAX_JAR_BYTES, CookieJar

HOST = URL("https://api.example.com/v1/mcp")
PLAIN = URL("http://api.example.com/v1/mcp")
NOW = 1_800_000_000.0


def jar_with(*fields: str, url: URL = HOST) -> CookieJar:
    jar = CookieJar()
    assert jar.take(fields, url, NOW) == 0
    return jar


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("a=b", "a=b"),
        ("  a = b ; Path=/", "a=b"),
        ("AWSALB=xK/9+w==; Expires=Wed, 09 Jun 2027 10:18:14 GMT; Path=/", "AWSALB=xK/9+w=="),
        ('a="quoted"; Path=/', 'a="quoted"'),
        ("a=b=c", "a=b=c"),
        ("a=", "a="),
        ("a={json: 1}", "a={json: 1}"),
        ("a=b; HttpOnly; SameSite=None; Partitioned; Priority=High; Unheard-Of=1; Version=1", "a=b"),
        ("a=b; Max-Age=10", "a=b"),
        ("a=b; Max-Age=nonsense", "a=b"),
        ("a=b; Expires=nonsense", "a=b"),
        ("a=b; Expires=Thu, 01-Jan-2099 00:00:00 GMT", "a=b"),
        ("a=b; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "a=b"),
        ("a=b; Max-Age=0; Expires=Thu, 01 Jan 2099 00:00:00 GMT", ""),
        ("a=b; Max-Age=-1", ""),
        ("a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT", ""),
        ("a=b; Path=/v1", "a=b"),
        ("a=b; Path=/v1/mcp", "a=b"),
        ("a=b; Path=/v1/mcp/", ""),
        ("a=b; Path=/v", ""),
        ("a=b; Path=/other", ""),
        ("a=b; Path=relative", "a=b"),
        ("a=b; Domain=api.example.com", "a=b"),
        ("a=b; Domain=.EXAMPLE.com", "a=b"),
        ("a=b; Secure", "a=b"),
    ],
)
def test_what_is_sent_back(field: str, sent: str) -> None:
    assert jar_with(field).header(HOST, NOW) == sent


@pytest.mark.parametrize(
    "field",
    [
        "",
        "no pair",
        "=value",
        "na me=x",
        "a=\x01",
        "a=\xe9",
        "a=b\r\nX: y",
        "a=b; Domain=other.com",
        "a=b; Domain=le.com",
        "a=b; Domain=deep.api.example.com",
        f"a={'x' * MAX_COOKIE_BYTES}",
    ],
)
def test_what_makes_no_sense_is_counted_and_not_kept(field: str) -> None:
    jar = CookieJar()
    assert jar.take(["good=1", field], HOST, NOW) == 1
    assert jar.header(HOST, NOW) == "good=1"


def test_what_is_secure_does_not_go_over_the_clear() -> None:
    assert jar_with("a=b; Secure").header(PLAIN, NOW) == ""
    assert CookieJar().take(["a=b; Secure"], PLAIN, NOW) == 1


def test_an_address_has_no_parent_domain() -> None:
    assert CookieJar().take(["a=b; Domain=0.0.1"], URL("http://127.0.0.1/"), NOW) == 1
    assert CookieJar().take(["a=b; Domain=127.0.0.1"], URL("http://127.0.0.1/"), NOW) == 0


def test_a_cookie_replaces_one_of_its_name_and_path_alone() -> None:
    jar = jar_with("a=1; Path=/", "b=1", "a=2; Path=/", "a=3; Path=/v1")
    # The longer path goes first, then the older.
    assert jar.header(HOST, NOW) == "b=1; a=3; a=2"
    jar.take(["a=; Path=/; Max-Age=0"], HOST, NOW)
    assert jar.header(HOST, NOW) == "b=1; a=3"


def test_what_is_configured_goes_first_and_wins() -> None:
    jar = jar_with("mine=server", "theirs=1")
    assert jar.header(HOST, NOW, "mine=me; other=x") == "mine=me; other=x; theirs=1"


def test_cookies_end_in_time() -> None:
    jar = jar_with("short=1; Max-Age=10", "long=1; Max-Age=100", "session=1")
    assert jar.next_expiry(NOW) == NOW + 10
    assert jar.header(HOST, NOW + 10) == "long=1; session=1"
    assert jar.next_expiry(NOW + 10) == NOW + 100
    assert jar.next_expiry(NOW + 100) is None
    assert len(jar) == 1


def test_a_jar_is_bounded_in_number_and_bytes() -> None:
    jar = jar_with(*(f"c{number}=1" for number in range(10 * MAX_COOKIES)))
    assert len(jar) == MAX_COOKIES
    assert jar.header(HOST, NOW).endswith(f"c{10 * MAX_COOKIES - 1}=1")
    jar = jar_with(*(f"c{number}={'x' * 4000}" for number in range(20)))
    assert len(jar.header(HOST, NOW)) <= MAX_JAR_BYTES


def test_another_place_gets_none_of_them() -> None:
    jar = jar_with("a=b")
    jar.belong_to("https://api.example.com")
    jar.take(["a=b"], HOST, NOW)
    jar.belong_to("https://api.example.com")
    assert len(jar) == 1
    jar.belong_to("https://api.example.com:8443")
    assert jar.header(HOST, NOW) == ""


def test_it_shows_no_value() -> None:
    assert "secret" not in repr(jar_with("a=secret"))
