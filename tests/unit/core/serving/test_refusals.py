"""What a served connection refuses: malformed, ambiguous, too long or too slow; it answers once, and closes."""

from __future__ import annotations

import json

import pytest
from support.served import Site, post

from mcp_manager._core.serving_limits import ServingLimits

HEAD = b"POST /mcp HTTP/1.1\r\nHost: gateway\r\n"
MALFORMED = {
    "both framings": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, the other way": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two different lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a list of lengths": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "an empty length": HEAD + b"Content-Length: \r\n\r\n{}",
    "a length in hexadecimal": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "a folded field": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded length": HEAD + b"Content-Length:\r\n 2\r\n\r\n{}",
    "a bare CR": HEAD + b"X: a\rContent-Length: 5\r\nContent-Length: 2\r\n\r\n{}",
    "a bare LF": HEAD + b"X: a\nContent-Length: 2\r\n\r\n{}",
    "a NUL": HEAD + b"X: a\0\r\nContent-Length: 2\r\n\r\n{}",
    "a space before a colon": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "no name": HEAD + b": a\r\nContent-Length: 2\r\n\r\n{}",
    "no colon": HEAD + b"nonsense\r\nContent-Length: 2\r\n\r\n{}",
    "no host": b"POST /mcp HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "two hosts": HEAD + b"Host: other\r\nContent-Length: 2\r\n\r\n{}",
    "chunks in HTTP/1.0": b"POST /mcp HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a size that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than its size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "a size that ends with LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
    "a last chunk that ends with LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\n\n",
    "an endless extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 20_000,
    "an endless trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx: " + b"x" * 20_000,
}
OTHERS = {
    "another coding": (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "HTTP/2.0": (505, b"POST /mcp HTTP/2.0\r\nHost: gateway\r\nContent-Length: 2\r\n\r\n{}"),
    "an expectation": (417, HEAD + b"Expect: miracles\r\nContent-Length: 2\r\n\r\n{}"),
    "a long head": (431, HEAD + b"X: " + b"x" * 17_000),
    "a complete long head": (431, HEAD + b"X: " + b"x" * 17_000 + b"\r\nContent-Length: 2\r\n\r\n{}"),
    "many fields": (431, HEAD + b"a: b\r\n" * 101 + b"\r\n"),
    "a long body": (413, HEAD + b"Content-Length: 101\r\n\r\n"),
    "a long body that is there": (413, HEAD + b"Content-Length: 101\r\n\r\n" + b"x" * 101),
    "an absurd body": (413, HEAD + b"Content-Length: 99999999999999999\r\n\r\n"),
    "a long chunked body": (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101),
}
LIMITS = ServingLimits(max_body=100)


@pytest.mark.parametrize("bytewise", [False, True], ids=["at once", "bytewise"])
@pytest.mark.parametrize(
    ("status", "data"),
    [*((400, data) for data in MALFORMED.values()), *OTHERS.values()],
    ids=[*MALFORMED, *OTHERS],
)
def test_what_is_refused_is_answered_once_and_ends_the_connection(status: int, data: bytes, bytewise: bool) -> None:
    site = Site(limits=LIMITS)
    site.answer = lambda request: request.reply(200, b"{}")
    client = site.connect()
    client.send(*([data[at : at + 1] for at in range(len(data))] if bytewise else [data]), post())
    assert client.statuses() == [status]
    assert site.requests == []
    assert client.transport.ended
    head, body = client.received.split(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert json.loads(body)["error"]["data"] == {"source": "gateway"}
    site.pass_time(10)
    assert client.transport.aborted
    client.lose()
    assert site.pool.open == 0
    assert len(site.wheel) == 0


def test_a_parser_that_met_a_fault_does_not_reach_the_next_connection() -> None:
    site = Site()
    site.answer = lambda request: request.reply(200, b"{}")
    for data in MALFORMED.values():
        site.connect().send(data)
        client = site.connect()
        client.send(post(b"[]"))
        assert client.statuses() == [200]
        assert site.requests[-1].body == b"[]"


def test_a_parser_that_met_the_last_request_of_a_connection_serves_the_next_one() -> None:
    site = Site()
    site.answer = lambda request: request.reply(200, b"{}")
    for data in (post(b"{}", b"Connection: close"), post(version=b"1.0"), post(b"{}", b"Connection: x, Close")):
        client = site.connect()
        client.send(data)
        assert client.statuses() == [200]
        assert client.transport.closing
        assert b"Connection: close\r\n" in client.received


def test_a_slow_head_and_a_slow_body_time_out() -> None:
    site = Site(limits=ServingLimits(head_s=5, body_s=20))
    whole = post(b"x" * 100)
    head, body, silent, chunks = (site.connect() for _ in range(4))
    head.send(whole[:20])
    body.send(whole[:-10])
    chunks.send(post(b"x" * 100, pieces=3)[:-10])
    site.pass_time(4)
    head.send(whole[20:21])
    site.pass_time(2)
    assert head.statuses() == [408]
    assert silent.received == b""
    assert silent.transport.closing
    body.send(whole[-10:-9])
    assert body.statuses() == chunks.statuses() == []
    site.pass_time(15)
    assert body.statuses() == chunks.statuses() == [408]
    site.pass_time(3)
    assert all(client.transport.closing for client in (head, body, chunks))


def test_a_request_that_is_being_answered_has_no_deadline_here() -> None:
    site = Site(limits=ServingLimits(idle_s=10))
    client = site.connect()
    client.send(post())
    for _ in range(10):
        site.pass_time(9)
    site.pass_time(8)
    site.requests[0].reply(200, b"{}")
    assert client.statuses() == [200]
    # It is idle only since then.
    site.pass_time(9)
    assert not client.transport.closing
    site.pass_time(25)
    site.pass_time(11)
    assert client.transport.closing
    assert site.pool.open == 0


def test_an_idle_connection_is_kept_for_as_long_as_it_is_used() -> None:
    site = Site(limits=ServingLimits(idle_s=10))
    site.answer = lambda request: request.reply(200, b"{}")
    client = site.connect()
    for _ in range(10):
        client.send(post())
        site.pass_time(9)
    assert client.statuses() == [200] * 10
    assert not client.transport.closing
