"""The network's side of a wire: a transport that records calls, and bytes that arrive in pieces."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from mcp_manager._core.deadlines import DeadlineWheel
from mcp_manager._core.http_message import Exchange, WireError, WireReply
from mcp_manager._core.wire import Wire, WirePool

__all__ = [
    "CHUNKED",
    "EVENT_STREAM",
    "HEAD",
    "LIMIT",
    "MAX_SILENT",
    "MIN_DIRECT",
    "Events",
    "Network",
    "Peer",
    "assert_answers_again",
    "chunked",
    "cut",
    "events",
    "json_reply",
    "kind_of",
    "reply_of",
    "response",
    "stream_head",
]

HEAD: Final = b"POST /mcp HTTP/1.1\r\nHost: server\r\nContent-Length: "
LIMIT: Final = 1 << 20
STORAGE: Final = 1 << 18
MIN_DIRECT: Final = 32768
MAX_SILENT: Final = 131072
EVENT_STREAM: Final = (("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"))
CHUNKED: Final = (("Content-Type", "application/json"), ("Transfer-Encoding", "chunked"))


class Transport:
    """The part of asyncio's transport that a wire uses; it records what is written and how it is closed."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = 0
        self.closing = False
        self.unsent = 0
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted += 1
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Events:
    """A listener that takes an event whose data starts with the mark of the exchange as the reply."""

    def __init__(self) -> None:
        self.others: list[bytes] = []
        self.error: BaseException | None = None
        self.on_event: Callable[[], object] | None = None
        self.cookies: list[bytes] = []

    def take_cookies(self, values: Sequence[bytes]) -> None:
        self.cookies += values

    def stream_opened(self, exchange: Exchange) -> None:
        pass

    def take_named_event(self, name: str, data: bytes) -> None:
        self.others.append(data)

    def flooded(self) -> None:
        pass

    def take_event(self, exchange: Exchange, data: bytes) -> object | None:
        if self.error is not None:
            raise self.error
        if self.on_event is not None:
            self.on_event()
        if not exchange.answered and data.startswith(b"<%d>" % exchange.request_id):
            exchange.answered = True
            return data
        self.others.append(data)
        return None


class Turns:
    """Simulated event-loop iterations: each reads at most ``messages`` messages; further readers wait for the next."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.left = messages
        self.waiting: list[Wire] = []

    def clock(self) -> int:
        return 0

    def spend(self, cost_ns: int) -> bool:
        self.left -= 1
        return self.left > 0

    def wait(self, reader: Wire) -> None:
        assert reader not in self.waiting
        self.waiting.append(reader)

    def leave(self, reader: Wire) -> None:
        if reader in self.waiting:
            self.waiting.remove(reader)

    def turn(self) -> None:
        """Begin the next iteration."""
        self.left = self.messages
        waiting, self.waiting = self.waiting, []
        for reader in waiting:
            reader.read_on()


class Network:
    """A clock, a deadline wheel and a pool of wires; each event-loop iteration reads at most ``messages`` messages."""

    def __init__(self, create_future: Callable[[], asyncio.Future[Any]], messages: int = 1_000_000) -> None:
        self.now = 1_000_000_000_000
        self.wheel = DeadlineWheel(lambda: self.now, lambda at_ns: None)
        self.turns = Turns(messages)
        self.pool = WirePool(self.wheel, lambda: self.now, bytearray(STORAGE), None, self.turns)
        self.create_future = create_future
        self.listener = Events()

    def connect(self) -> Peer:
        """Open a connection."""
        return Peer(self)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock and visit the deadline wheel."""
        self.now += round(seconds * 1e9)
        self.wheel.visit(self.now)


