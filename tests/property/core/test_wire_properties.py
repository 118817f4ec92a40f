"""A wire and arbitrary responses in arbitrary pieces: the result, a typed error or the end, and never another's bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.examples import examples
from support.responses import SHAPES, Made, Shape, h11_reads, mark
from support.wires import Network, Peer, cut, response

from mcp_manager._core.http_message import EXPIRED, LOST, MALFORMED, OVERSIZE, STOPPED, UNANSWERED, WireError, WireReply

LIMIT = 160_000
PLACES = st.lists(st.one_of(st.integers(0, 400), st.integers(0, 200_000)), max_size=12)
FINAL_KINDS = {LOST, MALFORMED, OVERSIZE, UNANSWERED}


class _Loop(asyncio.AbstractEventLoop):
    """As much of a loop as a future needs that nobody awaits."""

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Say nothing: an outcome is looked at where it matters."""


LOOP = _Loop()


def new_network() -> Network:
    return Network(lambda: asyncio.Future(loop=LOOP))


def content_of(result: object) -> bytes:
    if type(result) is WireReply:
        return result.body
    assert type(result) is bytes
    return result


def assert_own(data: bytes, number: int, exchanges: int) -> None:
    """No mark of another exchange; what a mutation made of one's own mark is nobody's."""
    foreign = {other for other in range(1, exchanges + 1) if other != number and mark(other) in data}
    assert not foreign, f"exchange {number} got bytes of {foreign}"


# Well-formed responses


@given(SHAPES)
@settings(max_examples=examples(100))
def test_the_responses_of_these_tests_are_what_they_say(shape: Shape) -> None:
    made = shape.make(7)
    assert h11_reads(made.raw, ended=made.until_eof) == (made.status, made.body)


@given(st.lists(st.tuples(SHAPES, PLACES), min_size=1, max_size=6))
@settings(max_examples=examples(300))
def test_whatever_the_pieces_the_results_are_the_bodies_in_order(exchanges: list[tuple[Shape, list[int]]]) -> None:
    network = new_network()
    peer = network.connect()
    for number, (shape, places) in enumerate(exchanges, 1):
        made = shape.make(number)
        if peer.wire.closed:
            peer.lose()
            assert network.pool.take() is None
            peer = network.connect()
        elif number > 1:
            assert network.pool.take() is peer.wire
        future = peer.send(b"{}", number, timeout=60, limit=LIMIT)
        peer.deliver(*cut(made.raw, places))
        if made.until_eof:
            assert not future.done() or made.is_stream
            peer.end()
        result = future.result()
        if not made.is_stream:
            assert type(result) is WireReply
            assert result.status == made.status
        assert content_of(result) == made.result
        assert peer.idle == (not made.closes)
        assert peer.wire.closed == made.closes
        assert len(network.wheel) == 0
    assert set(network.listener.others) <= {b"other", *(mark(n) + b" again" for n in range(1, len(exchanges) + 1))}


@given(SHAPES, st.integers(1, 3))
@settings(max_examples=examples(100))
def test_bytes_that_come_one_by_one(shape: Shape, step: int) -> None:
    small = Shape(**{**vars(shape), "size": shape.size % 300})
    made = small.make(1)
    peer = new_network().connect()
    future = peer.send(request_id=1)
    peer.deliver(*cut(made.raw, range(0, len(made.raw), step)))
    if made.until_eof:
        peer.end()
    assert content_of(future.result()) == made.result
    assert peer.idle == (not made.closes)


# Responses that are not


TOKENS = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\x00",
        b"\xff",
        b":",
        b";",
        b"0\r\n\r\n",
        b"0",
        b"9",
        b"ffffffffffffffff",
        b"Content-Length: 5\r\n",
        b"Content-Length: 70000\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Type: text/event-stream\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 204 None\r\n\r\n",
        response(b"unasked"),
        b"data: x\n\n",
    ]
)
# Nothing that could make one mark of another.
NOISE = st.binary(max_size=4).map(lambda noise: bytes(each for each in noise if each not in b"<0123456789"))
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "repeat", "cut"]),
        # Nearly everything happens in heads.
        st.one_of(st.integers(0, 250), st.integers(0, 200_000)),
        st.integers(0, 40),
        st.one_of(TOKENS, NOISE),
    ),
    max_size=4,
)


