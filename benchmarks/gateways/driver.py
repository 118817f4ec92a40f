"""A client of gateways that costs little: ready requests, and replies of which only the length is read."""

from __future__ import annotations

import asyncio
import time
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Driver", "Round"]

_END: Final = b"\r\n\r\n"
_EMPTY_CHUNK: Final = b"0\r\n\r\n"


class Round:
    """The outcome of some calls: seconds of each, and of all together."""

    def __init__(self, latencies: list[float], wall_s: float) -> None:
        self.latencies = sorted(latencies)
        self.wall_s = wall_s

    def percentile(self, share: float) -> float:
        """Return the latency that this share of the calls stayed below, in seconds."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the reply to the last one is complete."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.transport: asyncio.Transport
        self.head = b""
        self.missing = -1
        self.chunked = False
        self.tail = b""
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # that of a TCP connection can write

    def send(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(self.driver.request)

    def data_received(self, data: bytes) -> None:
        if self.missing < 0 and not self.chunked:
            self.head += data
            end = self.head.find(_END)
            if end < 0:
                return
            head = self.head[:end].lower()
            data, self.head = self.head[end + 4 :], b""
            if not head.startswith(b"http/1.1 200"):
                self.driver.fail(RuntimeError(f"the gateway answered {head[:60]!r}"))
                return
            self.chunked = b"transfer-encoding: chunked" in head
            if not self.chunked:
                self.missing = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if self.chunked:
            self.tail = (self.tail + data)[-64:]
            complete = self.tail.endswith(_EMPTY_CHUNK)
        else:
            self.missing -= len(data)
            self.tail = (self.tail + data)[-64:]
            complete = self.missing == 0
        if complete:
            self.missing, self.chunked = -1, False
            tail, self.tail = self.tail, b""
            self.driver.answered(self, time.perf_counter() - self.began, tail)

    def connection_lost(self, error: Exception | None) -> None:
        self.driver.lost(self, error or ConnectionError("the gateway closed a connection"))


class Driver:
    """Keep some calls in flight, each on a connection of its own.

    Parameters
    ----------
    url
        The endpoint.
    fields
        Further header fields, as lines.
    body
        The message that is sent again and again.
    """

    def __init__(self, url: str, body: bytes, fields: bytes = b"") -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.request = (
            b"POST %b HTTP/1.1\r\nHost: %b\r\nAccept: application/json, text/event-stream\r\n"
            b"Content-Type: application/json\r\nUser-Agent: benchmark\r\nAccept-Encoding: gzip, deflate\r\n%b"
            b"Content-Length: %d\r\n\r\n%b"
        ) % (parts.path.encode(), parts.netloc.encode(), fields, len(body), body)
        self._connections: list[_Connection] = []
        self._reopening: set[asyncio.Task[None]] = set()
        self._left = 0
        self._open = 0
        self._latencies: list[float] = []
        self._done: asyncio.Future[None] | None = None
        self.last = b""

    async def run(self, calls: int, in_flight: int) -> Round:
        """Make some calls."""
        loop = asyncio.get_running_loop()
        while len(self._connections) < in_flight:
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
            self._connections.append(connection)
        self._latencies, self._done = [], loop.create_future()
        self._left, self._open = calls - in_flight, in_flight
        began = time.perf_counter()
        for connection in self._connections[:in_flight]:
            connection.send()
        await self._done
        return Round(self._latencies, time.perf_counter() - began)

    def answered(self, connection: _Connection, latency: float, tail: bytes) -> None:
        """Take the end of a reply; go on, or end the round."""
        self._latencies.append(latency)
        self.last = tail
        if self._left > 0:
            self._left -= 1
            connection.send()
            return
        self._open -= 1
        if self._open == 0 and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def lost(self, connection: _Connection, error: Exception) -> None:
        """Forget a connection; some gateways close those that are idle for a few seconds."""
        if connection in self._connections:
            self._connections.remove(connection)
        if self._done is None or self._done.done():
            return
        if connection.head or connection.tail or connection.missing >= 0:
            self.fail(error)
            return
        # Some close after each event stream, without saying so.
        task = asyncio.ensure_future(self._send_again())
        self._reopening.add(task)
        task.add_done_callback(self._reopening.discard)

    async def _send_again(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError as error:
            self.fail(error)
            return
        self._connections.append(connection)
        connection.send()

    def fail(self, error: BaseException) -> None:
        """End the round with an error."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    def close(self) -> None:
        """Close the connections."""
        self._done = None
        for connection in list(self._connections):
            connection.transport.abort()
        self._connections.clear()
