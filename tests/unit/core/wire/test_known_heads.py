"""Responses whose head came before are taken without a parser: they mean what the parser finds them to mean."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.wires import CHUNKED, LIMIT, Network, Peer, assert_answers_again, cut, json_reply, response

from mcp_manager._core.http_message import WireError

JSON = ("Content-Type", "application/json")
FIELDS = (JSON, ("Date", "now"), ("Mcp-Session-Id", "s"))
FIRST = response(json_reply(1, 300), headers=FIELDS)


def padded(digits: str, body: bytes) -> bytes:
    return response(body, headers=(*FIELDS, ("Content-Length", digits)), length=None)


def outcome(peer: Peer, future: asyncio.Future[Any]) -> tuple[Any, ...]:
    """Return all that can be seen of an exchange and its connection."""
    seen: tuple[Any, ...] = (peer.idle, peer.wire.closed, peer.wire.pending, future.done())
    if not future.done():
        return seen
    error = future.exception()
    if error is not None:
        assert isinstance(error, WireError)
        return (*seen, error.kind, error.detail, error.size)
    reply = future.result()
    names = ("content-type", "mcp-session-id", "retry-after")
    return (*seen, reply.status, reply.body, reply.is_answer, [reply.header(name) for name in names])


FOLLOWING = {
    "the same": FIRST,
    "another body": FIRST.replace(b"<1>", b"<2>"),
    "shorter": response(b"x", headers=FIELDS),
    "longer": response(b"x" * 40_000, headers=FIELDS),
    "empty": response(b"", headers=FIELDS),
    "leading zeros": padded("0003", b"abc"),
    "more digits than any length": padded("1" * 19, b"abc"),
    "digits and more": padded("3x", b"abc"),
    "no digits": padded("", b"abc"),
    "cut short": FIRST[:-1],
    "cut in the head": FIRST[:40],
    "a byte too many": FIRST + b"x",
    "two responses": FIRST + FIRST,
    "beyond the limit": response(b"x" * 2_000, headers=FIELDS),
    "it closes": response(b"abc", headers=(*FIELDS, ("Connection", "close"))),
    "a cookie": response(b"abc", headers=(*FIELDS, ("Set-Cookie", "a=b"))),
    "another session": FIRST.replace(b"Id: s", b"Id: t"),
    "another status": FIRST.replace(b" 200 ", b" 404 "),
    "interim first": b"HTTP/1.1 103 Early Hints\r\n\r\n" + FIRST,
    "chunked": response(b"3\r\nabc\r\n0\r\n\r\n", headers=CHUNKED, length=None),
    "no end of the head": FIRST.partition(b"\r\n\r\n")[0],
    "no HTTP": b"x" * len(FIRST),
}


@pytest.mark.parametrize("following", FOLLOWING.values(), ids=FOLLOWING.keys())
async def test_a_known_head_changes_nothing(following: bytes) -> None:
    create = asyncio.get_running_loop().create_future
    seen = []
    # The head of the first response is learned only if that is received in one piece.
    for pieces in ([FIRST], cut(FIRST, [70])):
        network = Network(create)
        peer = network.connect()
        before = peer.send(timeout=5)
        peer.deliver(*pieces)
        assert network.pool.take() is peer.wire
        future = peer.send(
            request_id=2, timeout=5, limit=1_000 if following == FOLLOWING["beyond the limit"] else LIMIT
        )
        peer.deliver(following)
        seen.append([outcome(peer, before), outcome(peer, future), network.listener.cookies])
        if not future.done():
            peer.deliver(FIRST[len(following) :])
            seen[-1].append(outcome(peer, future))
        if peer.idle:
            assert_answers_again(peer)
    assert seen[0] == seen[1]


async def test_cookies_are_taken_each_time() -> None:
    network = Network(asyncio.get_running_loop().create_future)
    peer = network.connect()
    for _ in range(3):
        peer.send()
        peer.deliver(response(b"{}", headers=(JSON, ("Set-Cookie", "a=b"))))
    assert network.listener.cookies == [b"a=b"] * 3


async def test_a_response_that_overtakes_its_request_ends_the_connection() -> None:
    peer = Network(asyncio.get_running_loop().create_future).connect()
    peer.send()
    peer.deliver(FIRST)
    future = peer.send(b"x" * 20_000)
    peer.transport.unsent = 1
    peer.deliver(FIRST)
    assert future.done() and peer.wire.closed