def mutated(raw: bytes, mutations: list[tuple[str, int, int, bytes]]) -> bytes:
    for what, place, size, token in mutations:
        at = place % (len(raw) + 1)
        match what:
            case "insert":
                raw = raw[:at] + token + raw[at:]
            case "replace":
                raw = raw[:at] + token + raw[at + len(token) :]
            case "delete":
                raw = raw[:at] + raw[at + size :]
            case "repeat":
                raw = raw[: at + size] + raw[at:]
            case "cut":
                raw = raw[:at] if size > 30 else raw
    return raw


ARBITRARY = st.one_of(
    st.binary(max_size=300).map(lambda noise: noise.replace(b"<", b"")),
    st.lists(st.one_of(TOKENS, st.binary(max_size=3)), max_size=15).map(
        lambda parts: b"".join(parts).replace(b"<", b"")
    ),
)


@dataclass(frozen=True)
class Wrong:
    """A response that is not what it was, or never was any."""

    shape: Shape
    mutations: list[tuple[str, int, int, bytes]]
    arbitrary: bytes | None

    def make(self, number: int) -> bytes:
        return self.arbitrary if self.arbitrary is not None else mutated(self.shape.make(number).raw, self.mutations)


WRONG = st.builds(Wrong, SHAPES, MUTATIONS, st.one_of(st.none(), st.none(), st.none(), ARBITRARY))


def exchange_ends_and_has_only_its_own_bytes(
    exchanges: list[tuple[Wrong, list[int]]], ending: str, insists: bool
) -> None:
    network = new_network()
    peer = network.connect()
    others: list[bytes] = []
    for number, (wrong, places) in enumerate(exchanges, 1):
        if number > 1 and network.pool.take() is None:
            # One that rests is open, and not used while its far end is thought to close after every reply.
            assert peer.wire.closed or network.pool.single_use
            peer.lose()
            peer = network.connect()
        raw = wrong.make(number)
        future = peer.send(request_id=number, timeout=60, limit=LIMIT)
        peer.deliver(*cut(raw, places), insists=insists)
        if number == len(exchanges) or not peer.idle:
            match ending:
                case "end":
                    peer.end()
                case "lose":
                    peer.lose()
                case "reset":
                    peer.lose(ConnectionResetError())
            assert peer.wire.closed
        assert future.done()
        assert len(network.wheel) == 0
        error = future.exception()
        if error is not None:
            assert isinstance(error, WireError)
            assert error.kind in FINAL_KINDS
            event(f"error {error.kind}")
        else:
            result = future.result()
            assert_own(content_of(result), number, len(exchanges))
            if type(result) is WireReply:
                expected = h11_reads(raw, ended=ending != "reset")
                event("agreed" if expected else "result")
                assert expected is None or expected == (result.status, result.body)
            else:
                event("reply on a stream")
        for other in network.listener.others[len(others) :]:
            assert_own(other, number, len(exchanges))
        others = list(network.listener.others)
    peer.lose()
    assert network.pool.idle == []
    assert network.pool.wires == set()


whatever_arrives = given(
    st.lists(st.tuples(WRONG, PLACES), min_size=1, max_size=4),
    st.sampled_from(["end", "lose", "reset"]),
    st.booleans(),
)
test_whatever_arrives = settings(max_examples=examples(300))(whatever_arrives(exchange_ends_and_has_only_its_own_bytes))
test_much_more_arrives = pytest.mark.timeout(600)(
    pytest.mark.slow(settings(max_examples=examples(1500))(whatever_arrives(exchange_ends_and_has_only_its_own_bytes)))
)


# Against a model


