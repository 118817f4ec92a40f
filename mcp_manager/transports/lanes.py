"""Connections of one origin that aiohttp has opened and a compiled wire speaks on: kept, handed out, counted."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from mcp_manager._core.wire import Wire, WirePool
from mcp_manager.transports.endpoint import Endpoint, dialled
from mcp_manager.transports.route import DIRECT, Route, request_options

if TYPE_CHECKING:
    from mcp_manager.transports.http_pool import HttpPool

__all__ = ["Lane", "LanePool"]

# asyncio's own transports would allocate as much for every receive.
RECEIVE_BYTES: Final = 1 << 18


class Lane(Wire, asyncio.BufferedProtocol):
    """A wire on one of aiohttp's connections, which keeps the connector's place for as long as it lives."""

    __slots__ = ("_connection", "_handler", "_lanes", "_stands")

    def __init__(self, lanes: LanePool, connection: aiohttp.connector.Connection) -> None:
        super().__init__(lanes.wires, asyncio.get_running_loop().create_future)
        self._lanes = lanes
        self._connection = connection
        self._handler = connection.protocol
        self._stands = False
        transport = connection.transport
        assert transport is not None
        transport.set_protocol(self)
        self.attach(transport)

    @property
    def lanes(self) -> LanePool:
        """Where it belongs."""
        return self._lanes

    def stand(self) -> None:
        """Give its place to others: a stream that stays open must not keep calls from being made."""
        if not self._stands:
            self._stands = True
            self._lanes.stands()

    def lost(self, error: BaseException | None) -> None:
        """Give the connector its place back."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connection_lost(error)
        self._connection.close()
        self._lanes.lost(stood=self._stands)


class LanePool:
    """Keep the lanes of one origin (scheme, host and port), or to one of the endpoints behind it, by one route.

    ``wires`` holds the idle ones: ``wires.take()`` is the way of nearly every call, :meth:`connect` that of the others.
    """

    __slots__ = ("__weakref__", "_endpoint", "_origin", "_pool", "_route", "wires")

    def __init__(self, pool: HttpPool, origin: URL, endpoint: Endpoint | None = None, route: Route = DIRECT) -> None:
        self._pool = pool
        self._origin = origin
        self._endpoint = endpoint
        self._route = route
        self.wires = WirePool(pool.timer.wheel, time.monotonic_ns, pool.storage)
        if pool.max_connections:
            self.wires.on_return = pool.returned

    async def connect(self, timeout: aiohttp.ClientTimeout) -> Lane:
        """Open a connection, or wait for one where there are as many as allowed.

        Raises what aiohttp's connector raises.
        """
        handed_over = await self._pool.take_place(self)
        if handed_over is not None:
            return handed_over
        try:
            connector = self._pool.client.connector
            assert connector is not None
            connection = await connector.connect(await self._make_request(), [], timeout)
        except BaseException:
            self._pool.give_place()
            raise
        handler, transport = connection.protocol, connection.transport
        if transport is None or transport.is_closing() or handler is None or handler.should_close:
            # Gone again, or it spoke before it was asked.
            connection.close()
            self._pool.give_place()
            raise aiohttp.ServerDisconnectedError
        return Lane(self, connection)

    async def _make_request(self) -> aiohttp.ClientRequest:
        """Make what aiohttp opens a connection for; certificates may have been renewed since the last one."""
        options = await request_options(self._route, self._pool.tls, self._origin, self._endpoint)
        where = dialled(self._origin, self._endpoint)
        return aiohttp.ClientRequest(
            "POST", where, loop=asyncio.get_running_loop(), session=self._pool.client, **options
        )

    def stands(self) -> None:
        """Learn that one of the lanes carries a stream that stays open."""
        self._pool.standing_lanes += 1
        self._pool.give_place()

    def lost(self, *, stood: bool) -> None:
        """Learn that one of the lanes is gone."""
        if stood:
            self._pool.standing_lanes -= 1
        else:
            self._pool.give_place()
