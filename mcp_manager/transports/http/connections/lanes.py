"""Lanes: connections that aiohttp opens and that the compiled wire then uses directly, pooled by destination."""

from __future__ import annotations

import asyncio
import select
from functools import partial
from typing import Final

import aiohttp

from mcp_manager._core.wire import Wire, WirePool
from mcp_manager.transports.http.connections.clients import Clients
from mcp_manager.transports.http.connections.endpoint import Endpoint, dialled
from mcp_manager.transports.http.connections.permits import ConnectionPermits, ConnectionWait, DestinationQueue
from mcp_manager.transports.http.connections.route import Destination, Route, request_options

__all__ = ["Lane", "LanePool"]

# One shared buffer of this size; asyncio's own transports would allocate as much for every receive.
RECEIVE_BYTES: Final = 1 << 18
# How long every plain aiohttp request gets a new connection after the server closed a kept one under a request.
_DOUBTED_S: Final = 60.0


class Lane(Wire, asyncio.BufferedProtocol):
    """A lane: one connection that aiohttp has opened and a compiled :class:`Wire` has taken over.

    aiohttp makes the connection (DNS, TLS, proxy); the wire then sends requests and parses responses on it without
    aiohttp. It holds a connection permit as long as it is open, or until :meth:`stand`.
    """

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
        """The pool it belongs to."""
        return self._lanes

    def stand(self) -> None:
        """Give the permit to other callers: a stream that stays open must not block calls."""
        if not self._stands:
            self._stands = True
            self._lanes.stands()

    def has_news(self) -> bool:
        """Return whether the socket has unread input: the end of the connection, or unsolicited bytes."""
        if self._poll is None:
            opened = self.transport.get_extra_info("socket") if self.transport is not None else None
            if opened is None or opened.fileno() < 0 or not hasattr(select, "poll"):
                return False
            self._poll = select.poll()
            self._poll.register(opened.fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def lost(self, error: BaseException | None) -> None:
        """Return the connection to aiohttp's connector and its permit to the pool."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connection_lost(error)
        self._connection.close()
        self._lanes.lost(self, stood=self._stands)


class LanePool(DestinationQueue[Lane]):
    """Pool the lanes to one destination.

    Nearly every call takes an idle one with ``wires.take()``; the others use :meth:`connect`.

    Parameters
    ----------
    wires
        Holds the lanes.
    permits
        Bounds the open connections.
    clients
        Opens connections.
    destination
        Where the lanes lead.
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
        self.endpoint: Endpoint | None
        self.route: Route
        self._origin, self.endpoint, self.route = destination
        self._dialled = dialled(self._origin, self.endpoint)

    def joined(self) -> LanePool:
        """Count one more transport that uses the pool, and return the pool."""
        self._users += 1
        return self

    def leave(self) -> None:
        """Count one transport less. With the last one, idle lanes close now and busy ones after their exchange."""
        self._users -= 1
        if not self._users:
            for lane in list(self.wires.wires):
                lane.retire()

    @property
    def is_doubted(self) -> bool:
        """Whether plain aiohttp requests use no kept connection: one was closed under a request in the last minute."""
        return asyncio.get_running_loop().time() < self._doubted_until

    def doubt(self) -> None:
        """Note that a kept connection of aiohttp's was closed under a request."""
        self._doubted_until = asyncio.get_running_loop().time() + _DOUBTED_S

    async def connect(self, timeout: aiohttp.ClientTimeout, wait: ConnectionWait | None = None) -> Lane:
        """Open a lane, or wait for one if the bound on connections is reached.

        Parameters
        ----------
        timeout
            Bounds the connection attempt.
        wait
            The caller's wait; a new one by default.

        Returns
        -------
        Lane
            A lane. One that another caller has handed over may have lost its connection since.

        Raises
        ------
        aiohttp.ClientError, OSError
            What aiohttp's connector raises.
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
                if not wait.is_exhaustion(error):
                    self._permits.release_closing(self)
                    raise
                self._permits.release(self)
            await self._permits.pause(wait)
        handler, transport = connection.protocol, connection.transport
        if transport is None or transport.is_closing() or handler is None or handler.should_close:
            # The server has closed it already, or has sent bytes before any request.
            connection.close()
            self._permits.release_closing(self)
            raise aiohttp.ServerDisconnectedError
        return Lane(self, connection)

    async def _open(self, timeout: aiohttp.ClientTimeout) -> aiohttp.connector.Connection:
        connector = self._clients.shared.connector
        assert connector is not None
        return await connector.connect(await self._make_request(), [], timeout)

    async def _make_request(self) -> aiohttp.ClientRequest:
        """Make the request that aiohttp opens a connection for, each time: certificates may have been renewed."""
        options = await request_options(self.route, self._clients.tls, self._origin, self.endpoint)
        return aiohttp.ClientRequest(
            "POST", self._dialled, loop=asyncio.get_running_loop(), session=self._clients.shared, **options
        )

    def stands(self) -> None:
        """Note that one of the lanes carries a stream that stays open."""
        self._permits.standing += 1
        self._permits.release(self)

    def lost(self, lane: Lane, *, stood: bool) -> None:
        """Note that one of the lanes is closed; ``stood`` says whether it carried a stream that stays open."""
        if lane.broken:
            # A server that moves to another address breaks its connections.
            self._clients.doubt(self._dialled)
        if stood:
            self._permits.standing -= 1
        else:
            self._permits.release(self)
