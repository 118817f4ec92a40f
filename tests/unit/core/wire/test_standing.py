"""A stream that is there to stay, and what a wire tells of one that ends before its reply."""

from __future__ import annotations

import asyncio

import pytest
from support.wires import EVENT_STREAM, Peer, chunked, events, kind_of, response, stream_head

from mcp_manager._core.http_message import LOST, MALFORMED, STANDING, UNANSWERED, Exchange, WireError


class Standing:
    """Notes what a wire tells of a standing stream."""

    def __init__(self) -> None:
        self.opened = 0
        self.messages: list[bytes] = []
        self.named: list[tuple[str, bytes]] = []

    def stream_opened(self, exchange: Exchange) -> None:
        assert exchange.head is not None and exchange.head.is_event_stream
        self.opened += 1

    def take_named_event(self, name: str, data: bytes) -> None:
        self.named.append((name, data))

    def take_event(self, exchange: Exchange, data: bytes) -> None:
        self.messages.append(data)


def error_of(future: asyncio.Future[object]) -> WireError:
    error = future.exception()
    assert isinstance(error, WireError)
    return error


@pytest.fixture
def listener() -> Standing:
    return Standing()


@pytest.fixture
def standing(peer: Peer, listener: Standing) -> asyncio.Future[object]:
    future = peer.wire.send(b"GET / HTTP/1.1\r\nContent-Length: ", Exchange(b"", STANDING, 0), listener, 4096)
    # It ends with the connection at the latest, when nobody asks for its outcome any more.
    future.add_done_callback(lambda ended: ended.exception())
    return future


async def test_it_stays_open_and_brings_events_of_any_name(
    peer: Peer, listener: Standing, standing: asyncio.Future[object]
) -> None:
    peer.deliver(stream_head())
    assert (listener.opened, standing.done()) == (1, False)
    body = b"event: endpoint\ndata: /x\n\n" + events(b"1") + b"event: empty\n\n: comment\n\n" + events(b"2")
    peer.deliver(b"%x\r\n%b\r\n" % (len(body), body))
    peer.network.pass_time(3600)
    assert (listener.messages, listener.named) == ([b"1", b"2"], [("endpoint", b"/x")])
    assert not standing.done() and not peer.wire.closed


async def test_it_is_nothing_else_than_a_reply_where_the_server_offers_none(
    peer: Peer, listener: Standing, standing: asyncio.Future[object]
) -> None:
    peer.deliver(response(b"", status=405))
    reply = standing.result()
    assert (getattr(reply, "status", None), listener.opened, peer.wire.idle) == (405, 0, True)


async def test_named_events_of_a_reply_concern_nobody(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head() + chunked(b"event: endpoint\ndata: <1>\n\n" + events(b"<1>")))
    assert future.result() == b"<1>"
    assert peer.network.listener.others == []


@pytest.mark.parametrize("graceful", [True, False])
@pytest.mark.parametrize("request_id", [1, STANDING])
async def test_the_end_tells_where_to_go_on(peer: Peer, listener: Standing, request_id: int, graceful: bool) -> None:
    future = peer.wire.send(b"GET / HTTP/1.1\r\nContent-Length: ", Exchange(b"", request_id, 0), listener, 4096)
    body = b"id: a\nretry: 70\ndata: \n\nid: b\ndata: x\n\nid: c\ndata: y"
    peer.deliver(stream_head(), b"%x\r\n%b\r\n" % (len(body), body))
    if graceful:
        peer.deliver(b"0\r\n\r\n")
    else:
        peer.lose(ConnectionResetError())
    error = error_of(future)
    # The event that was not complete did not happen.
    assert (error.kind, error.last_event_id, error.retry_ms) == (UNANSWERED if graceful else LOST, "b", 70)


async def test_a_stream_that_says_nothing_of_it(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head() + chunked(events(b"other")))
    error = error_of(future)
    assert (error.last_event_id, error.retry_ms) == ("", None)


async def test_a_connection_that_breaks_before_the_stream(peer: Peer) -> None:
    first = peer.send()
    peer.deliver(stream_head() + chunked(b"id: old\n" + events(b"<1>")))
    assert first.result() == b"<1>"
    second = peer.send(request_id=2)
    peer.lose(ConnectionResetError())
    assert (error_of(second).kind, error_of(second).last_event_id) == (LOST, "")


async def test_an_event_beyond_the_limit_ends_it(
    peer: Peer, listener: Standing, standing: asyncio.Future[object]
) -> None:
    peer.deliver(stream_head(), b"2000\r\n" + b"data: " + b"x" * (0x2000 - 6))
    assert kind_of(standing) == MALFORMED
    assert peer.wire.closed


async def test_a_second_response_ends_it(peer: Peer, listener: Standing, standing: asyncio.Future[object]) -> None:
    peer.deliver(response(events(b"1"), headers=EVENT_STREAM[:1]) + response(b"{}"))
    assert standing.done() and peer.wire.closed
