"""The connections of clients: compiled code serves those of MCP, and aiohttp.web all else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aiohttp import web

from mcp_manager._core.serving import ServingPool
from mcp_manager._core.serving_limits import ServingLimits
from mcp_manager.gateway.http.descriptors import for_clients
from mcp_manager.gateway.http.web_protocol import WebProtocol
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.deadline_timer import DeadlineTimer
from mcp_manager.runtime.read_budget import read_budget

__all__ = ["Connections"]

# For responses that are on their way.
_CLOSING_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.01
_WARN_EVERY_S: Final = 60.0
_LOOK_AT_WEB_EVERY_S: Final = 5.0

_log = logging.getLogger(__name__)


class _Refused(asyncio.Protocol):
    """A connection that there is no room for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


class Endpoints(Protocol):
    """Which paths are those of endpoints."""

    def is_endpoint(self, path: bytes) -> bool:
        """Tell whether a path has the form of that of an endpoint."""


class Receiving(Protocol):
    """What takes the requests of MCP clients."""

    @property
    def endpoints(self) -> Endpoints:
        """Which paths are those of endpoints."""

    def take_session_request(self, incoming: Any) -> None:
        """Take a GET or DELETE of a session."""


class Connections:
    """Own the connections of the running loop.

    Parameters
    ----------
    app
        Serves what is not MCP.
    reception
        Takes the requests of MCP clients, apart from POSTs.
    take
        Takes their POSTs.
    max_request_bytes
        The most bytes in a body.
    """

    def __init__(
        self, app: web.Application, reception: Receiving, take: Callable[[Any], None], max_request_bytes: int
    ) -> None:
        self._runner = web.AppRunner(app, handle_signals=False, handler_cancellation=True, shutdown_timeout=_CLOSING_S)
        self._most = for_clients()
        self._warns_at = 0.0
        self._timer = DeadlineTimer()
        self._looking: asyncio.TimerHandle | None = None
        self._pool = ServingPool(
            self._timer.wheel,
            time.monotonic_ns,
            on_request=take,
            on_session_request=reception.take_session_request,
            is_endpoint=reception.endpoints.is_endpoint,
            make_web_protocol=self._web_protocol,
            limits=ServingLimits(max_body=max_request_bytes),
            turns=read_budget(),
        )

    async def start(self) -> None:
        """Prepare for connections."""
        await self._runner.setup()

    def protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol of a new connection; that is closed at once if clients have too many."""
        if self._pool.open + self._handed_over() < self._most:
            return self._pool()
        now = time.monotonic()
        if now >= self._warns_at:
            self._warns_at = now + _WARN_EVERY_S
            _log.warning(
                "the gateway refuses connections beyond %d: raise the limit of open files (ulimit -n) to allow more",
                self._most,
            )
        return _Refused()

    def drain(self) -> None:
        """Close connections after the response under way, and idle ones now."""
        self._pool.drain()

    async def aclose(self) -> None:
        """Close all connections, after a moment for responses that are on their way."""
        self._pool.drain()
        loop = asyncio.get_running_loop()
        end = loop.time() + _CLOSING_S
        while self._pool.open and loop.time() < end:  # noqa: ASYNC110 - connections tell nobody of their end
            await asyncio.sleep(_LOOK_EVERY_S)
        self._pool.abort()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        await self._runner.cleanup()
        # What was cut off is told to its protocol in the next iteration.
        await asyncio.sleep(0)
        self._timer.close()

    def _handed_over(self) -> int:
        server = self._runner.server
        return 0 if server is None else len(server.connections)

    def _web_protocol(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        assert server is not None
        if self._looking is None:
            self._look_later()
        return WebProtocol(server)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(_LOOK_AT_WEB_EVERY_S, self._look, context=bare_context())

    def _look(self) -> None:
        """End the connections of aiohttp.web whose clients are too slow."""
        self._looking = None
        server = self._runner.server
        connections = () if server is None else server.connections
        now = time.monotonic()
        for each in connections:
            cast(WebProtocol, each).look(now)
        if connections:
            self._look_later()
