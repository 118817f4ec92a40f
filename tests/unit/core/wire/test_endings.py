"""What ends an exchange or a connection, and whether a wire may be used again."""

from __future__ import annotations

import ctypes

import pytest
from support.wires import (
    CHUNKED,
    EVENT_STREAM,
    HEAD,
    LIMIT,
    MIN_DIRECT,
    Network,
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

from mcp_manager._core.http_message import EXPIRED, LOST, STOPPED, UNANSWERED, Exchange
from mcp_manager._core.wire import Wire, WirePool

# After the response, or without a request


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("connection", "reused"), [(None, {"1.1"}), ("close", set()), ("keep-alive", {"1.0", "1.1"}), ("Close", set())]
)
async def test_connections_that_the_server_ends(
    peer: Peer, version: str, connection: str | None, reused: set[str]
) -> None:
    future = peer.send()
    headers = (("Connection", connection),) if connection else ()
    peer.deliver(response(b"body", headers=headers, version=version))
    assert reply_of(future).body == b"body"
    assert peer.idle == (version in reused)
    assert peer.wire.closed == (version not in reused)


@pytest.mark.parametrize("size", [3, 2 * MIN_DIRECT])
async def test_a_body_of_http_1_0_is_not_followed_by_another(peer: Peer, size: int) -> None:
    whole = response(b"x" * size, version="1.0")
    future = peer.send()
    peer.deliver(whole[:50], whole[50:])
    assert len(reply_of(future).body) == size
    assert peer.wire.closed


async def test_the_connection_is_asked_about_for_each_response_alone(network: Network, peer: Peer) -> None:
    body = b"x" * 2 * MIN_DIRECT
    whole = response(body)
    future = peer.send()
    peer.deliver(whole[:100], whole[100:])
    assert reply_of(future).body == body
    assert network.pool.take() is peer.wire
    future = peer.send(request_id=2)
    peer.deliver(response(b"bye", headers=(("Connection", "close"),)))
    assert reply_of(future).body == b"bye"
    assert peer.wire.closed


@pytest.mark.parametrize("extra", [response(b"second"), b"HTTP/1.1 ", b"garbage", response(status=103, length=None)])
@pytest.mark.parametrize("first", [response(b"first"), response(headers=CHUNKED, length=None) + chunked(b"first")])
async def test_more_than_the_response_in_one_read(peer: Peer, first: bytes, extra: bytes) -> None:
    future = peer.send()
    peer.deliver(first + extra)
    assert reply_of(future).body == b"first"
    assert peer.wire.closed
    assert peer.network.pool.take() is None


async def test_more_than_a_body_received_in_place(peer: Peer) -> None:
    body = json_reply(1, 5 * MIN_DIRECT)
    whole = response(body)
    future = peer.send()
    peer.deliver(whole[:2000])
    # A transport fills what it is given and hands out the rest later: the wire must not be free in between.
    buffer = peer.wire.get_buffer(-1)
    arriving = (whole[2000:] + response(b"second"))[: len(buffer)]
    assert len(arriving) > len(whole[2000:])
    buffer[: len(arriving)] = arriving
    peer.wire.buffer_updated(len(arriving))
    reply = reply_of(future)
    assert reply.body == body
    assert ctypes.string_at(id(reply.body) + bytes.__basicsize__ - 1, len(body) + 1) == body + b"\0"
    assert peer.wire.closed
    assert peer.network.pool.take() is None


async def test_more_than_a_stream_in_one_read(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head() + chunked(events(b"<1>first")) + response(b"second"))
    assert future.result() == b"<1>first"
    assert peer.wire.closed


@pytest.mark.parametrize(
    "data", [response(b"unasked"), b"\r\n", b"x", response(status=408, headers=(("Connection", "close"),))]
)
async def test_bytes_that_nobody_asked_for(peer: Peer, data: bytes) -> None:
    peer.deliver(data)
    assert peer.wire.closed
    assert not peer.idle


async def test_bytes_between_two_exchanges(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(b"one"))
    assert reply_of(future).body == b"one"
    peer.deliver(response(b"two"))
    assert peer.wire.closed
    assert peer.network.pool.take() is None


