"""A wire's requests, and what it makes of heads and bodies of every kind."""

from __future__ import annotations

import ctypes
import tracemalloc

import pytest
from support.wires import (
    CHUNKED,
    HEAD,
    LIMIT,
    MAX_SILENT,
    MIN_DIRECT,
    Peer,
    assert_answers_again,
    chunked,
    cut,
    events,
    json_reply,
    kind_of,
    reply_of,
    response,
    stream_head,
)

from mcp_manager._core.http_message import LOST, MALFORMED, OVERSIZE, Exchange
from mcp_manager._core.jsonrpc import scan_reply

# Requests


@pytest.mark.parametrize("size", [0, 1, 9, 10, 99, 16383, 16384, 100_000])
async def test_a_request_is_one_write_with_its_length(peer: Peer, size: int) -> None:
    body = b"x" * size
    exchange = Exchange(body, 1, 0)
    future = peer.wire.send(HEAD, exchange, peer.network.listener, LIMIT)
    assert peer.transport.written == [HEAD + b"%d\r\n\r\n" % size + body]
    assert exchange.sent
    assert not future.done()
    assert not peer.idle
    future.cancel()


async def test_one_exchange_at_a_time(peer: Peer) -> None:
    future = peer.send()
    with pytest.raises(RuntimeError, match="carries another exchange"):
        peer.send(request_id=2)
    assert len(peer.transport.written) == 1
    peer.deliver(response(b"one"))
    assert reply_of(future).body == b"one"
    peer.lose()
    with pytest.raises(RuntimeError):
        peer.send(request_id=3)


# Bodies


@pytest.mark.parametrize("size", [0, 1, 100, 16384, MIN_DIRECT - 1, MIN_DIRECT, MIN_DIRECT + 1, 300_000, LIMIT])
@pytest.mark.parametrize("first", [0, 1, 1000])
async def test_a_body_of_known_length(peer: Peer, size: int, first: int) -> None:
    body = (json_reply(1, size + 9) + b"....")[:size]
    whole = response(body)
    head = len(whole) - size
    future = peer.send()
    peer.deliver(*cut(whole, [head + min(first, size)]))
    reply = reply_of(future)
    assert (reply.status, reply.body, reply.is_answer) == (200, body, True)
    assert_answers_again(peer)


