"""A proxy between a client and a server that spoils the connection, whatever is spoken on it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self, TypedDict, Unpack
from urllib.parse import urlsplit

import msgspec

from mcp_manager.testing.scripted.listening import stop_listening

__all__ = ["FaultProxy", "ProxyFaultFields", "ProxyFaults"]

_WAIT_S: Final = 10.0
_PIECE: Final = 65536


_LEAST: Final = {"latency_s": 0, "jitter_s": 0, "bytes_per_s": 1, "piece": 1, "stall_after": 0, "reset_after": 0}
_OPTIONAL: Final = ("bytes_per_s", "piece", "stall_after", "reset_after")


class ProxyFaults(msgspec.Struct, kw_only=True, frozen=True):
    """What a proxy does to the bytes of a server; the defaults do nothing.

    Parameters
    ----------
    latency_s, jitter_s
        Seconds that every piece of data waits, and a random part of at most ``jitter_s`` more.
    bytes_per_s
        The bandwidth of each connection; ``None`` for no limit.
    piece
        The most bytes in one piece, to have a response arrive in many; ``None`` for no limit.
    stall_after
        Pass on nothing after so many bytes of a connection, and keep it open; ``None`` for never.
    reset_after
        Reset the connection after so many bytes of it; ``None`` for never.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    piece: int | None = None
    stall_after: int | None = None
    reset_after: int | None = None

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is None and name in _OPTIONAL:
                continue
            if not is_number or not value >= least or value == math.inf:
                raise ValueError(f"{name} is a number of {least} at least, not {value!r}")


class ProxyFaultFields(TypedDict, total=False):
    """The fields of :class:`ProxyFaults`, as keyword arguments that editors complete."""

    latency_s: float
    jitter_s: float
    bytes_per_s: float | None
    piece: int | None
    stall_after: int | None
    reset_after: int | None


class FaultProxy:
    """A TCP proxy on loopback, on a thread of its own; ``with`` starts and ends it.

    What clients send is passed on as it is; :attr:`faults` apply to what the server sends, on connections that are open
    as well as on new ones.

    Parameters
    ----------
    target
        The URL to pass requests on to: ``http://127.0.0.1:8080/mcp``. One of https is passed through unread.
    faults
        The faults at the start; none by default.
    seed
        The seed of the jitter.
    """

    def __init__(self, target: str, faults: ProxyFaults | None = None, *, seed: int = 0) -> None:
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"a proxy needs a URL of http or https, not {target!r}")
        self._target = parts
        self.faults: ProxyFaults = faults or ProxyFaults()
        self.port: int = 0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop.is_closed():
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The URL by which the target is reached through this proxy."""
        return self._target._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    def set(self, **faults: Unpack[ProxyFaultFields]) -> None:
        """Replace all faults; see :class:`ProxyFaults`. Without arguments: none."""
        self.faults = ProxyFaults(**faults)

    def down(self) -> None:
        """Refuse connections, and reset those that are open."""
        self._run(self._go_down())

    def up(self) -> None:
        """Accept connections again, on the same port."""
        self._run(self._listen())

    def reset(self) -> None:
        """Reset the connections that are open, and accept new ones."""
        self._run(self._reset())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _go_down(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await stop_listening(listener)
        await self._reset()

    async def _reset(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self) -> None:
        await self._go_down()
        # Transports tell of their end within the next iterations of the loop.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        is_closed = False
        try:
            await self._connect(reader, writer)
            is_closed = True
        except (asyncio.CancelledError, OSError):
            _reset(writer)
        finally:
            if not is_closed:
                writer.transport.abort()
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._target.port or (443 if self._target.scheme == "https" else 80)
        from_server, to_server = await asyncio.open_connection(self._target.hostname, port)
        ways = [
            asyncio.ensure_future(_pass_on(reader, to_server)),
            asyncio.ensure_future(self._spoil(from_server, writer)),
        ]
        request, response = ways
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if not response.done():
                request.result()
                # A client may end its side, and wait for the response.
                to_server.write_eof()
                await asyncio.wait([response])
            if response.done():
                response.result()
                # What a slow client has not read yet is sent first.
                writer.close()
                await writer.wait_closed()
        finally:
            # Before the next wait, which a reset of all connections may cancel.
            to_server.transport.abort()
            for way in ways:
                way.cancel()
            ends = await asyncio.gather(*ways, return_exceptions=True)
        end = None
        try:
            for end in ends:
                if isinstance(end, OSError):
                    raise end
        finally:
            # The traceback of an error holds this frame.
            del ends, end

    async def _spoil(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await reader.read(_PIECE):
            while data:
                faults = self.faults
                if faults.reset_after is not None and passed >= faults.reset_after:
                    raise ConnectionResetError
                if faults.stall_after is not None and passed >= faults.stall_after:
                    await _until(lambda: self.faults.stall_after is None)
                    continue
                size = _size(faults, passed, len(data))
                piece, data = data[:size], data[size:]
                await asyncio.sleep(_delay_s(faults, size, self._random))
                writer.write(piece)
                await writer.drain()
                passed += size
                if self.faults.reset_after is not None and passed >= self.faults.reset_after:
                    raise ConnectionResetError


def _size(faults: ProxyFaults, passed: int, most: int) -> int:
    """Return the size of the next piece, which ends where a fault begins."""
    ends = [end - passed for end in (faults.reset_after, faults.stall_after) if end is not None]
    return max(1, min([most, *ends, *([] if faults.piece is None else [faults.piece])]))


def _delay_s(faults: ProxyFaults, size: int, source: random.Random) -> float:
    transfer_s = 0.0 if faults.bytes_per_s is None else size / faults.bytes_per_s
    return faults.latency_s + source.random() * faults.jitter_s + transfer_s


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the faults are set on another thread
        await asyncio.sleep(0.01)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
