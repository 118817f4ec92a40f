"""The one aiohttp session and connector behind every HTTP server: limits, routes, and which addresses are allowed."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from mcp_manager._core.http_message import drop_spare
from mcp_manager.transports.addresses import refuse_special_address
from mcp_manager.transports.deadline_timer import DeadlineTimer
from mcp_manager.transports.endpoint import Endpoint
from mcp_manager.transports.lanes import RECEIVE_BYTES, Lane, LanePool
from mcp_manager.transports.route import DIRECT, Route
from mcp_manager.transports.routed_connector import RoutedConnector
from mcp_manager.transports.tls import TlsContexts

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType

__all__ = ["HttpPool", "Place", "connecting_server"]

connecting_server: ContextVar[str] = ContextVar("connecting_server", default="")
"""The server on whose behalf the current task may open a connection."""

# uvicorn closes idle connections after 5 s: reusing one in that moment loses the request.
_KEEPALIVE_S: Final = 4.0
# An idle lane survives one sweep and not the second.
_SWEEP_S: Final = _KEEPALIVE_S / 2
# Seconds, seconds and probes: a silent peer is gone after two minutes.
_KEEPALIVE_PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class HttpPool:
    """Own the aiohttp connector of a manager and the lanes on its connections, and count the sockets of each server.

    Parameters
    ----------
    max_connections
        The most connections open at once over all servers, 0 for no limit. A request beyond it waits for one,
        within its deadline. Streams that stand open are counted apart, as many again: no number of them keeps calls
        from being made.
    timer
        Where calls leave their deadlines; it is closed with the pool.
    """

    def __init__(self, *, max_connections: int = 0, timer: DeadlineTimer | None = None) -> None:
        self.max_connections = max_connections
        self.timer = timer if timer is not None else DeadlineTimer()
        self._client: aiohttp.ClientSession | None = None
        self._lasting_client: aiohttp.ClientSession | None = None
        self._sockets: dict[str, list[socket.socket]] = {}
        self._storage: bytearray | None = None
        self.tls = TlsContexts()
        # By all that makes two connections the same: nobody may speak on one that another's certificate has opened.
        self._lanes: weakref.WeakValueDictionary[tuple[URL, Endpoint | None, Route], LanePool]
        self._lanes = weakref.WeakValueDictionary()
        self._places_taken = 0
        self._streams = 0
        # How many lanes carry a stream that stays open; kept by the lanes.
        self.standing_lanes = 0
        self._waiting: collections.deque[tuple[asyncio.Future[Lane | None], LanePool | None]] = collections.deque()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def client(self) -> aiohttp.ClientSession:
        """The shared session, made on first use on the running loop."""
        if self._client is None:
            self._client = self._make_client(self._open_socket)
        return self._client

    @property
    def lasting_client(self) -> aiohttp.ClientSession:
        """The session for streams that stay open, which ``max_connections`` does not count."""
        if self._lasting_client is None:
            self._lasting_client = self._make_client(self._open_lasting_socket)
        return self._lasting_client

    @property
    def storage(self) -> bytearray:
        """The buffer that all lanes receive into, one after another."""
        if self._storage is None:
            self._storage = bytearray(RECEIVE_BYTES)
        return self._storage

    def lanes(self, url: URL, endpoint: Endpoint | None = None, route: Route = DIRECT) -> LanePool:
        """Return the lanes to the origin of a URL, or to one of the endpoints behind it, by a route."""
        place = url.origin(), endpoint, route
        lanes = self._lanes.get(place)
        if lanes is None:
            lanes = self._lanes[place] = LanePool(self, *place)
        return lanes

    def open_connections(self, server_id: str) -> int:
        """Count the sockets open to a server, in use or idle."""
        sockets = self._sockets.get(server_id)
        if sockets is None:
            return 0
        sockets[:] = [held for held in sockets if held.fileno() != -1]
        return len(sockets)

    def forget(self, server_id: str) -> None:
        """Stop counting for a server that is gone; its idle connections end with their keep-alive."""
        self._sockets.pop(server_id, None)
        self.tls.drop_identities()

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for lanes in list(self._lanes.values()):
            lanes.wires.interrupt()
        self.timer.close()
        drop_spare()
        clients = (self._client, self._lasting_client)
        self._client = self._lasting_client = None
        self._sockets.clear()
        for client in clients:
            if client is not None:
                await client.close()

    # Places: what max_connections bounds

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Hold the place of a connection that is not a lane's: idle lanes make way for it."""
        await self.take_place(None)
        place = Place(self)
        try:
            yield place
        finally:
            place.give_back()

    def admit_stream(self) -> bool:
        """Count a stream that is to stand open; ``False`` if there are as many as ``max_connections`` already."""
        if self.max_connections and self._streams >= self.max_connections:
            return False
        self._streams += 1
        return True

    def release_stream(self) -> None:
        """Learn that a stream that was admitted has ended."""
        self._streams -= 1

    async def take_place(self, lanes: LanePool | None) -> Lane | None:
        """Wait until one more connection may be opened (``None``), or for one of these lanes that came free."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        if not self.max_connections or self._places_taken < self.max_connections:
            self._places_taken += 1
            return None
        waiter: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((waiter, lanes))
        self._close_one_idle()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # It came free in the moment its caller gave up.
                lane = waiter.result()
                if lane is None:
                    self.give_place()
                else:
                    lane.close()
            raise

    def give_place(self) -> None:
        """Give back the place of a connection that is gone, to whoever waits longest."""
        self._places_taken -= 1
        while self._waiting and self._places_taken < self.max_connections:
            waiter, _ = self._waiting.popleft()
            if not waiter.done():
                self._places_taken += 1
                waiter.set_result(None)

    def returned(self, lane: Lane) -> bool:
        """Hand a lane that came free to whoever waits longest, or close it to make place; ``False``: nobody waits."""
        while self._waiting:
            waiter, lanes = self._waiting[0]
            if waiter.done():
                self._waiting.popleft()
                continue
            if lanes is lane.lanes:
                self._waiting.popleft()
                waiter.set_result(lane)
            else:
                lane.close()
            return True
        return False

    def _make_client(self, open_socket: Callable[[AddrInfoType], socket.socket]) -> aiohttp.ClientSession:
        connector = RoutedConnector(
            # Places bound them.
            limit=0,
            keepalive_timeout=_KEEPALIVE_S,
            socket_factory=open_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            # Cookies are shared between the ports of a host: one server's would reach another.
            cookie_jar=aiohttp.DummyCookieJar(),
            # A decompressed bomb is many times the limit that was checked.
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=1 << 18,
            skip_auto_headers=("User-Agent",),
        )

    def _close_one_idle(self) -> None:
        for lanes in list(self._lanes.values()):
            if lanes.wires.idle:
                lanes.wires.idle[0].close()
                return

    def _sweep(self) -> None:
        self._sweeper = None
        open_lanes = 0
        for lanes in list(self._lanes.values()):
            lanes.wires.sweep()
            open_lanes += len(lanes.wires.wires)
        if open_lanes > self.standing_lanes:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        else:
            drop_spare()

    def _open_socket(self, address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = address
        if family != socket.AF_UNIX:
            # The last moment before a connection: names that resolve to such an address are caught too.
            refuse_special_address(str(where[0]))
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        server_id = connecting_server.get()
        if server_id:
            self.open_connections(server_id)
            self._sockets.setdefault(server_id, []).append(opened)
        return opened

    def _open_lasting_socket(self, address: AddrInfoType) -> socket.socket:
        opened = self._open_socket(address)
        # Nothing is sent on it: without these, a peer that vanished would be listened to for ever.
        if opened.family == socket.AF_UNIX:
            return opened
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE_PROBES.items():
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return opened


class Place:
    """The place of one connection that is not a lane's."""

    __slots__ = ("_pool",)

    def __init__(self, pool: HttpPool) -> None:
        self._pool: HttpPool | None = pool

    def give_back(self) -> None:
        """Give the place to whoever waits; idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.give_place()
