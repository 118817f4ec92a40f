"""Requests whose head came before are taken without a parser: they mean what the parser finds them to mean."""

from __future__ import annotations

from typing import Any

import pytest
from support.served import Site, post
from support.wires import cut

from mcp_manager._core.serving_limits import ServingLimits

FIELDS = (b"Accept: a", b"X-Other: 1", b"Accept: b", b"Mcp-Name: n")
FIRST = post(b"{1}", *FIELDS)


def sized(length: bytes, body: bytes) -> bytes:
    return FIRST.replace(b"Length: 3", b"Length: " + length).replace(b"{1}", body)


FOLLOWING = {
    "the same": FIRST,
    "another body": sized(b"3", b"[2]"),
    "another length": sized(b"5", b"[234]"),
    "longer": sized(b"12", b"[2345678901]"),
    "empty": sized(b"0", b""),
    "too large": sized(b"31", b"x" * 31),
    "no digit": sized(b"x", b"{1}"),
    "a sign": sized(b"-", b"{1}"),
    "no length": sized(b"", b"{1}"),
    "two": FIRST + sized(b"4", b"[ 2]"),
    "a part": FIRST[:-1],
    "a part of the head": FIRST[:50],
    "an empty line before": b"\r\n" + FIRST,
    "another target": FIRST.replace(b"/mcp", b"/mcq"),
    "a query": FIRST.replace(b"/mcp ", b"/mcp?a "),
    "another name": FIRST.replace(b"Name: n", b"Name: m"),
    "another line end": FIRST.replace(b"Accept: b\r\n", b"Accept: b\n\n"),
    "another method": FIRST.replace(b"POST", b"PUT "),
    "it closes": post(b"{1}", *FIELDS, b"Connection: close"),
    "it expects": post(b"{1}", *FIELDS, b"Expect: 100-continue"),
    "chunked": post(b"{1}", *FIELDS, pieces=2),
    "a second length": post(b"{1}", *FIELDS, b"Content-Length: 3"),
    "an older version": FIRST.replace(b"HTTP/1.1", b"HTTP/1.0"),
}


def seen_of(site: Site, first: list[bytes], following: bytes) -> list[Any]:
    site.answer = lambda request: request.reply(200, b"1")
    client = site.connect()
    client.send(*first)
    client.send(following)
    client.send(b"}" * (following == FOLLOWING["a part"]), FIRST[50:] * (following == FOLLOWING["a part of the head"]))
    names = (b"accept", b"x-other", b"mcp-name", b"content-length", b"host", b"connection")
    return [
        client.statuses(),
        client.transport.closing or client.transport.ended,
        [web.data for web in site.webs],
        *(
            (each.path, each.target, each.method, each.body, each.keeps_alive, [each.header(name) for name in names])
            for each in site.requests
        ),
        *(each.fields() for each in site.requests),
    ]


@pytest.mark.parametrize("following", FOLLOWING.values(), ids=FOLLOWING.keys())
def test_a_repeated_head_changes_nothing(following: bytes) -> None:
    limits = ServingLimits(max_body=30)
    known = seen_of(Site(limits=limits), [FIRST], following)
    # A request that arrives in two pieces is not learned from.
    parsed = seen_of(Site(limits=limits), cut(FIRST, [len(FIRST) - 1]), following)
    assert known == parsed


def test_a_stream_keeps_no_head() -> None:
    site = Site()
    client = site.connect()
    client.send(FIRST)
    events = site.requests[0].open_events()
    assert site.requests[0].header(b"mcp-name") is None
    events.end()
    client.send(FIRST)
    assert site.requests[1].header(b"mcp-name") == b"n"
