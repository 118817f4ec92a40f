"""The network's side of a served connection: a transport that records, bytes that arrive in pieces, a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from mcp_manager._core.deadlines import DeadlineWheel
from mcp_manager._core.serving import Connection, ServedRequest, ServingPool
from mcp_manager._core.serving_limits import ServingLimits

from .wires import Transport, Turns, chunked

__all__ = ["ENDPOINT", "Client", "ServedTransport", "Site", "post"]

ENDPOINT: Final = b"/mcp"


def post(
    body: bytes = b"{}", *fields: bytes, target: bytes = ENDPOINT, version: bytes = b"1.1", pieces: int = 0
) -> bytes:
    """Write a POST; with ``pieces``, its body is chunked into about that many."""
    head = b"POST %b HTTP/%b\r\nHost: gateway\r\n%b" % (target, version, b"".join(b"%b\r\n" % each for each in fields))
    if not pieces:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    size = max(1, -(-len(body) // pieces))
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*parts)


class ServedTransport(Transport):
    """A transport of a server."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.ended = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return True

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closing = True


class Web:
    """The server that the others are handed over to; it records what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data


class Site:
    """A pool with a clock; each request is kept, and answered by ``answer``, if there is one.

    ``takes_sessions``: GETs for event streams and DELETEs are requests as well.
    """

    def __init__(
        self, *, iterations: int = 1_000_000, limits: ServingLimits | None = None, takes_sessions: bool = False
    ) -> None:
        self.now = 1_000_000_000_000
        self.wheel = DeadlineWheel(lambda: self.now, lambda at_ns: None)
        self.turns = Turns(iterations)
        self.requests: list[ServedRequest] = []
        self.answer: Callable[[ServedRequest], object] | None = None
        self.webs: list[Web] = []
        self.pool = ServingPool(
            self.wheel,
            lambda: self.now,
            on_request=self._take,
            on_session_request=self._take if takes_sessions else None,
            is_endpoint=lambda path: path == ENDPOINT,
            make_web_protocol=self._web,
            limits=limits,
            turns=self.turns,
        )

    def _take(self, request: ServedRequest) -> None:
        self.requests.append(request)
        if self.answer is not None:
            self.answer(request)

    def _web(self) -> Web:
        self.webs.append(Web())
        return self.webs[-1]

    def connect(self) -> Client:
        """Open a connection."""
        return Client(self)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock and visit the deadline wheel."""
        self.now += round(seconds * 1e9)
        self.wheel.visit(self.now)


class Client:
    """The remote end of one connection."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.transport = ServedTransport()
        self.connection: Connection = site.pool()
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.held = b""
        self.gone = False

    def send(self, *pieces: bytes) -> None:
        """Let bytes arrive, each piece in as many receives as the buffers require, while the server reads."""
        for piece in pieces:
            self.held += piece
            self.press()

    def press(self) -> None:
        """Let what is held back arrive, for as long as the server reads."""
        while self.held and self.transport.reading and not self.transport.closing:
            if self.transport.protocol is not self.connection:
                data, self.held = self.held, b""
                self.transport.protocol.data_received(data)
                return
            buffer = self.connection.get_buffer(-1)
            size = min(len(buffer), len(self.held))
            buffer[:size] = self.held[:size]
            self.held = self.held[size:]
            del buffer
            self.connection.buffer_updated(size)

    def turn(self) -> None:
        """Begin the next iteration of the loop."""
        self.site.turns.turn()
        self.press()

    def lose(self, error: Exception | None = None) -> None:
        """Tell the server, once, that the connection has ended."""
        if not self.gone:
            self.gone = True
            self.transport.closing = True
            if self.transport.protocol is self.connection:
                self.connection.connection_lost(error)

    @property
    def received(self) -> bytes:
        """All that the server has written."""
        return b"".join(self.transport.written)

    def statuses(self) -> list[int]:
        """Return the statuses of the responses, whose bodies have none in them."""
        return [int(line.split()[1]) for line in lines(self.received) if line.startswith(b"HTTP/1.1 ")]


def lines(text: bytes) -> Iterable[bytes]:
    """Cut a text at the ends of lines and before each status line."""
    return text.replace(b"HTTP/1.1 ", b"\r\nHTTP/1.1 ").split(b"\r\n")