@pytest.mark.parametrize("size", [MIN_DIRECT - 1, MIN_DIRECT, MIN_DIRECT + 1, 2 * MIN_DIRECT + 3])
async def test_a_long_body_cut_anywhere_around_where_it_is_received_in_place(peer: Peer, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    whole = response(body)
    head = len(whole) - size
    for place in [
        *range(head - 3, head + 4),
        *range(len(whole) - MIN_DIRECT - 2, len(whole) - MIN_DIRECT + 3),
        len(whole) - 1,
    ]:
        future = peer.send()
        peer.deliver(*cut(whole, [max(place, 1)]))
        assert reply_of(future).body == body, place
        assert peer.network.pool.take() is peer.wire


async def test_a_long_body_is_received_in_place(peer: Peer) -> None:
    size = 5 * MIN_DIRECT
    body = json_reply(1, size)
    whole = response(body)
    future = peer.send()
    peer.deliver(whole[: len(whole) - len(body) + 10])
    seen = []
    for start in range(10, len(body), 7777):
        buffer = peer.wire.get_buffer(65536)
        seen.append(len(buffer))
        # And one byte more, which tells whether anything follows.
        assert len(buffer) == len(body) - start + 1
        piece = body[start : start + 7777]
        buffer[: len(piece)] = piece
        assert not future.done()
        peer.wire.buffer_updated(len(piece))
    assert seen[0] == len(body) - 9
    assert reply_of(future).body == body
    # What comes next goes into the common buffer again.
    assert len(peer.wire.get_buffer(-1)) == 1 << 18
    assert_answers_again(peer)


async def test_the_memory_of_a_long_body_is_used_again_once_nobody_has_it(peer: Peer) -> None:
    def receive(letter: bytes) -> bytes:
        future = peer.send()
        whole = response(b'{"jsonrpc":"2.0","id":1,"result":["%b"]}' % (letter * 200_000))
        peer.deliver(whole[:100], whole[100:])
        assert peer.network.pool.take() is peer.wire
        return reply_of(future).body

    body = receive(b"a")
    place = id(body)
    message = scan_reply(body)
    del body
    message.recycle()
    body = receive(b"b")
    assert id(body) == place
    message = scan_reply(body)
    del body
    kept = message.result_buffer
    assert kept is not None
    message.recycle()
    assert id(receive(b"c")) != place
    assert bytes(kept) == b'["%b"]' % (b"b" * 200_000)


async def test_a_shorter_body_in_used_memory_ends_with_a_zero_as_all_bytes_do(peer: Peer) -> None:
    def receive(size: int) -> bytes:
        future = peer.send()
        whole = response(b'{"jsonrpc":"2.0","id":1,"result":["%b"]}' % (b"x" * size))
        peer.deliver(whole[:100], whole[100:])
        assert peer.network.pool.take() is peer.wire
        return reply_of(future).body

    body = receive(250_000)
    place = id(body)
    message = scan_reply(body)
    del body
    message.recycle()
    body = receive(150_000)
    assert id(body) == place
    # Text parsers of C read up to it.
    assert ctypes.string_at(place + bytes.__basicsize__ - 1, len(body) + 1) == body + b"\0"


async def test_a_short_rest_of_a_body_is_not_received_in_place(peer: Peer) -> None:
    # What may follow it would take a receive of its own.
    whole = response(json_reply(1, 5 * MIN_DIRECT))
    future = peer.send()
    peer.deliver(whole[: -MIN_DIRECT + 1])
    assert len(peer.wire.get_buffer(-1)) == 1 << 18
    peer.deliver(whole[-MIN_DIRECT + 1 :])
    assert reply_of(future).body == json_reply(1, 5 * MIN_DIRECT)
    assert_answers_again(peer)


async def test_a_long_body_that_breaks_off_is_lost(peer: Peer) -> None:
    whole = response(json_reply(1, 3 * MIN_DIRECT))
    future = peer.send()
    peer.deliver(whole[:2000], whole[2000:-1])
    assert not future.done()
    peer.end()
    assert kind_of(future) == LOST


async def test_a_long_body_after_which_the_server_closes(peer: Peer) -> None:
    body = json_reply(1, 3 * MIN_DIRECT)
    whole = response(body, headers=(("Connection", "close"),))
    future = peer.send()
    peer.deliver(whole[:2000], whole[2000:])
    assert reply_of(future).body == body
    assert peer.wire.closed


async def test_a_chunked_body(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(headers=CHUNKED, length=None) + chunked(b"one ", b"two ", b"three"))
    assert reply_of(future).body == b"one two three"
    assert_answers_again(peer)


async def test_a_chunked_body_byte_by_byte_with_all_its_ornaments(peer: Peer) -> None:
    whole = response(headers=CHUNKED, length=None) + chunked(
        b"one ", b"two", extension=b';name="va;lue"', trailers=b"X-Trailer: 1\r\nLocation: /x\r\nContent-Type: a/b\r\n"
    )
    future = peer.send()
    peer.deliver(*(bytes([byte]) for byte in whole))
    reply = reply_of(future)
    assert (reply.body, reply.is_json) == (b"one two", True)
    assert_answers_again(peer)


async def test_an_empty_chunked_body(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(headers=CHUNKED, length=None) + chunked())
    assert reply_of(future).body == b""
    assert_answers_again(peer)


async def test_a_large_chunk_is_not_received_in_place(peer: Peer) -> None:
    # The length that counts for that is the body's, and a chunked one has none.
    body = json_reply(1, 200_000)
    whole = response(headers=CHUNKED, length=None) + chunked(body)
    future = peer.send()
    peer.deliver(whole[:1000], whole[1000:])
    assert reply_of(future).body == body
    assert_answers_again(peer)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_body_that_ends_with_its_connection(peer: Peer, version: str) -> None:
    future = peer.send()
    peer.deliver(response(b"one ", length=None, version=version), b"two")
    assert not future.done()
    peer.end()
    assert reply_of(future).body == b"one two"
    assert peer.wire.closed


async def test_a_body_that_ends_with_its_connection_and_no_eof_before(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(b"body", length=None))
    peer.lose()
    assert reply_of(future).body == b"body"


async def test_a_reset_is_no_end_of_a_body(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(b"body", length=None))
    peer.lose(ConnectionResetError("reset"))
    assert kind_of(future) == LOST
    assert isinstance(future.exception().__cause__, ConnectionResetError)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_a_body_has_none_whatever_it_announces(peer: Peer, status: int) -> None:
    future = peer.send()
    peer.deliver(response(status=status, length=100_000))
    reply = reply_of(future)
    assert (reply.status, reply.body) == (status, b"")
    assert_answers_again(peer)


async def test_many_exchanges_on_one_wire(peer: Peer) -> None:
    for number in range(1, 200):
        body = json_reply(number, number * 700)
        future = peer.send(request_id=number)
        form = number % 3
        if form == 0:
            peer.deliver(*cut(response(body), [30 * number]))
        elif form == 1:
            peer.deliver(response(headers=CHUNKED, length=None), chunked(body[:50], body[50:]))
        else:
            peer.deliver(stream_head(), chunked(events(body)))
        result = future.result()
        assert (result if form == 2 else result.body) == body
        assert peer.network.pool.take() is peer.wire


# Heads


async def test_headers_of_many_kinds(peer: Peer) -> None:
    headers = [
        ("CONTENT-type", "Application/JSON; charset=utf-8"),
        ("mcp-SESSION-id", "  spaced out \t"),
        ("Set-Cookie", "a=b"),
        ("X-Empty", ""),
        ("Retry-After", ""),
        ("WWW-Authenticate", "Bearer a"),
        ("WWW-Authenticate", "Basic b"),
        ("Location", "/\xe9\xff"),
        ("Allow", "POST"),
    ]
    for pieces in (1, 2):
        whole = response(b"{}", headers=headers)
        future = peer.send()
        peer.deliver(*([whole] if pieces == 1 else [bytes([byte]) for byte in whole]))
        reply = reply_of(future)
        assert reply.is_answer
        assert reply.header("MCP-Session-Id") == "spaced out"
        assert reply.header("set-cookie") is None
        assert reply.header("x-empty") is None
        assert reply.header("retry-after") == ""
        assert reply.header("www-authenticate") == "Bearer a"
        assert reply.header("location") == "/\xe9\xff"
        assert reply.header("allow") == "POST"
        assert peer.network.pool.take() is peer.wire


@pytest.mark.parametrize(
    "name", ["content-encoding", "mcp-session-id", "retry-after", "location", "www-authenticate", "allow"]
)
async def test_a_header_of_one_response_is_not_in_the_next(peer: Peer, name: str) -> None:
    first = peer.send(request_id=1)
    peer.deliver(response(b"1", headers=((name.title(), "identity"),)))
    assert reply_of(first).header(name) == "identity"
    assert peer.network.pool.take() is peer.wire
    second = peer.send(request_id=2)
    peer.deliver(response(b"2", headers=()))
    assert reply_of(second).header(name) is None
    assert not reply_of(second).is_json


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("application/json;charset=utf-8", True),
        ("application/json ; charset=utf-8", True),
        ("APPLICATION/JSON", True),
        ("application/json5", False),
        ("application/json-seq", False),
        ("application/jso", False),
        ("text/html", False),
        ("", False),
    ],
)
async def test_what_counts_as_json(peer: Peer, content_type: str, is_json: bool) -> None:
    future = peer.send()
    peer.deliver(response(b"{}", headers=(("Content-Type", content_type),)))
    reply = reply_of(future)
    assert (reply.is_json, reply.is_answer, reply.is_event_stream) == (is_json, is_json, False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "unheard-of"])
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_what_is_compressed_is_a_body_as_it_stands(peer: Peer, encoding: str, content_type: str) -> None:
    future = peer.send()
    headers = (("Content-Encoding", encoding), ("Content-Type", content_type))
    peer.deliver(response(b"data: <1>\n\n", headers=headers))
    reply = reply_of(future)
    assert reply.body == b"data: <1>\n\n"
    assert not reply.is_json
    assert not reply.is_event_stream
    assert reply.header("content-encoding") == encoding
    assert_answers_again(peer)


