"""Connections of one origin that aiohttp has opened and a compiled wire speaks on: kept, handed out, counted."""

from __future__ import annotations

import asyncio
import select
from functools import partial
from typing import Final

import aiohttp

from mcp_manager._core.wire import Wire, WirePool
from mcp_manager.transports.http.connections.clients import Clients
from mcp_manager.transports.http.connections.endpoint import dialled
from mcp_manager.transports.http.connections.permits import ConnectionPermits, ConnectionWait, DestinationQueue
from mcp_manager.transports.http.connections.route import Destination, request_options

__all__ = ["Lane", "LanePool"]

# asyncio's own transports would allocate as much for every receive.
RECEIVE_BYTES: Final = 1 << 18
# For how long an origin gets a new connection for every ordinary request, once it has ended one that was kept.
_DOUBTED_S: Final = 60.0


class Lane(Wire, asyncio.BufferedProtocol):
    """A wire on one of aiohttp's connections, which keeps the connector's place for as long as it lives."""

    __slots__ = ("_connection", "_handler", "_lanes", "_poll", "_stands")

    def __init__(self, lanes: LanePool, connection: aiohttp.connector.Connection) -> None:
        super().__init__(lanes.wires, asyncio.get_running_loop().create_future)
        self._lanes = lanes
        self._connection = connection
        self._handler = connection.protocol
        self._stands = False
        self._poll: select.poll | None = None
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

    def has_news(self) -> bool:
        """Tell whether anything has come that the loop has not read: the end, or what nobody asked for."""
        if self._poll is None:
            opened = self.transport.get_extra_info("socket") if self.transport is not None else None
            if opened is None or opened.fileno() < 0 or not hasattr(select, "poll"):
                return False
            self._poll = select.poll()
            self._poll.register(opened.fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def lost(self, error: BaseException | None) -> None:
        """Give the connector its place back."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connection_lost(error)
        self._connection.close()
        self._lanes.lost(self, stood=self._stands)


class LanePool(DestinationQueue[Lane]):
    """Keep the lanes of one origin (scheme, host and port), or to one of the endpoints behind it, by one route.

    ``wires`` holds the idle ones: ``wires.take()`` is the way of nearly every call, :meth:`connect` that of the others.
    """

    __slots__ = (
        "__weakref__",
        "_clients",
        "_dialled",
        "_doubted_until",
        "_origin",
        "_permits",
        "_users",
        "endpoint",
        "route",
    )

    def __init__(self, wires: WirePool, permits: ConnectionPermits, clients: Clients, destination: Destination) -> None:
        super().__init__(wires)
        self._permits = permits
        self._clients = clients
        self._doubted_until = 0.0
        self._users = 0
        self._origin, self.endpoint, self.route = destination
        self._dialled = dialled(self._origin, self.endpoint)

    def joined(self) -> LanePool:
        """Count one more transport that sends over them, and return them."""
        self._users += 1
        return self

    def leave(self) -> None:
        """Count one less. The last one takes the idle connections along; what still carries an exchange ends with it."""
        self._users -= 1
        if not self._users:
            for lane in list(self.wires.wires):
                lane.retire()

    @property
    def is_doubted(self) -> bool:
        """Whether aiohttp's kept connections are not used again: one of them ended under a request a while ago."""
        return asyncio.get_running_loop().time() < self._doubted_until

    def doubt(self) -> None:
        """Learn that a kept connection of aiohttp's ended under a request."""
        self._doubted_until = asyncio.get_running_loop().time() + _DOUBTED_S

    async def connect(self, timeout: aiohttp.ClientTimeout, wait: ConnectionWait | None = None) -> Lane:
        """Open a connection, or wait for one where there are as many as allowed.

        Raises what aiohttp's connector raises.
        """
        wait = wait if wait is not None else ConnectionWait()
        while True:
            handed_over = await self._permits.acquire(self, wait, takes_lane=True)
            if handed_over is not None:
                return handed_over
            try:
                connection = await self._clients.connecting(
                    self.route.connected(self._dialled), partial(self._open, timeout)
                )
                break
            except BaseException as error:
                self._permits.release(self)
                if not wait.is_exhaustion(error):
                    raise
            await self._permits.pause(wait)
        handler, transport = connection.protocol, connection.transport
        if transport is None or transport.is_closing() or handler is None or handler.should_close:
            # Gone again, or it spoke before it was asked.
            connection.close()
            self._permits.release(self)
            raise aiohttp.ServerDisconnectedError
        return Lane(self, connection)

    async def _open(self, timeout: aiohttp.ClientTimeout) -> aiohttp.connector.Connection:
        connector = self._clients.shared.connector
        assert connector is not None
        return await connector.connect(await self._make_request(), [], timeout)

    async def _make_request(self) -> aiohttp.ClientRequest:
        """Make what aiohttp opens a connection for; certificates may have been renewed since the last one."""
        options = await request_options(self.route, self._clients.tls, self._origin, self.endpoint)
        return aiohttp.ClientRequest(
            "POST", self._dialled, loop=asyncio.get_running_loop(), session=self._clients.shared, **options
        )

    def stands(self) -> None:
        """Learn that one of the lanes carries a stream that stays open."""
        self._permits.standing += 1
        self._permits.release(self)

    def lost(self, lane: Lane, *, stood: bool) -> None:
        """Learn that one of the lanes is gone."""
        if lane.broken:
            # Who has moved takes the connections along.
            self._clients.doubt(self._dialled)
        if stood:
            self._permits.standing -= 1
        else:
            self._permits.release(self)
