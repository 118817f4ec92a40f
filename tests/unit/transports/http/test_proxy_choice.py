"""Which proxy a URL is reached through, by setting and by environment."""

from __future__ import annotations

import base64

import pytest
from yarl import URL

from mcp_manager.transports.http.connections.proxy import Proxy, proxy_of

SECRET = "sentinel-s3cr3t"
PROXY = "http://proxy.test:3128"


def chosen(url: str, **environment: str) -> Proxy | None:
    return proxy_of("env", URL(url), {"http_proxy": PROXY, "https_proxy": PROXY, **environment})


def test_empty_is_none_whatever_the_environment_says() -> None:
    assert proxy_of("", URL("https://h.test/"), {"https_proxy": PROXY}) is None


def test_a_url_with_credentials_is_taken_apart() -> None:
    proxy = proxy_of(f"HTTP://us%40er:{SECRET}%3A%2F@proxy.test:3128/", URL("https://h.test/"), {})
    assert proxy is not None
    assert str(proxy.url) == PROXY
    encoded = base64.b64encode(f"us@er:{SECRET}:/".encode()).decode()
    assert proxy.credentials == f"Basic {encoded}"
    assert SECRET not in repr(proxy)
    assert encoded not in repr(proxy)


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("http://h.test/", {"HTTP_PROXY": "http://upper"}, "http://upper"),
        ("http://h.test/", {"HTTP_PROXY": "http://upper", "http_proxy": "http://lower"}, "http://lower"),
        ("https://h.test/", {"HTTP_PROXY": "http://upper"}, None),
        ("https://h.test/", {"HTTPS_PROXY": "proxy.test:3128"}, PROXY),
        ("https://h.test/", {"ALL_PROXY": PROXY}, PROXY),
        ("https://h.test/", {"all_proxy": "socks5://x", "https_proxy": PROXY}, PROXY),
        ("https://h.test/", {"https_proxy": "  "}, None),
        ("https://h.test/", {}, None),
        # Under CGI it is what the client calls a header.
        ("http://h.test/", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        ("http://h.test/", {"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, PROXY),
        # This machine is not excepted by itself.
        ("http://127.0.0.1:8000/", {"http_proxy": PROXY}, PROXY),
    ],
)
def test_which_variable_counts(url: str, environment: dict[str, str], expected: str | None) -> None:
    proxy = proxy_of("env", URL(url), environment)
    assert (str(proxy.url) if proxy is not None else None) == expected


@pytest.mark.parametrize("value", ["socks5://h:1080", "http://", "ftp://h", f"http://u:{SECRET}@[::", "http://h:port"])
def test_what_cannot_be_used_is_told_by_the_name_of_the_variable(value: str) -> None:
    proxy = proxy_of("env", URL("https://h.test/"), {"HTTPS_PROXY": value})
    assert proxy is not None
    assert "HTTPS_PROXY" in proxy.problem
    assert SECRET not in proxy.problem


@pytest.mark.parametrize(
    ("entries", "url", "excepted"),
    [
        ("*", "https://anything.test/", True),
        ("h.test", "https://h.test/", True),
        ("H.TEST", "https://h.test./", True),
        ("h.test", "https://sub.h.test/", True),
        (".h.test", "https://sub.h.test/", True),
        (".h.test", "https://h.test/", True),
        ("*.h.test", "https://sub.h.test/", True),
        ("h.test", "https://anotherh.test/", False),
        ("h.test:443", "https://h.test/", True),
        ("h.test:8443", "https://h.test/", False),
        ("h.test:8443", "https://h.test:8443/", True),
        ("a.test, ,h.test", "https://h.test/", True),
        ("a.test h.test", "https://h.test/", False),
        ("127.0.0.1", "https://127.0.0.1/", True),
        ("127.0.0.1", "https://127.0.0.10/", False),
        ("0.0.1", "https://127.0.0.1/", False),
        ("127.0.0.1:8443", "https://127.0.0.1:8443/", True),
        ("127.0.0.0/8", "https://127.1.2.3/", True),
        ("10.0.0.0/8", "https://127.1.2.3/", False),
        ("nonsense/8", "https://127.1.2.3/", False),
        ("::1", "https://[::1]/", True),
        ("[::1]", "https://[::1]:8443/", True),
        ("[::1]:8443", "https://[::1]:8443/", True),
        ("[::1]:8444", "https://[::1]:8443/", False),
        ("fd00::/8", "https://[fd00::7]/", True),
        ("", "https://h.test/", False),
    ],
)
def test_what_no_proxy_excepts(entries: str, url: str, excepted: bool) -> None:
    assert (chosen(url, no_proxy=entries) is None) == excepted
    assert (chosen(url, NO_PROXY=entries) is None) == excepted


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a.localhost",
        "localhost.",
        "127.0.0.1",
        "127.8.9.1",
        "127.1",
        "[::1]",
        "0.0.0.0",
        "[::]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_unless_it_is_asked_for_no_proxy_is_between_this_machine_and_itself(host: str) -> None:
    url, environment = URL(f"https://{host}:1/"), {"https_proxy": PROXY}
    assert proxy_of(None, url, environment) is None
    assert proxy_of("env", url, environment) == Proxy(URL(PROXY))


@pytest.mark.parametrize("host", ["h.test", "10.0.0.1", "128.0.0.1", "[fd00::1]", "localhost.test"])
def test_without_a_setting_the_environment_decides(host: str) -> None:
    url, environment = URL(f"https://{host}/"), {"https_proxy": PROXY}
    assert proxy_of(None, url, environment) == Proxy(URL(PROXY))
    assert proxy_of(None, url, {**environment, "no_proxy": "*"}) is None
