"""The HTTP lane alone: posts a body and returns the reply's. No sessions, policies or JSON: the floor of every call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import aiohttp
from yarl import URL

from mcp_manager._core.http_message import Exchange
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.request_headers import render_head

__all__ = ["BareLane", "connect"]

_LIMIT: Final = 1 << 26
_TIMEOUT_NS: Final = 30_000_000_000
_HEADERS: Final = {"Accept": "application/json, text/event-stream", "Accept-Encoding": "identity"}


class BareLane:
    """Reusable connections to one URL."""

    def __init__(self, url: str) -> None:
        self._pool = HttpPool()
        self._lanes = self._pool.lanes(URL(url))
        self._head = render_head("POST", URL(url), _HEADERS)
        self._timeout = aiohttp.ClientTimeout(total=None)

    async def post(self, body: bytes) -> bytes:
        """POST a body and return the body of the reply; of an event stream, the data of its only event."""
        now_ns = time.monotonic_ns()
        lane = self._lanes.wires.take(now_ns) or await self._lanes.connect(self._timeout)
        answer = lane.send(self._head, Exchange(body, 1, now_ns + _TIMEOUT_NS), self, _LIMIT)
        try:
            reply = await answer
        except BaseException:
            lane.abandon(answer)
            raise
        return reply if type(reply) is bytes else reply.body

    def take_event(self, exchange: Exchange, data: bytes) -> bytes | None:
        """Return the first event as the reply."""
        return data

    def take_cookies(self, values: Sequence[bytes]) -> None:
        """Ignore cookies."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


async def connect(url: str) -> BareLane:
    """Return a lane to a URL."""
    return BareLane(url)