async def test_a_second_response_while_the_first_goes_on(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(response(status=200, headers=EVENT_STREAM, length=None))
    peer.deliver(chunked(events(b"other")) + response(b"<1>"))
    assert kind_of(future) == UNANSWERED
    assert peer.wire.closed


@pytest.mark.parametrize("late", [False, True])
async def test_a_response_that_overtook_its_request(peer: Peer, late: bool) -> None:
    future = peer.send(b"x" * 100_000)
    peer.transport.unsent = 50_000
    whole = response(b"refused", status=413)
    peer.deliver(whole[:20])
    if not late:
        # It has left by the time the response is complete.
        peer.transport.unsent = 0
    peer.deliver(whole[20:])
    assert reply_of(future).body == b"refused"
    assert peer.wire.closed == late
    assert peer.idle == (not late)


async def test_a_stream_that_ended_before_its_request_had_left(peer: Peer) -> None:
    future = peer.send(b"x" * 100_000)
    peer.transport.unsent = 50_000
    peer.deliver(stream_head() + chunked(events(b"<1>")))
    assert future.result() == b"<1>"
    assert peer.wire.closed


async def test_a_wire_that_retires_carries_its_exchange_to_the_end(network: Network, peer: Peer) -> None:
    future = peer.send()
    peer.wire.retire()
    assert not peer.wire.closed
    peer.deliver(response(b"last"))
    assert reply_of(future).body == b"last"
    assert peer.wire.closed
    other = network.connect()
    other.send().cancel()
    other.deliver(response(b"x"))
    assert other.idle
    other.wire.retire()
    assert other.wire.closed
    assert not other.idle
    other.wire.retire()
    other.lose()


# Giving up


async def test_abandoning_before_during_and_after(network: Network, peer: Peer) -> None:
    whole = response(json_reply(1, 100_000))
    for received in (0, 10, 200, 50_000):
        other = network.connect()
        future = other.send(timeout=5)
        if received:
            other.deliver(*cut(whole[:received], [100]))
        future.cancel()
        other.wire.abandon(future)
        assert other.wire.closed
        assert other.transport.aborted == 1
        assert not other.idle
        # What has been on its way meanwhile.
        other.wire.buffer_updated(len(whole[: len(other.wire.get_buffer(-1))]))
        other.lose()
        assert future.cancelled()
    assert len(network.wheel) == 0
    future = peer.send()
    peer.deliver(whole)
    peer.wire.abandon(future)
    assert peer.idle
    assert network.pool.take() is peer.wire
    second = peer.send(request_id=2)
    peer.wire.abandon(future)
    assert not peer.wire.closed
    peer.deliver(response(b"two"))
    assert reply_of(second).body == b"two"


async def test_a_reply_for_a_cancelled_future(peer: Peer) -> None:
    # Between the cancellation and abandon() lies a turn of the loop.
    future = peer.send()
    future.cancel()
    peer.deliver(response(b"late"))
    assert peer.idle
    assert peer.network.pool.take() is peer.wire
    second = peer.send(request_id=2)
    peer.wire.abandon(future)
    peer.deliver(response(b"two"))
    assert reply_of(second).body == b"two"
    assert_answers_again(peer)


@pytest.mark.parametrize("how", ["malformed", "lost", "expired", "interrupted", "listener"])
async def test_a_failure_for_a_cancelled_future(peer: Peer, how: str) -> None:
    future = peer.send(timeout=1)
    future.cancel()
    match how:
        case "malformed":
            peer.deliver(b"garbage")
        case "lost":
            peer.lose(OSError())
        case "expired":
            peer.network.pass_time(2)
        case "interrupted":
            peer.network.pool.interrupt()
        case "listener":
            peer.network.listener.error = ValueError()
            peer.deliver(stream_head() + chunked(events(b"x")))
    assert peer.wire.closed
    assert future.cancelled()


async def test_abandoning_while_the_stream_ends(peer: Peer) -> None:
    future = peer.send()
    peer.deliver(stream_head(), b"b\r\n" + events(b"<1>") + b"\r\n")
    peer.wire.abandon(future)
    assert not peer.wire.closed
    peer.deliver(b"0\r\n\r\n")
    assert_answers_again(peer)


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        response(length=50) + b"x" * 49,
        response(length=90_000) + b"x" * 40_000,
        response(headers=EVENT_STREAM, length=None) + b"5\r\n: hi\n\r\n",
        response(status=103, length=None),
    ],
    ids=["nothing", "head", "body", "direct", "stream", "interim"],
)
@pytest.mark.parametrize(
    "how", ["expired", "interrupted", "interrupted-listener", "eof", "closed", "reset", "unknown-listener"]
)
async def test_every_end_in_every_state(peer: Peer, before: bytes, how: str) -> None:
    future = peer.send(timeout=1)
    peer.deliver(*([before] if before else []))
    assert not future.done()
    peer.network.pass_time(0.5)
    assert not future.done()
    expected = LOST
    match how:
        case "expired":
            peer.network.pass_time(0.51)
            expected = EXPIRED
        case "interrupted":
            peer.network.pool.interrupt()
            expected = STOPPED
        case "interrupted-listener":
            peer.network.pool.interrupt(peer.network.listener)
            expected = STOPPED
        case "eof":
            peer.end()
        case "closed":
            peer.lose()
        case "reset":
            peer.lose(ConnectionResetError("reset"))
        case "unknown-listener":
            peer.network.pool.interrupt(object())
            assert not future.done()
            peer.lose()
    assert kind_of(future) == expected
    assert peer.wire.closed
    assert peer.transport.aborted <= 1
    assert (future.exception().__cause__ is not None) == (how == "reset")
    assert len(peer.network.wheel) == 0


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
@pytest.mark.parametrize("state", ["new", "idle", "ending"])
async def test_the_end_of_a_connection_that_carries_nothing(peer: Peer, state: str, error: Exception | None) -> None:
    if state == "idle":
        peer.send().cancel()
        peer.deliver(response(b"x"))
        assert peer.idle
    elif state == "ending":
        future = peer.send()
        peer.deliver(stream_head(), b"b\r\n" + events(b"<1>") + b"\r\n")
        assert future.result() == b"<1>"
    peer.lose(error)
    assert peer.wire.closed
    assert peer.network.pool.take() is None
    assert len(peer.network.wheel) == 0


