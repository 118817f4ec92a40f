"""Clients that listen and hear nothing: what each of their streams keeps in the gateway's memory, and what it costs."""

from __future__ import annotations

import asyncio
import json
import resource
from typing import Final
from urllib.parse import urlsplit

__all__ = ["IdleStreams", "most_streams"]

_END: Final = b"\r\n\r\n"
# Descriptors for all else that a process has open.
_OTHERS: Final = 200
_AT_ONCE: Final = 32
_LISTEN: Final = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "subscriptions/listen",
        "params": {
            "notifications": {"toolsListChanged": True},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }
).encode()
_LISTEN_FIELDS: Final = b"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: subscriptions/listen\r\n"


def most_streams(wanted: int) -> int:
    """Let this process and its children open as many descriptors as they may; return how many streams that allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(wanted, most - _OTHERS)


class _Stream(asyncio.Protocol):
    """One connection, until the first event has come."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.received = b""
        self.is_open: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # that of a TCP connection can write

    def data_received(self, data: bytes) -> None:
        if self.is_open.done():
            return
        self.received += data
        head, _, rest = self.received.partition(_END)
        if rest or b"text/event-stream" not in head:
            self.is_open.set_result(head)
            self.received = b""

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_open.done():
            self.is_open.set_exception(error or ConnectionError("the gateway closed a connection"))


class IdleStreams:
    """Open event streams, each on a connection of its own, and keep them.

    Parameters
    ----------
    url
        The endpoint.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), parts.port or 80
        self._target = parts.path.encode(), parts.netloc.encode()
        self._streams: list[_Stream] = []

    def __len__(self) -> int:
        return len(self._streams)

    async def standing(self, sessions: list[bytes]) -> None:
        """Open the standing stream of each session, as clients of 2025-11-25 do; takes header fields of sessions."""
        request = b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: text/event-stream\r\n%b\r\n"
        await self._open([request % (*self._target, fields) for fields in sessions])

    async def listening(self, count: int) -> None:
        """Open ``subscriptions/listen`` streams, as clients of 2026-07-28 do."""
        request = (
            b"POST %b HTTP/1.1\r\nHost: %b\r\nAccept: application/json, text/event-stream\r\n"
            b"Content-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
        ) % (*self._target, _LISTEN_FIELDS, len(_LISTEN), _LISTEN)
        await self._open([request] * count)

    async def _open(self, requests: list[bytes]) -> None:
        for begin in range(0, len(requests), _AT_ONCE):
            await asyncio.gather(*(self._begin(request) for request in requests[begin : begin + _AT_ONCE]))

    async def _begin(self, request: bytes) -> None:
        _, stream = await asyncio.get_running_loop().create_connection(_Stream, self._host, self._port)
        self._streams.append(stream)
        stream.transport.write(request)
        head = await stream.is_open
        if not head.startswith(b"HTTP/1.1 200") or b"text/event-stream" not in head:
            raise RuntimeError(f"the gateway opened no stream: {head[:60]!r}")

    def close(self) -> None:
        """Close all connections."""
        for stream in self._streams:
            stream.transport.abort()
        self._streams.clear()
