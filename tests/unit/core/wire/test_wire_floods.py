"""More on a stream than a turn of the loop has time for: the wire stops reading, and what came before is not lost."""

from __future__ import annotations

import asyncio

import pytest
from support.wires import (
    CHUNKED,
    HEAD,
    LIMIT,
    Network,
    Peer,
    assert_answers_again,
    chunked,
    events,
    kind_of,
    reply_of,
    response,
    stream_head,
)

from mcp_manager._core.http_message import LOST, MALFORMED, STANDING, STOPPED, UNANSWERED, Exchange

MESSAGES = 8
FLOOD = [b"other %d" % number for number in range(100)]


@pytest.fixture
async def network() -> Network:
    return Network(asyncio.get_running_loop().create_future, MESSAGES)


def others(peer: Peer) -> list[bytes]:
    return peer.network.listener.others


def flooding(peer: Peer, *after: bytes, whole: bool = False) -> asyncio.Future[bytes]:
    """Send a request whose reply is a stream that begins with a flood, in one chunk or a chunk each."""
    future = peer.send()
    flood = [b"".join(events(each) for each in FLOOD)] if whole else [events(each) for each in FLOOD]
    peer.press(stream_head() + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (*flood, *after)))
    return future


@pytest.mark.parametrize("whole", [True, False])
async def test_a_turn_has_so_many_messages_and_all_come_in_their_order(peer: Peer, whole: bool) -> None:
    future = flooding(peer, whole=whole)
    for turns in range(1, 13):
        assert others(peer) == FLOOD[: turns * MESSAGES]
        assert not peer.transport.reading
        # As long as it floods, no more is received at once than a turn may take.
        assert len(peer.wire.get_buffer(-1)) == 1 << 14
        peer.network.turns.turn()
    assert others(peer) == FLOOD[: 13 * MESSAGES]
    assert peer.transport.reading
    peer.press(b"9\r\n" + events(b"<") + b"\r\n" + chunked(events(b"<1>")))
    assert await future == b"<1>"
    assert others(peer) == [*FLOOD, b"<"]
    assert_answers_again(peer)
    assert len(peer.wire.get_buffer(-1)) == 1 << 18


async def test_what_comes_meanwhile_is_held_back(peer: Peer) -> None:
    future = flooding(peer)
    event = events(b"x" * 100)
    peer.press(b"%x\r\n%b\r\n" % (len(event), event) * 10_000)
    assert len(peer.held) == 10_000 * (len(event) + 6)
    received = []
    while peer.held:
        before = len(peer.held)
        peer.network.turns.turn()
        peer.press()
        received.append(before - len(peer.held))
    assert max(received) <= 16384
    assert not future.done()
    peer.lose(ConnectionResetError())
    while not future.done():
        peer.network.turns.turn()
    assert kind_of(future) == LOST
    assert len(others(peer)) == 100 + 10_000


async def test_the_reply_behind_a_flood_is_found_in_its_turn(peer: Peer) -> None:
    future = flooding(peer, events(b"<1>"), events(b"after"))
    for _ in range(12):
        assert not future.done()
        peer.network.turns.turn()
    assert await future == b"<1>"
    assert others(peer) == [*FLOOD, b"after"]
    peer.press(b"0\r\n\r\n")
    assert_answers_again(peer)


@pytest.mark.parametrize("answers", [True, False])
async def test_the_end_of_a_stream_comes_after_what_was_on_it(peer: Peer, answers: bool) -> None:
    future = flooding(peer, *([events(b"<1>")] if answers else []))
    peer.deliver(b"0\r\n\r\n")
    for _ in range(12):
        assert not future.done()
        peer.network.turns.turn()
    assert others(peer) == FLOOD
    if answers:
        assert await future == b"<1>"
        assert_answers_again(peer)
    else:
        assert kind_of(future) == UNANSWERED
        assert peer.wire.closed


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_the_end_of_the_connection_comes_after_what_was_on_it(peer: Peer, error: Exception | None) -> None:
    future = flooding(peer, events(b"<1>"))
    peer.lose(error)
    while not peer.wire.closed:
        peer.network.turns.turn()
    assert await future == b"<1>"
    assert others(peer) == FLOOD
    assert peer.network.turns.waiting == []


async def test_a_body_that_ends_with_its_connection(peer: Peer) -> None:
    future = peer.send()
    peer.press(response(headers=(("Content-Type", "text/event-stream"),), length=None) + events(*FLOOD, b"<1>"))
    peer.end()
    while not future.done():
        peer.network.turns.turn()
    assert await future == b"<1>"
    assert others(peer) == FLOOD