async def test_an_error_names_what_broke_the_connection(peer: Peer) -> None:
    future = peer.send()
    error = ConnectionResetError("reset")
    peer.lose(error)
    assert kind_of(future) == LOST
    assert future.exception().__cause__ is error
    assert "ConnectionResetError" in str(future.exception())


async def test_losing_is_told_once(network: Network, peer: Peer) -> None:
    told: list[object] = []

    class Told(Wire):
        def lost(self, error: BaseException | None) -> None:
            told.append(error)

    wire = Told(network.pool, network.create_future)
    wire.attach(peer.transport)  # type: ignore[arg-type]
    wire.close()
    assert told == []
    wire.connection_lost(None)
    assert told == [None]


# The pool


async def test_the_wire_used_last_is_taken_first(network: Network, peer: Peer) -> None:
    peers = [peer, *(network.connect() for _ in range(3))]
    for number, each in enumerate(peers):
        each.send(request_id=number).cancel()
    for number in (2, 0, 3, 1):
        peers[number].deliver(response(b"x"))
    for number in (1, 3, 0, 2):
        assert network.pool.take() is peers[number].wire
    assert network.pool.take() is None
    for each in peers:
        each.lose()


async def test_a_wire_whose_connection_is_about_to_go_is_not_taken(network: Network, peer: Peer) -> None:
    other = network.connect()
    for each in (other, peer):
        each.send().cancel()
        each.deliver(response(b"x"))
    peer.transport.closing = True
    assert network.pool.take() is other.wire
    assert network.pool.take() is None
    other.lose()


async def test_a_wire_whose_connection_is_about_to_go_is_not_idle(network: Network, peer: Peer) -> None:
    handed_over: list[Wire] = []
    network.pool.group.on_return = lambda wire: handed_over.append(wire) or True  # type: ignore[func-returns-value]
    peer.send().cancel()
    peer.deliver(response(b"x"))
    assert handed_over == [peer.wire]
    assert peer.wire.idle
    peer.transport.closing = True
    assert not peer.wire.idle


async def test_a_wire_that_is_handed_over_does_not_lie_in_the_pool(network: Network, peer: Peer) -> None:
    network.pool.group.on_return = lambda wire: True
    peer.send().cancel()
    peer.deliver(response(b"x"))
    assert network.pool.idle == []
    assert peer.wire.idle
    network.pool.group.on_return = lambda wire: False
    future = peer.send()
    peer.deliver(response(b"y"))
    assert reply_of(future).body == b"y"
    assert network.pool.idle == [peer.wire]


async def test_a_sweep_closes_what_the_last_one_saw(network: Network, peer: Peer) -> None:
    other, busy = network.connect(), network.connect()
    for each in (peer, other):
        each.send().cancel()
        each.deliver(response(b"x"))
    future = busy.send()
    network.pool.sweep()
    assert peer.idle
    assert network.pool.take() is other.wire
    other.send().cancel()
    other.deliver(response(b"x"))
    network.pool.sweep()
    assert peer.wire.closed
    assert other.idle
    network.pool.sweep()
    assert other.wire.closed
    assert not future.done()
    busy.deliver(response(b"x"))
    assert reply_of(future).body == b"x"
    other.lose()
    busy.lose()


async def test_interrupting_one_listener_leaves_the_others(network: Network, peer: Peer) -> None:
    other = network.connect()
    mine, theirs = type(network.listener)(), type(network.listener)()
    first = peer.wire.send(HEAD, Exchange(b"", 1, 0), mine, LIMIT)
    second = other.wire.send(HEAD, Exchange(b"", 2, 0), theirs, LIMIT)
    network.pool.interrupt(mine)
    assert kind_of(first) == STOPPED
    assert not second.done()
    other.deliver(response(b"x"))
    assert reply_of(second).body == b"x"
    # Idle, it is nobody's any more.
    network.pool.interrupt(theirs)
    assert other.idle
    network.pool.interrupt()
    assert other.wire.closed
    other.lose()


async def test_a_pool_wants_its_parts(network: Network, peer: Peer) -> None:
    with pytest.raises(TypeError):
        WirePool(None, lambda: 0, bytearray(10))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Wire(None, network.create_future)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        peer.wire.send(None, Exchange(b"", 1, 0), network.listener, LIMIT)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        peer.wire.send(HEAD, None, network.listener, LIMIT)  # type: ignore[arg-type]
