"""Owns all HTTP connections of a manager: aiohttp's sessions, the lanes, and the permits that bound both."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator
from typing import Final

from yarl import URL

from mcp_manager._core.http_message import drop_spare
from mcp_manager._core.wire import WireGroup, WirePool
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.deadline_timer import DeadlineTimer
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.runtime.read_budget import read_budget
from mcp_manager.transports.http.connections.clients import KEEPALIVE_S, Clients
from mcp_manager.transports.http.connections.endpoint import Endpoint
from mcp_manager.transports.http.connections.lanes import RECEIVE_BYTES, LanePool
from mcp_manager.transports.http.connections.permits import ConnectionPermits, ConnectionWait, Permit
from mcp_manager.transports.http.connections.route import DIRECT, Destination, Route
from mcp_manager.transports.http.connections.tls import TlsContexts

__all__ = ["HttpPool"]

# A lane is closed by the second sweep that finds it idle.
_SWEEP_S: Final = KEEPALIVE_S / 2


class HttpPool:
    """Own the HTTP connections of a manager.

    Parameters
    ----------
    max_connections
        The most connections open at once over all servers, 0 for no limit. A request beyond it waits for one, within
        its deadline. Event streams that stay open have a limit of the same size of their own, so that they never block
        calls.
    max_connections_per_origin
        The most of them to one origin (scheme, host and port), 0 for no limit.
    timer
        Takes the deadlines of calls; it is closed with the pool.
    lag
        Measures how late the loop is, to excuse a server for a connection attempt that a blocked loop has delayed.
    sender
        The ``User-Agent`` of requests that have none of their own.
    """

    def __init__(
        self,
        *,
        max_connections: int = 0,
        max_connections_per_origin: int = 0,
        timer: DeadlineTimer | None = None,
        lag: LoopLag | None = None,
        sender: str = "",
    ) -> None:
        self.clients: Clients = Clients(sender)
        self.max_connections = max_connections
        self.group: WireGroup = WireGroup()
        self.permits: ConnectionPermits = ConnectionPermits(
            self.group, max_connections, max_connections_per_origin, on_acquire=self._begin_sweeping
        )
        self.timer: DeadlineTimer = timer if timer is not None else DeadlineTimer()
        self.lag: LoopLag = lag if lag is not None else LoopLag()
        self._storage: bytearray | None = None
        # By destination: a request must not use a connection that another server's client certificate has opened.
        self._lanes: weakref.WeakValueDictionary[Destination, LanePool] = weakref.WeakValueDictionary()
        self._streams = 0
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def tls(self) -> TlsContexts:
        """The SSL contexts of all servers."""
        return self.clients.tls

    @property
    def storage(self) -> bytearray:
        """The buffer that all lanes of the pool receive into, one after another."""
        if self._storage is None:
            self._storage = bytearray(RECEIVE_BYTES)
        return self._storage

    def lanes(self, url: URL, endpoint: Endpoint | None = None, route: Route = DIRECT) -> LanePool:
        """Return the lanes to the origin of a URL, or to one endpoint behind it, by a route."""
        destination = Destination(url.origin(), endpoint, route)
        lanes = self._lanes.get(destination)
        if lanes is None:
            wires = WirePool(self.timer.wheel, time.monotonic_ns, self.storage, self.group, read_budget())
            lanes = self._lanes[destination] = LanePool(wires, self.permits, self.clients, destination)
        return lanes

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for lanes in list(self._lanes.values()):
            lanes.wires.interrupt()
        self.permits.close()
        self.timer.close()
        drop_spare()
        await self.clients.aclose()

    # Bounds

    @contextlib.asynccontextmanager
    async def permit(self, lanes: LanePool, wait: ConnectionWait) -> AsyncIterator[Permit]:
        """Hold the permit of a connection that is not a lane; idle lanes are closed in its favour."""
        await self.permits.acquire(lanes, wait, takes_lane=False)
        permit = Permit(self.permits, lanes)
        try:
            yield permit
        finally:
            permit.release()

    def shortage(self, wait: ConnectionWait, origin: str) -> tuple[str, str]:
        """Return what a caller has waited for in vain, and a hint."""
        if wait.blocked_by == "origin":
            text = f"all {self.permits.limit_per_origin} to {origin} are in use"
            return text, "raise max_connections_per_origin, or the timeout of calls"
        if wait.blocked_by == "all":
            return f"all {self.max_connections} are in use", "raise max_connections, or the timeout of calls"
        text = "this process has no descriptor left for a connection"
        return text, "raise its limit of open files (ulimit -n), or lower max_connections"

    def admit_stream(self) -> bool:
        """Count a new stream that stays open; return ``False`` if ``max_connections`` of them are open already."""
        if self.max_connections and self._streams >= self.max_connections:
            return False
        self._streams += 1
        return True

    def release_stream(self) -> None:
        """Note that an admitted stream has ended."""
        self._streams -= 1

    def _begin_sweeping(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep, context=bare_context())

    def _sweep(self) -> None:
        self._sweeper = None
        open_lanes = 0
        for lanes in list(self._lanes.values()):
            lanes.wires.sweep()
            open_lanes += len(lanes.wires.wires)
        if open_lanes > self.permits.standing:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        else:
            drop_spare()