@pytest.mark.parametrize("end", ["abandoned", "expired", "interrupted"])
async def test_whatever_ends_the_exchange_ends_the_waiting(peer: Peer, end: str) -> None:
    future = peer.send(timeout=1)
    peer.press(stream_head() + b"fff\r\n" + events(*FLOOD))
    assert peer.network.turns.waiting == [peer.wire]
    match end:
        case "abandoned":
            peer.wire.abandon(future)
            future.cancel()
        case "expired":
            peer.network.pass_time(1.1)
            assert isinstance(future.exception(), Exception)
        case "interrupted":
            peer.network.pool.interrupt()
            assert kind_of(future) == STOPPED
    assert peer.wire.closed
    assert peer.network.turns.waiting == []
    peer.wire.read_on()
    assert others(peer) == FLOOD[:MESSAGES]


async def test_a_listener_that_closes_the_wire_gets_no_more(peer: Peer) -> None:
    future = flooding(peer)
    peer.network.listener.on_event = peer.network.pool.interrupt
    peer.network.turns.turn()
    assert kind_of(future) == STOPPED
    assert len(others(peer)) == MESSAGES + 1


async def test_the_connection_that_ended_meanwhile_is_given_back_when_the_wire_closes(peer: Peer) -> None:
    future = flooding(peer)
    peer.lose(ConnectionResetError())
    assert peer.wire.transport is not None
    peer.wire.abandon(future)
    future.cancel()
    assert peer.wire.transport is None


async def test_a_stream_that_floods_after_its_reply_is_given_a_second(peer: Peer) -> None:
    future = peer.send(timeout=5)
    peer.press(stream_head() + b"fff\r\n" + events(b"<1>", *FLOOD))
    assert await future == b"<1>"
    assert not peer.transport.reading
    peer.network.pass_time(0.5)
    assert not peer.wire.closed
    peer.network.pass_time(0.6)
    assert peer.wire.closed
    assert peer.network.turns.waiting == []


async def test_a_standing_stream_with_names_is_bounded_as_well(peer: Peer) -> None:
    future = peer.wire.send(HEAD, Exchange(b"", STANDING, 0), peer.network.listener, LIMIT)
    named = b"".join(b"event: odd\n" + events(each) for each in FLOOD)
    peer.press(stream_head() + b"%x\r\n" % len(named) + named)
    assert others(peer) == FLOOD[:MESSAGES]
    peer.wire.abandon(future)
    future.cancel()


async def test_an_event_that_is_too_long_fails_after_what_was_before_it(peer: Peer) -> None:
    future = peer.send(limit=1000)
    peer.press(stream_head() + b"ffff\r\n" + events(*FLOOD) + b"data: " + b"x" * 2000)
    assert others(peer) == FLOOD[:MESSAGES]
    while not future.done():
        peer.network.turns.turn()
        peer.press(b"x")
    assert kind_of(future) == MALFORMED
    assert others(peer) == FLOOD


async def test_comments_alone_are_bounded(peer: Peer) -> None:
    future = peer.send()
    peer.press(stream_head() + b"%x\r\n" % (16384 * 10) + b":\n" * (8192 * 10) + b"\r\n" + chunked(events(b"<1>")))
    assert not peer.transport.reading
    turns = 0
    while not future.done():
        turns += 1
        peer.network.turns.turn()
        peer.press()
    assert await future == b"<1>"
    assert turns >= 1


async def test_a_body_in_the_smallest_chunks_waits_for_its_turns(peer: Peer) -> None:
    body = b"[" + b"1" * 50_000 + b"]"
    peer.network.turns.messages = peer.network.turns.left = 1
    future = peer.send()
    peer.press(response(headers=CHUNKED, length=None) + chunked(*(bytes([byte]) for byte in body)))
    turns = 0
    while not future.done():
        assert not peer.transport.reading
        turns += 1
        peer.network.turns.turn()
        peer.press()
    assert reply_of(future).body == body
    # The first receive is a whole one; 300 kB are on the way.
    assert turns >= 2
    assert_answers_again(peer)


async def test_a_reply_alone_takes_nothing_of_the_turn(peer: Peer) -> None:
    for number in range(1, 4):
        assert number == 1 or peer.network.pool.take() is peer.wire
        future = peer.send(request_id=number)
        peer.press(stream_head() + chunked(events(b"<%d>" % number)))
        assert await future == b"<%d>" % number
    assert peer.network.turns.left == MESSAGES


@pytest.mark.parametrize("filler", [b":\n", b"\n", b"data\n\n"])
async def test_what_is_no_message_uses_up_a_turn_as_well(peer: Peer, filler: bytes) -> None:
    future = peer.send()
    peer.press(stream_head())
    was_held_back = False
    for _ in range(4 * MESSAGES):
        peer.press(b"ffc\r\n" + (filler * 4092)[:4092] + b"\r\n")
        if not peer.transport.reading:
            was_held_back = True
            peer.network.turns.turn()
    assert was_held_back
    assert not future.done()
    peer.press(chunked(events(b"<1>")))
    for _ in range(100_000):
        if future.done():
            break
        peer.network.turns.turn()
        peer.press()
    assert future.done()
    assert await future == b"<1>"
