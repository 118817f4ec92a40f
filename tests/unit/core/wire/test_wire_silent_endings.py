"""What a wire and its pool make of connections that the far end ends without a word."""

from __future__ import annotations

import asyncio

import pytest
from support.wires import Network, Peer, json_reply, reply_of, response

from mcp_manager._core.http_message import LOST, WireError
from mcp_manager._core.wire import Wire

# Of the compiled module: what was used this lately needs no look, and an end this soon after a reply was meant for it.
FRESH_S = 0.005
AT_ONCE_S = 0.5


def failure(future: asyncio.Future[object]) -> WireError:
    error = future.exception()
    assert isinstance(error, WireError)
    return error


def serve(peer: Peer, times: int = 1) -> None:
    """Carry whole exchanges."""
    for _ in range(times):
        if peer.wire in peer.network.pool.idle:
            assert peer.network.pool.take(peer.network.now) is peer.wire
        future = peer.send(json_reply(7), request_id=7)
        peer.deliver(response(json_reply(7)))
        assert reply_of(future).status == 200


@pytest.mark.parametrize("served", [0, 1, 2])
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_request_without_a_byte_of_its_reply(network: Network, served: int, how: str) -> None:
    peer = network.connect()
    serve(peer, served)
    network.pool.take(network.now)
    future = peer.send()
    if how == "end":
        peer.end()
    else:
        peer.lose(ConnectionResetError())
    error = failure(future)
    assert (error.kind, error.unread, error.reused) == (LOST, True, served > 0)
    assert peer.wire.served == served
    assert peer.wire.broken


async def test_a_reply_that_had_begun_was_not_unread(network: Network) -> None:
    peer = network.connect()
    serve(peer)
    network.pool.take(network.now)
    future = peer.send()
    peer.deliver(b"HTTP/1.1 2")
    peer.end()
    assert not failure(future).unread


async def test_what_this_side_closes_is_not_broken(network: Network) -> None:
    peer = network.connect()
    peer.wire.close()
    peer.lose()
    assert not peer.wire.broken


@pytest.mark.parametrize("how", ["idle", "under a request"])
async def test_who_closes_right_after_the_first_reply_gets_a_wire_for_each(network: Network, how: str) -> None:
    peer = network.connect()
    serve(peer)
    if how == "idle":
        network.pass_time(AT_ONCE_S / 2)
        peer.end()
    else:
        network.pool.take(network.now)
        future = peer.send()
        peer.end()
        assert failure(future).reused
    assert network.pool.single_use
    # One is kept, to see whether it stays, and nobody gets it; the others are closed by this side.
    kept, closed = network.connect(), network.connect()
    serve(kept)
    serve(closed)
    assert not kept.wire.closed and closed.wire.closed
    assert network.pool.idle == [kept.wire]
    assert network.pool.take(network.now) is None
    assert network.pool.group.idle == 1
    # It does stay.
    network.pass_time(AT_ONCE_S * 2)
    network.pool.sweep()
    assert not network.pool.single_use
    assert network.pool.take(network.now) is kept.wire


async def test_the_one_that_is_kept_goes_when_somebody_waits_for_a_place(network: Network) -> None:
    first = network.connect()
    serve(first)
    first.end()
    offered: list[object] = []
    network.pool.group.on_return = lambda wire: offered.append(wire) or True  # type: ignore[func-returns-value]
    second = network.connect()
    serve(second)
    assert second.wire.closed and not offered
    assert network.pool.group.idle == 0


@pytest.mark.parametrize(("served", "after_s"), [(1, AT_ONCE_S * 2), (2, 0.0), (50, 0.0)])
async def test_an_idle_timeout_is_no_reason_to_distrust(network: Network, served: int, after_s: float) -> None:
    peer = network.connect()
    serve(peer, served)
    network.pass_time(after_s)
    peer.end()
    assert not network.pool.single_use


class Telling(Wire):
    """A wire that says whether there are news, and counts how often it was asked."""

    news = False
    asked = 0

    def has_news(self) -> bool:
        self.asked += 1
        return self.news


class TellingPeer(Peer):
    """The far end of such a wire."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.wire.close()
        self.lose()
        self.gone = False
        self.transport = type(self.transport)()
        self.wire: Telling = Telling(network.pool, network.create_future)
        self.wire.attach(self.transport)  # type: ignore[arg-type]


async def test_a_wire_is_looked_at_once_it_was_idle_for_a_while(network: Network) -> None:
    peer = TellingPeer(network)
    serve(peer, 3)
    assert peer.wire.asked == 0
    network.pass_time(FRESH_S * 2)
    assert network.pool.take(network.now) is peer.wire
    assert peer.wire.asked == 1
    peer.lose()


async def test_a_wire_is_looked_at_by_whoever_does_not_know_the_time(network: Network) -> None:
    peer = TellingPeer(network)
    serve(peer, 3)
    assert network.pool.take() is peer.wire
    assert peer.wire.asked == 1
    peer.lose()


async def test_after_a_request_was_lost_every_wire_is_looked_at_for_a_while(network: Network) -> None:
    peer = TellingPeer(network)
    serve(peer, 3)
    victim = network.connect()
    serve(victim, 2)
    assert network.pool.take(network.now) is victim.wire
    failed = victim.send()
    victim.end()
    assert failure(failed).reused
    serve(peer, 3)
    assert peer.wire.asked == 3
    for _ in range(40):
        serve(peer)
        network.pool.sweep()
    before = peer.wire.asked
    serve(peer, 3)
    assert peer.wire.asked == before
    peer.lose()


async def test_a_wire_with_news_is_left_to_the_loop(network: Network) -> None:
    first, second = TellingPeer(network), TellingPeer(network)
    for peer in (first, second):
        serve(peer, 2)
    second.wire.news = True
    assert network.pool.take() is first.wire
    assert network.pool.take() is None
    assert network.pool.idle == [second.wire]
    assert network.pool.group.idle == 1
    # It was a message of TLS, and no end.
    second.wire.news = False
    assert network.pool.take() is second.wire
    first.lose()
    second.lose()


async def test_cookies_are_told_before_the_reply(network: Network, peer: Peer) -> None:
    future = peer.send()
    peer.deliver(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 2\r\n\r\n")
    assert network.listener.cookies == [b"a=1", b"b=2"]
    assert not future.done()
    peer.deliver(b"{}")
    assert reply_of(future).header("set-cookie") is None
    # Not those of an interim reply, nor of the one before.
    again = network.pool.take() and peer.send()
    peer.deliver(b"HTTP/1.1 103 Early\r\nSet-Cookie: c=3\r\n\r\n" + response(b"{}"))
    assert again is not None and reply_of(again).status == 200
    assert network.listener.cookies == [b"a=1", b"b=2"]