async def test_identity_is_no_compression(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(b"{}", headers=(("Content-Type", "application/json"), ("Content-Encoding", " Identity "))))
    assert reply_of(future).is_answer


@pytest.mark.parametrize("status", [100, 102, 103, 199])
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
async def test_interim_responses_are_passed_over(peer: Peer, status: int, pieces: str) -> None:
    interim = response(status=status, headers=(("Content-Type", "text/event-stream"), ("Location", "/x")), length=None)
    whole = interim * 3 + response(b"final", headers=())
    future = peer.send()
    peer.deliver(*([whole] if pieces == "whole" else [bytes([byte]) for byte in whole]))
    reply = reply_of(future)
    assert (reply.status, reply.body, reply.header("location")) == (200, b"final", None)
    assert_answers_again(peer)


@pytest.mark.parametrize("together", [1, 100])
async def test_interim_responses_without_end_are_bounded(peer: Peer, together: int) -> None:
    future = peer.send(timeout=1)
    interim = response(status=103, length=None, headers=(("Link", "x" * 100),))
    received = 0
    while not future.done():
        peer.deliver(interim * together)
        received += len(interim) * together
        assert received < 2 * MAX_SILENT
    assert kind_of(future) == MALFORMED
    assert peer.wire.closed


async def test_a_few_interim_responses_before_every_reply_are_no_matter(peer: Peer) -> None:
    for number in range(1, 100):
        assert number == 1 or peer.network.pool.take() is peer.wire
        future = peer.send(request_id=number)
        peer.deliver(response(status=103, length=None, headers=(("Link", "x" * 1000),)) * 10, response(b"final"))
        assert reply_of(future).body == b"final"
    assert_answers_again(peer)