class Far:
    """What a model knows of a wire: what is on its way to it, and what may become of that."""

    def __init__(self, network: Network) -> None:
        self.peer: Peer = network.connect()
        self.number = 0
        self.made: Made | None = None
        self.coming = b""
        self.extra = False
        self.closed = False

    @property
    def busy(self) -> bool:
        return self.made is not None


class WireMachine(RuleBasedStateMachine):
    """Three wires of one pool, and everything that can happen to them in any order."""

    @initialize()
    def connect(self) -> None:
        self.network = new_network()
        self.far = [Far(self.network) for _ in range(3)]
        self.futures: dict[int, asyncio.Future[Any]] = {}
        self.expected: dict[int, bytes] = {}
        self.abandoned: set[int] = set()
        self.due: dict[int, int] = {}
        self.count = 0

    def each(self, which: int) -> Far:
        return self.far[which]

    def drop(self, far: Far) -> None:
        """The wire must have closed; a new one takes its place."""
        far.closed = True
        assert far.peer.wire.closed
        assert not far.peer.idle
        assert far.number not in self.futures or self.futures[far.number].done() or far.number in self.abandoned
        far.peer.lose()
        self.far[self.far.index(far)] = Far(self.network)

    @rule(
        which=st.integers(0, 2),
        shape=SHAPES,
        timeout=st.sampled_from([0, 1, 5]),
        extra=st.sampled_from(["", "", "", "again", "bytes"]),
    )
    def send(self, which: int, shape: Shape, timeout: float, extra: str) -> None:
        far = self.each(which)
        if far.busy:
            return
        if far.number:
            # An idle wire is always taken from the pool, and it is the last one that became idle.
            wire = self.network.pool.take()
            if wire is None:
                # One that rests is not used while its far end is thought to close after every reply.
                assert self.network.pool.single_use
                return
            [far] = [each for each in self.far if each.peer.wire is wire]
            assert not far.busy
        self.count += 1
        far.number = self.count
        far.made = shape.make(far.number)
        far.coming = far.made.raw
        far.extra = bool(extra) and not far.made.until_eof
        if far.extra:
            far.coming += far.made.raw if extra == "again" else b"x"
        exchange_due = self.network.now + timeout * 10**9 if timeout else 0
        self.futures[far.number] = far.peer.send(request_id=far.number, timeout=timeout, limit=LIMIT)
        self.expected[far.number] = far.made.result
        if timeout:
            self.due[far.number] = exchange_due

    @rule(which=st.integers(0, 2), size=st.one_of(st.integers(1, 400), st.integers(1, 200_000)))
    def deliver(self, which: int, size: int) -> None:
        far = self.each(which)
        if not far.busy:
            return
        assert far.made is not None
        piece, far.coming = far.coming[:size], far.coming[size:]
        far.peer.deliver(piece)
        self.after_bytes(far)

    @rule(which=st.integers(0, 2))
    def deliver_all(self, which: int) -> None:
        far = self.each(which)
        if not far.busy:
            return
        piece, far.coming = far.coming, b""
        far.peer.deliver(piece)
        self.after_bytes(far)

    def after_bytes(self, far: Far) -> None:
        assert far.made is not None
        if far.extra and far.peer.idle:
            # Complete so far: what else comes must close it.
            assert far.coming
            rest, far.coming = far.coming, b""
            far.peer.deliver(rest)
            self.drop(far)
            return
        if far.coming or far.made.until_eof:
            if far.peer.wire.closed:
                # All of the response was there, and it said that it is the last one, or more came.
                assert far.made.closes or far.extra
                assert self.futures[far.number].done()
                self.drop(far)
            else:
                assert not far.peer.idle
            return
        assert self.futures[far.number].done()
        is_second = self.network.pool.single_use and len(self.network.pool.idle) == 1 and not far.peer.idle
        if far.made.closes or far.extra or is_second:
            # Of those whose far end is thought to close after every reply, one is kept.
            self.drop(far)
        else:
            assert far.peer.idle
            far.made = None

    @rule(which=st.integers(0, 2))
    def abandon(self, which: int) -> None:
        far = self.each(which)
        if far.number == 0:
            return
        future = self.futures[far.number]
        delivered = future.done()
        if not delivered:
            future.cancel()
            self.abandoned.add(far.number)
        far.peer.wire.abandon(future)
        if delivered:
            assert not far.peer.wire.closed
        else:
            self.drop(far)

    @rule(number=st.integers(0, 60))
    def abandon_what_is_long_over(self, number: int) -> None:
        future = self.futures.get(number)
        if future is None or not future.done():
            return
        for far in self.far:
            far.peer.wire.abandon(future)
            assert not far.peer.wire.closed

    @rule(seconds=st.sampled_from([0.2, 0.7, 1.3]))
    def pass_time(self, seconds: float) -> None:
        pending = {number for number, future in self.futures.items() if not future.done()}
        ending = [far for far in self.far if far.busy and self.futures[far.number].done()]
        self.network.pass_time(seconds)
        for far in list(self.far):
            if far.number in pending:
                late = far.number in self.due and self.due[far.number] + 5_000_000 < self.network.now
                early = far.number not in self.due or self.due[far.number] > self.network.now
                if late:
                    error = self.futures[far.number].exception()
                    assert isinstance(error, WireError) and error.kind == EXPIRED
                if early:
                    assert not self.futures[far.number].done()
                if self.futures[far.number].done():
                    self.drop(far)
            elif far in ending:
                # The reply is there and its stream goes on: for a second.
                assert far.made is not None and far.made.is_stream
                if far.peer.wire.closed:
                    self.drop(far)
                else:
                    assert seconds < 1.1

    @rule(which=st.integers(0, 2), error=st.sampled_from(["eof", "lost", "reset"]))
    def end(self, which: int, error: str) -> None:
        far = self.each(which)
        if error == "reset":
            far.peer.lose(ConnectionResetError())
        elif error == "lost":
            far.peer.lose()
        else:
            far.peer.end()
        if far.number:
            future = self.futures[far.number]
            assert future.done()
            whole = far.made is not None and far.made.until_eof and not far.coming and error != "reset"
            if whole:
                assert content_of(future.result()) == self.expected[far.number]
            elif far.made is not None and far.made.until_eof and not future.cancelled() and not future.exception():
                # Nobody can tell that such a body was cut short.
                body = content_of(future.result())
                assert self.expected[far.number].startswith(body)
                self.expected[far.number] = body
        self.drop(far)

    @rule(which=st.integers(0, 2), data=st.sampled_from([b"x", b"\r\n", response(b"<0>")]))
    def speak_unasked(self, which: int, data: bytes) -> None:
        far = self.each(which)
        if not far.busy:
            far.peer.deliver(data)
            self.drop(far)

    @rule()
    def interrupt(self) -> None:
        pending = {number for number, future in self.futures.items() if not future.done()}
        self.network.pool.interrupt(self.network.listener)
        for number in pending:
            error = self.futures[number].exception()
            assert isinstance(error, WireError) and error.kind == STOPPED
        for far in list(self.far):
            if far.busy:
                self.drop(far)
            else:
                assert not far.peer.wire.closed

    @rule()
    def sweep(self) -> None:
        idle = {id(wire) for wire in self.network.pool.idle}
        self.network.pool.sweep()
        for far in list(self.far):
            if far.peer.wire.closed:
                assert id(far.peer.wire) in idle
                self.drop(far)

    @invariant()
    def nobody_has_anything_of_another(self) -> None:
        for number, future in self.futures.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                assert content_of(future.result()) == self.expected[number]

    @invariant()
    def what_may_be_used_again_is_in_the_pool_and_nothing_else(self) -> None:
        for far in self.far:
            assert not far.peer.wire.closed
            assert far.peer.idle == (far.number > 0 and not far.busy)
        assert len(self.network.pool.wires) == 3


TestWires = WireMachine.TestCase
TestWires.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
