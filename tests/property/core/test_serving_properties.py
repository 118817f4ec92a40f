"""Served connections under any splitting of what clients send, and any order of answers, losses and pauses."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.examples import examples
from support.served import Client, Site, post

from mcp_manager._core.serving import ServedRequest
from mcp_manager._core.serving_limits import ServingLimits

BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", b"POST /mcp HTTP/1.1\r\n\r\n", b"a\r\n\r\n" * 30, b"x" * 70_000]),
)
REQUESTS = st.builds(
    lambda body, pieces, close: post(body, *[b"Connection: close"] * close, pieces=pieces),
    BODIES,
    st.sampled_from([0, 0, 1, 2, 7]),
    st.sampled_from([False, False, False, True]),
)
NOISE = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [b"\r\n", b"\n\n", b"GET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 1\r\n", b"POST /mcp"]
    ),
)


def outcome(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes | None]], list[int], list[bytes]]:
    """Return what a server makes of a client: the requests, the statuses, and what was handed over."""
    site = Site(limits=ServingLimits(max_body=100_000))
    site.answer = lambda request: request.reply(200, b"{}")
    client = site.connect()
    client.send(*pieces)
    requests = [(request.body, request.header(b"connection")) for request in site.requests]
    return requests, client.statuses(), [web.data for web in site.webs]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut data at some places."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(at)]


@given(
    data=st.lists(st.one_of(REQUESTS, NOISE), min_size=1, max_size=4).map(b"".join),
    places=st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_any_splitting_gives_the_same(data: bytes, places: list[int]) -> None:
    assert outcome(cut(data, places)) == outcome([data])


@given(data=st.lists(REQUESTS, min_size=1, max_size=3).map(b"".join).filter(lambda data: len(data) < 2_000))
@settings(max_examples=examples(30))
def test_single_bytes_give_the_same(data: bytes) -> None:
    assert outcome([data[at : at + 1] for at in range(len(data))]) == outcome([data])


@given(bodies=st.lists(st.tuples(BODIES, st.sampled_from([0, 1, 5])), min_size=1, max_size=6))
def test_pipelined_requests_arrive_whole_and_in_order(bodies: list[tuple[bytes, int]]) -> None:
    requests, statuses, rest = outcome([b"".join(post(body, pieces=pieces) for body, pieces in bodies)])
    assert [body for body, _ in requests] == [body for body, _ in bodies]
    assert statuses == [200] * len(bodies)
    assert rest == []


class ServingModel(RuleBasedStateMachine):
    """One connection: what was sent, what was answered, and who was told of its end."""

    def __init__(self) -> None:
        super().__init__()
        self.site = Site(iterations=2, limits=ServingLimits(idle_s=10, write_s=5, max_queued=100))
        self.client: Client = self.site.connect()
        self.sent: list[bytes] = []
        self.half = b""
        self.answered = 0
        self.told: list[int] = []
        self.stream = False
        self.paused = False
        self.ended = False
        self.site.answer = self.take

    def take(self, request: ServedRequest) -> None:
        number = len(self.site.requests)
        assert number == self.answered + 1, "one request at a time"
        assert request.body == self.sent[number - 1]
        request.on_gone = lambda: self.told.append(number)

    @property
    def waits(self) -> bool:
        return len(self.site.requests) > self.answered and not self.client.transport.closing

    @property
    def alive(self) -> bool:
        return not self.client.transport.closing

    @precondition(lambda self: self.alive)
    @rule(body=BODIES, pieces=st.sampled_from([0, 0, 3]), share=st.floats(0, 1))
    def send(self, body: bytes, pieces: int, share: float) -> None:
        self.sent.append(body)
        data = self.half + post(body, pieces=pieces)
        at = int(len(data) * share)
        self.half = data[at:]
        self.client.send(data[:at])

    @precondition(lambda self: self.alive)
    @rule()
    def send_the_rest(self) -> None:
        data, self.half = self.half, b""
        self.client.send(data)

    @precondition(lambda self: self.waits and not self.stream)
    @rule(body=BODIES)
    def reply(self, body: bytes) -> None:
        self.answered += 1
        self.site.requests[self.answered - 1].reply(200, body)
        self.client.press()

    @precondition(lambda self: self.waits)
    @rule(ends=st.booleans())
    def stream_events(self, ends: bool) -> None:
        if not self.stream:
            self.events = self.site.requests[-1].open_events()
            self.stream = True
        self.events.send(b"data: x\n\n")
        # A client that reads too slowly has been cut off, and the request was told so.
        if ends and self.alive:
            self.stream = False
            self.answered += 1
            self.events.end()
            self.client.press()

    @precondition(lambda self: self.alive)
    @rule(unsent=st.sampled_from([50, 200]))
    def read_slowly(self, unsent: int) -> None:
        self.client.transport.unsent = unsent
        self.client.connection.pause_writing()
        self.paused = True

    @precondition(lambda self: self.alive and self.paused)
    @rule()
    def read_again(self) -> None:
        self.client.transport.unsent = 0
        self.paused = False
        self.client.connection.resume_writing()
        self.client.press()

    @rule(seconds=st.sampled_from([1, 4, 6]))
    def pass_time(self, seconds: int) -> None:
        self.site.pass_time(seconds)

    @rule()
    def turn(self) -> None:
        if self.alive:
            self.client.turn()
        else:
            self.site.turns.turn()

    @rule()
    def drain(self) -> None:
        self.site.pool.drain()

    @rule()
    def lose(self) -> None:
        self.client.lose()
        self.ended = True

    @invariant()
    def accounts_agree(self) -> None:
        assert len(self.site.requests) - self.answered in (0, 1)
        assert len(self.told) <= 1
        assert self.client.statuses().count(200) == self.answered + self.stream
        if self.ended:
            assert self.site.pool.open == 0
            assert len(self.site.wheel) == 0
            assert len(self.told) == len(self.site.requests) - self.answered

    def teardown(self) -> None:
        """Lose the connection, at last."""
        self.lose()
        self.accounts_agree()


TestServingModel = ServingModel.TestCase
TestServingModel.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)
