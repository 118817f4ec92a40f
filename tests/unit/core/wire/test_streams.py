"""Replies on event streams: delivered at once, and the wire is free when the stream is over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from support.wires import (
    EVENT_STREAM,
    HEAD,
    LIMIT,
    Peer,
    assert_answers_again,
    chunked,
    cut,
    events,
    kind_of,
    reply_of,
    response,
    stream_head,
)

from mcp_manager._core.http_message import LOST, MALFORMED, STOPPED, UNANSWERED, Exchange, WireError

# Streams of events


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
async def test_a_reply_on_a_stream(peer: Peer, pieces: str, line_end: bytes) -> None:
    text = b": comment\n\ndata: other\n\nid: 5\nevent: odd\ndata: <1>odd\n\ndata\n\nevent: message\ndata: <1>\ndata: reply\n\n"
    whole = stream_head() + chunked(text.replace(b"\n", line_end))
    future = peer.send()
    peer.deliver(*([whole] if pieces == "whole" else [bytes([byte]) for byte in whole]))
    assert future.result() == b"<1>\nreply"
    assert peer.network.listener.others == [b"other"]
    assert_answers_again(peer)


async def test_the_head_of_a_stream_is_there_before_its_reply(peer: Peer) -> None:
    exchange = Exchange(b"{}", 1, 0)
    future = peer.wire.send(HEAD, exchange, peer.network.listener, LIMIT)
    peer.deliver(response(headers=(*EVENT_STREAM, ("Mcp-Session-Id", "abc")), length=None))
    assert exchange.head is not None
    assert exchange.head.header("mcp-session-id") == "abc"
    assert exchange.head.is_event_stream
    assert not future.done()
    peer.deliver(chunked(events(b"<1>")))
    assert future.result() == b"<1>"


async def test_a_reply_does_not_wait_for_the_end_of_its_stream(peer: Peer) -> None:
    future = peer.send(timeout=5)
    peer.deliver(stream_head(), b"b\r\n" + events(b"<1>"))
    assert future.result() == b"<1>"
    assert not peer.idle
    assert not peer.wire.closed
    peer.deliver(b"\r\nd\r\n" + events(b"later") + b"\r\n")
    assert peer.network.listener.others == [b"later"]
    peer.deliver(b"0\r\n\r\n")
    assert_answers_again(peer)


@pytest.mark.parametrize("timeout", [0, 5])
async def test_a_stream_that_does_not_end_after_its_reply(peer: Peer, timeout: float) -> None:
    future = peer.send(timeout=timeout)
    peer.deliver(stream_head(), b"b\r\n" + events(b"<1>") + b"\r\n")
    assert future.result() == b"<1>"
    peer.network.pass_time(0.6)
    peer.deliver(b"5\r\n: hi\n\r\n")
    assert not peer.wire.closed
    # Comments do not prolong it.
    peer.network.pass_time(0.6)
    assert peer.wire.closed
    assert len(peer.network.wheel) == 0


async def test_a_stream_that_ends_in_time_leaves_no_deadline(peer: Peer) -> None:
    future = peer.send(timeout=5)
    peer.deliver(stream_head(), b"b\r\n" + events(b"<1>") + b"\r\n")
    assert future.result() == b"<1>"
    peer.deliver(b"0\r\n\r\n")
    assert len(peer.network.wheel) == 0
    peer.network.pass_time(10)
    assert_answers_again(peer)


async def test_a_stream_without_the_reply(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head() + chunked(events(b"other", b"another")))
    assert kind_of(future) == UNANSWERED
    # The next stream might have this one's reply.
    assert peer.wire.closed


async def test_a_stream_that_breaks_off(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head(), b"a\r\n" + events(b"<1>")[:5])
    peer.end()
    assert kind_of(future) == LOST


async def test_a_stream_that_ends_with_its_connection(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(headers=EVENT_STREAM[:1], length=None), events(b"other") + b"data: <1>")
    peer.end()
    assert kind_of(future) == UNANSWERED


async def test_a_stream_of_known_length(peer: Peer) -> None:
    text = events(b"<1>" + b"x" * 100_000)
    future = peer.send()
    whole = response(text, headers=EVENT_STREAM[:1])
    peer.deliver(*cut(whole, [100, 5000, 70_000]))
    assert future.result() == b"<1>" + b"x" * 100_000
    assert_answers_again(peer)


async def test_the_limit_is_that_of_an_event_and_not_of_the_stream(peer: Peer) -> None:
    text = events(*[b"other"] * 100, b"<1>")
    future = peer.send(limit=100)
    peer.deliver(response(text, headers=EVENT_STREAM[:1]))
    assert future.result() == b"<1>"
    assert_answers_again(peer)


@pytest.mark.parametrize("make", [ValueError, partial(WireError, MALFORMED)], ids=["any", "wire"])
async def test_what_the_listener_raises_is_the_outcome(peer: Peer, make: Callable[[str], Exception]) -> None:
    future, error = peer.send(timeout=5), make("mine")
    peer.network.listener.error = error
    peer.deliver(stream_head() + chunked(events(b"<1>", b"<1>")) + b"more")
    assert future.exception() is error
    assert peer.wire.closed
    assert len(peer.network.wheel) == 0


async def test_what_the_listener_raises_after_the_reply_concerns_nobody(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head(), b"b\r\n" + events(b"<1>") + b"\r\n")
    peer.network.listener.error = ValueError("late")
    peer.deliver(b"d\r\n" + events(b"later") + b"\r\n")
    assert future.result() == b"<1>"
    assert peer.wire.closed


@pytest.mark.parametrize("data", [b"other", b"<1>"])
async def test_a_listener_that_stops_everything(peer: Peer, data: bytes) -> None:
    network = peer.network
    future = peer.send()
    asked: list[bytes] = []

    def stop() -> None:
        asked.append(data)
        network.pool.interrupt()

    network.listener.on_event = stop
    peer.deliver(stream_head() + chunked(events(data, b"later", b"<1>")))
    assert kind_of(future) == STOPPED
    assert peer.wire.closed
    assert asked == [data]


async def test_a_second_reply_on_a_stream_is_nobodys(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head() + chunked(events(b"<1>first", b"<1>second")))
    assert future.result() == b"<1>first"
    assert peer.network.listener.others == [b"<1>second"]
    assert_answers_again(peer)


async def test_a_stream_in_place_of_a_refusal_is_a_body(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head(status=404) + chunked(events(b"<1>")))
    reply = reply_of(future)
    assert (reply.status, reply.body) == (404, events(b"<1>"))
    assert_answers_again(peer)


async def test_a_stream_that_answers_a_notification(peer: Peer) -> None:
    future = peer.send(request_id=0)
    peer.deliver(stream_head())
    reply = reply_of(future)
    assert (reply.status, reply.is_event_stream, reply.body) == (200, True, b"")
    assert not peer.idle
    peer.deliver(chunked(events(b"<0>not taken", b"other")))
    assert future.result() is reply
    assert_answers_again(peer)
