"""What a wire refuses: too much of anything, and what is no response."""

from __future__ import annotations

import pytest
from support.wires import (
    CHUNKED,
    MAX_SILENT,
    Peer,
    assert_answers_again,
    chunked,
    cut,
    kind_of,
    reply_of,
    response,
    stream_head,
)

from mcp_manager._core.http_message import LOST, MALFORMED, OVERSIZE

# What is too much


async def test_a_body_longer_than_the_limit_is_refused_by_its_length(peer: Peer) -> None:
    future = peer.send(limit=100)
    peer.deliver(response(length=101))
    assert kind_of(future) == OVERSIZE
    assert future.exception().size == 101
    assert peer.wire.closed


async def test_a_body_for_which_there_is_no_memory_is_no_fault_of_the_servers(peer: Peer) -> None:
    future = peer.send(limit=1 << 60)
    peer.deliver(response(b"x" * 10, length=1 << 59))
    assert isinstance(future.exception(), MemoryError)
    assert peer.wire.closed


async def test_a_body_of_the_limit_is_not(peer: Peer) -> None:
    for whole in (response(b"x" * 100), response(headers=CHUNKED, length=None) + chunked(b"x" * 60, b"x" * 40)):
        future = peer.send(limit=100)
        peer.deliver(whole)
        assert reply_of(future).body == b"x" * 100
        assert peer.network.pool.take() is peer.wire


@pytest.mark.parametrize("digits", [18, 19, 20, 21, 40])
async def test_a_length_of_many_digits(peer: Peer, digits: int) -> None:
    future = peer.send()
    peer.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * digits + b"\r\n\r\n")
    assert kind_of(future) in (OVERSIZE, MALFORMED)
    assert peer.wire.closed


@pytest.mark.parametrize(
    "length",
    [
        "-1",
        "+1",
        "1x",
        "0x10",
        "1,1",
        "1 1",
        "1\r\n 1",
        "\r\n 1",
        "",
        "1\r\nContent-Length: 1",
        "1\r\nTransfer-Encoding: chunked",
        "1\r\nTransfer-Encoding: identity",
        "\xb2",
        "1_0",
    ],
)
async def test_a_length_that_says_two_things_or_none(peer: Peer, length: str) -> None:
    future = peer.send()
    peer.deliver(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode("latin-1") + b"x" * 20)
    peer.end()
    assert kind_of(future) in (MALFORMED, LOST)


@pytest.mark.parametrize("length", ["007", "7  ", "\t7\t"])
async def test_a_length_with_room_around_it(peer: Peer, length: str) -> None:
    future = peer.send()
    peer.deliver(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + b"1234567")
    assert reply_of(future).body == b"1234567"
    assert_answers_again(peer)


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_chunked_body_longer_than_the_limit(peer: Peer, pieces: int) -> None:
    future = peer.send(limit=100)
    whole = response(headers=CHUNKED, length=None) + chunked(*[b"x" * 10] * 20)
    peer.deliver(*cut(whole, range(0, len(whole), len(whole) // pieces)))
    assert kind_of(future) == OVERSIZE
    assert future.exception().size > 100
    assert peer.wire.closed


@pytest.mark.parametrize("chunks", [[101], [100, 1], [1] * 101])
async def test_one_byte_more_than_the_limit(peer: Peer, chunks: list[int]) -> None:
    future = peer.send(limit=100)
    peer.deliver(response(headers=CHUNKED, length=None) + chunked(*(b"x" * size for size in chunks)))
    assert kind_of(future) == OVERSIZE
    assert future.exception().size == 101
    assert peer.wire.closed


async def test_a_body_without_an_end_is_cut_at_the_limit(peer: Peer) -> None:
    future = peer.send(limit=100_000)
    peer.deliver(response(length=None))
    for _ in range(11):
        assert not future.done()
        peer.deliver(b"x" * 10_000)
    assert kind_of(future) == OVERSIZE
    assert peer.wire.closed


async def test_an_event_longer_than_the_limit(peer: Peer) -> None:
    future = peer.send(limit=1000)
    peer.deliver(stream_head(), *[b"a\r\n" + b"data: xxx\n"[:10] + b"\r\n"] * 500)
    assert kind_of(future) == MALFORMED
    assert "limit" in str(future.exception()) or "exceeds" in str(future.exception())
    assert peer.wire.closed


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Long: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;extension=",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ",
    ],
    ids=["value", "reason", "names", "trailers", "trailer", "extension", "stream-trailer"],
)
async def test_what_is_not_body_has_an_end(peer: Peer, start: bytes) -> None:
    future = peer.send()
    filler = b"X-Name: value\r\n" * 300 if start.endswith(b"\n") else b"x" * 4500
    peer.deliver(start)
    for _ in range(2 * MAX_SILENT // len(filler)):
        peer.deliver(filler)
    assert kind_of(future) == MALFORMED
    assert peer.wire.closed


async def test_a_head_of_decent_length_is_none_of_that(peer: Peer) -> None:
    future = peer.send()
    headers = [(f"X-{number}", "y" * 1000) for number in range(100)]
    peer.deliver(*cut(response(b"{}", headers=headers), range(0, 10**6, 999)))
    assert reply_of(future).body == b"{}"
    assert_answers_again(peer)


async def test_what_is_not_body_is_counted_for_each_response_alone(peer: Peer) -> None:
    for _ in range(5):
        future = peer.send()
        peer.deliver(response(headers=[("X-Padding", "y" * 60_000)]))
        assert reply_of(future).status == 200
        assert peer.network.pool.take() is peer.wire


async def test_small_chunks_are_body(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(headers=CHUNKED, length=None))
    for _ in range(MAX_SILENT // 5):
        peer.deliver(b"1\r\nx\r\n")
    peer.deliver(b"0\r\n\r\n")
    assert len(reply_of(future).body) == MAX_SILENT // 5
    assert_answers_again(peer)


# What is no response


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02",
        b"HTTP/7.3 200 OK\r\n\r\n",
        b"HTTP/1.1 twohundred OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot-a-size\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked, gzip, chunked\r\n\r\n-1\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
async def test_what_is_no_http(peer: Peer, data: bytes) -> None:
    future = peer.send()
    peer.deliver(data)
    assert kind_of(future) == MALFORMED
    assert peer.wire.closed
    assert peer.transport.aborted == 1