class Peer:
    """The remote end of one wire."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.transport = Transport()
        self.wire = Wire(network.pool, network.create_future)
        self.wire.attach(self.transport)  # type: ignore[arg-type]
        self.gone = False
        # Bytes that the connection holds back while the wire does not read.
        self.held = b""

    def send(
        self, body: bytes = b"{}", request_id: int = 1, *, timeout: float = 0, limit: int = LIMIT
    ) -> asyncio.Future[Any]:
        """Send a request over the wire; ``timeout`` is in seconds, 0 for none."""
        exchange = Exchange(body, request_id, self.network.now + round(timeout * 1e9) if timeout else 0)
        return self.wire.send(HEAD, exchange, self.network.listener, limit)

    def deliver(self, *pieces: bytes, insists: bool = False) -> None:
        """Let bytes arrive, each piece in as many receives as the wire's buffers require.

        ``insists``: also after the wire has closed its transport, which may notice that too late.
        """
        for piece in pieces:
            rest = memoryview(piece)
            while rest and (insists or not self.transport.closing):
                buffer = self.wire.get_buffer(-1)
                assert isinstance(buffer, memoryview) and not buffer.readonly and len(buffer) > 0
                size = min(len(buffer), len(rest))
                buffer[:size] = rest[:size]
                self.wire.buffer_updated(size)
                rest = rest[size:]

    def press(self, data: bytes = b"") -> None:
        """Let bytes arrive for as long as the wire reads; the connection holds back the rest."""
        self.held += data
        while self.held and self.transport.reading and not self.transport.closing:
            size = min(len(self.held), len(self.wire.get_buffer(-1)))
            piece, self.held = self.held[:size], self.held[size:]
            self.deliver(piece)

    def end(self) -> None:
        """Close the remote end: the wire gets an end of file and then loses its connection."""
        if not self.transport.closing:
            self.wire.eof_received()
        self.lose(None)

    def lose(self, error: Exception | None = None) -> None:
        """Report the loss of the connection to the wire, once."""
        if not self.gone:
            self.gone = True
            self.transport.closing = True
            self.wire.connection_lost(error)

    @property
    def idle(self) -> bool:
        """Whether the wire is in its pool; asserts that an idle wire is open and ready."""
        listed = self.wire in self.network.pool.idle
        assert self.network.pool.idle.count(self.wire) <= 1
        assert self.wire.idle or not listed
        assert (self.wire in self.network.pool.wires) == (not self.wire.closed)
        if self.wire.closed:
            assert self.transport.closing
            assert not self.wire.pending
        return listed


def response(
    body: bytes = b"",
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (("Content-Type", "application/json"),),
    length: int | None = -1,
    version: str = "1.1",
) -> bytes:
    """Encode a response; a ``length`` of -1 means that of the body, ``None`` omits the header."""
    lines = [f"HTTP/{version} {status} Reason", *(f"{name}: {value}" for name, value in headers)]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """Encode a complete chunked body."""
    return (
        b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk)
        + b"0\r\n"
        + trailers
        + b"\r\n"
    )


def json_reply(request_id: int, size: int = 0) -> bytes:
    """Return a body that consists of the mark of its exchange, about ``size`` bytes long."""
    mark = b"<%d>" % request_id
    return mark * max(1, size // len(mark))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut bytes at the given places, modulo their length."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[first:last] for first, last in itertools.pairwise(edges)]


def reply_of(future: asyncio.Future[Any]) -> WireReply:
    """Return the response that an exchange ended with."""
    reply = future.result()
    assert type(reply) is WireReply
    return reply


def kind_of(future: asyncio.Future[Any]) -> int:
    """Return the kind of failure that an exchange ended with."""
    error = future.exception()
    assert isinstance(error, WireError), error
    return error.kind


def events(*data: bytes) -> bytes:
    """Encode events."""
    return b"".join(b"data: %b\n\n" % each for each in data)


def stream_head(status: int = 200) -> bytes:
    """Encode the head of a chunked event stream."""
    return response(status=status, headers=EVENT_STREAM, length=None)


def assert_answers_again(peer: Peer) -> None:
    """Assert that the wire is in the pool and carries the next exchange normally."""
    assert peer.idle
    assert peer.network.pool.take() is peer.wire
    future = peer.send(request_id=999)
    body = json_reply(999)
    peer.deliver(response(body))
    assert reply_of(future).body == body
    assert peer.idle
