"""URLs are sent as they are written, byte by byte; references are resolved as exactly."""

from __future__ import annotations

import pytest

from mcp_manager.transports.http.urls import exact_url, resolve


@pytest.mark.parametrize(
    "target",
    [
        "/mcp",
        "/mcp/",
        "/mcp/a%2Fb",
        "/mcp?url=https%3A%2F%2Fx.y%2Fz&sig=a%2Bb%2Fc%3D%3D",
        "/mcp?q=a+b%20c",
        "/mcp?x=%c3%a9%2f",
        "/mcp/%61%7Eb",
        "/mcp?a=1&a=2&b=&c",
        "/mcp?",
        "/mcp??",
        "/api//mcp",
        "/mcp;v=1,2?x=1;y=2",
        "/@scope/pkg:latest/mcp",
        "/mcp?a[]=1&b='(!*)",
        "/%2e%2e/mcp",
        "/mcp?x=../y/./z",
        "/mcp?x=%7Bi%7D&y=%25",
    ],
)
def test_a_target_is_sent_as_it_is_written(target: str) -> None:
    url = exact_url(f"http://host:8001{target}")
    assert url.raw_path_qs == target
    assert str(url) == f"http://host:8001{target}"
    assert url.host_port_subcomponent == "host:8001"
    # Where an endpoint was found by name, too.
    assert url.with_host("127.0.0.1").with_port(9).raw_path_qs == target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host", "http://host/"),
        ("http://host?x=%2F", "http://host/?x=%2F"),
        ("HTTP://HOST:80/A", "http://host/A"),
        ("https://host:443/", "https://host/"),
        ("https://host:80/", "https://host:80/"),
        ("http://bücher.example/ä?ö=ü", "http://xn--bcher-kva.example/%C3%A4?%C3%B6=%C3%BC"),
        ("http://[::1]:8001/x", "http://[::1]:8001/x"),
        ("http://h/a/../b/./c", "http://h/b/c"),
        ("http://h/../../x/..", "http://h/"),
        ("http://h/x#fragment", "http://h/x"),
        (b"http://h/\xc3\xa4\xff x", "http://h/%C3%A4%FF%20x"),
        ("http://h/a\r\nb\tc", "http://h/a%0D%0Ab%09c"),
    ],
)
def test_what_is_no_part_of_a_target_gets_its_usual_form(text: str | bytes, expected: str) -> None:
    assert str(exact_url(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "/mcp", "host/mcp", "ftp://h/", "mailto:x@y", "http://", "http:///x", "http://[", "http://h:99999/"]
)
def test_what_is_no_http_url(text: str) -> None:
    with pytest.raises(ValueError):
        exact_url(text)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("c%2Fd?z=%2f", "http://h:8/a/c%2Fd?z=%2f"),
        ("/x?", "http://h:8/x?"),
        ("?y=%2F", "http://h:8/a/b?y=%2F"),
        ("", "http://h:8/a/b?q=%2F"),
        ("#f", "http://h:8/a/b?q=%2F"),
        ("//o:9/x", "http://o:9/x"),
        ("https://h/%2F", "https://h/%2F"),
        ("../c", "http://h:8/c"),
        ("./", "http://h:8/a/"),
        (" /x ", "http://h:8/x"),
        ("x:y", None),
        ("javascript:alert(1)", None),
    ],
)
def test_references(reference: str, expected: str | None) -> None:
    base = exact_url("http://h:8/a/b?q=%2F")
    if expected is None:
        with pytest.raises(ValueError):
            resolve(base, reference)
    else:
        assert str(resolve(base, reference)) == expected


def test_an_empty_query_is_no_part_of_the_path_of_a_reference() -> None:
    assert str(resolve(exact_url("http://h/a/b?"), "c")) == "http://h/a/c"
    assert str(resolve(exact_url("http://h/a/b?"), "?x")) == "http://h/a/b?x"