async def test_an_upgrade_that_nobody_asked_for(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(
        response(status=101, length=None, headers=(("Connection", "Upgrade"), ("Upgrade", "websocket"))) + b"frames"
    )
    assert kind_of(future) == MALFORMED
    assert peer.wire.closed


@pytest.mark.parametrize("width", [1, 2, 16, 5000])
@pytest.mark.parametrize("size", [1, 2, 100, 4096, 4097, 20_000])
async def test_a_body_of_chunks_is_all_of_them(peer: Peer, size: int, width: int) -> None:
    body = json_reply(1, size)
    future = peer.send()
    pieces = [body[at : at + width] for at in range(0, len(body), width)]
    peer.deliver(response(headers=CHUNKED, length=None) + chunked(*pieces))
    assert reply_of(future).body == body
    assert_answers_again(peer)


@pytest.mark.parametrize("width", [1, 2, 16])
async def test_a_body_of_tiny_chunks_takes_the_memory_of_its_bytes(peer: Peer, width: int) -> None:
    body = json_reply(1, LIMIT // 8)
    whole = response(headers=CHUNKED, length=None) + chunked(
        *(body[at : at + width] for at in range(0, len(body), width))
    )
    future = peer.send()
    tracemalloc.start()
    try:
        peer.deliver(whole)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reply_of(future).body == body
    assert peak < 2 * len(body)


async def test_a_growing_body_ends_at_the_limit(peer: Peer) -> None:
    future = peer.send(limit=10)
    peer.deliver(response(headers=CHUNKED, length=None) + chunked(*[b"xx"] * 5))
    assert reply_of(future).body == b"x" * 10
    assert peer.network.pool.take() is peer.wire
    future = peer.send(limit=10)
    peer.deliver(response(headers=CHUNKED, length=None) + chunked(*[b"xx"] * 5, b"x"))
    assert kind_of(future) == OVERSIZE
