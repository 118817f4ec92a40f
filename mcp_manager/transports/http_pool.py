"""The one aiohttp session and connector behind every HTTP server: limits, routes, and which addresses are allowed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from yarl import URL

from mcp_manager._core.http_message import drop_spare
from mcp_manager._core.wire import WireGroup
from mcp_manager.auth.addresses import address_rule
from mcp_manager.forks import keep_from_children
from mcp_manager.transports.addresses import refuse_special_address
from mcp_manager.transports.deadline_timer import DeadlineTimer
from mcp_manager.transports.endpoint import Endpoint
from mcp_manager.transports.lanes import RECEIVE_BYTES, Lane, LanePool
from mcp_manager.transports.names import Names
from mcp_manager.transports.places import Place, Places, Wait
from mcp_manager.transports.route import DIRECT, Route
from mcp_manager.transports.routed_connector import RoutedConnector
from mcp_manager.transports.tls import TlsContexts
from mcp_manager.transports.user_agent import USER_AGENT, user_agent

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType

__all__ = ["HttpPool", "connecting_server"]

T = TypeVar("T")

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
    max_connections_per_origin
        The most of them to one origin (scheme, host and port), 0 for no limit.
    timer
        Where calls leave their deadlines; it is closed with the pool.
    sender
        The ``User-Agent`` of every request, unless it brings its own.
    """

    def __init__(
        self,
        *,
        max_connections: int = 0,
        max_connections_per_origin: int = 0,
        timer: DeadlineTimer | None = None,
        sender: str = "",
    ) -> None:
        self.user_agent = sender or user_agent("")
        self.max_connections = max_connections
        self.group = WireGroup()
        self.places = Places(self.group, max_connections, max_connections_per_origin)
        self._names: Names | None = None
        self.timer = timer if timer is not None else DeadlineTimer()
        self._client: aiohttp.ClientSession | None = None
        self._lasting_client: aiohttp.ClientSession | None = None
        self._fresh_client: aiohttp.ClientSession | None = None
        self._sockets: dict[str, list[socket.socket]] = {}
        self._storage: bytearray | None = None
        self.tls = TlsContexts()
        # By all that makes two connections the same: nobody may speak on one that another's certificate has opened.
        self._lanes: weakref.WeakValueDictionary[tuple[URL, Endpoint | None, Route], LanePool]
        self._lanes = weakref.WeakValueDictionary()
        self._streams = 0
        # How many lanes carry a stream that stays open; kept by the lanes.
        self.standing_lanes = 0
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
    def fresh_client(self) -> aiohttp.ClientSession:
        """The session for requests that need a connection of their own, made for each."""
        if self._fresh_client is None:
            self._fresh_client = self._make_client(self._open_socket, force_close=True)
        return self._fresh_client

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
        # Left as it is: whoever asks may be on another thread.
        return sum(held.fileno() != -1 for held in tuple(self._sockets.get(server_id, ())))

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
        self.places.close()
        self.timer.close()
        drop_spare()
        clients = (self._client, self._lasting_client, self._fresh_client)
        self._client = self._lasting_client = self._fresh_client = None
        self._sockets.clear()
        for client in clients:
            if client is not None:
                await client.close()
        if self._names is not None:
            await self._names.close()
            self._names = None

    # Connections, and what bounds them

    @contextlib.asynccontextmanager
    async def place(self, lanes: LanePool, wait: Wait) -> AsyncIterator[Place]:
        """Hold the place of a connection that is not a lane's: idle lanes make way for it."""
        await self.take_place(lanes, wait, takes_lane=False)
        place = Place(self.places, lanes)
        try:
            yield place
        finally:
            place.give_back()

    async def take_place(self, lanes: LanePool, wait: Wait, *, takes_lane: bool) -> Lane | None:
        """Wait for a place; see :meth:`Places.take`."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        return await self.places.take(lanes, wait, takes_lane=takes_lane)

    async def pause(self, wait: Wait) -> None:
        """Wait for descriptors, of which none are left; see :meth:`Wait.pause`."""
        self.places.lower()
        await wait.pause()

    def lack(self, wait: Wait, origin: str) -> tuple[str, str]:
        """Say what a caller has waited for in vain, and the way out."""
        if wait.lacks == "origin":
            text = f"all {self.places.limit_per_origin} to {origin} are in use"
            return text, "raise max_connections_per_origin, or give calls more time"
        if wait.lacks == "all":
            return f"all {self.max_connections} are in use", "raise max_connections, or give calls more time"
        text = "this process has no descriptor left for a connection"
        return text, "raise its limit of open files (ulimit -n), or lower max_connections"

    async def connecting(self, url: URL, connect: Callable[[], Awaitable[T]]) -> T:
        """Connect to the host of a URL; see :meth:`Names.connecting`."""
        return await self._resolver().connecting(url, connect)

    def doubt(self, url: URL) -> None:
        """Learn that a connection to a URL was lost; see :meth:`Names.doubt`."""
        if self._names is not None:
            self._names.doubt(url)

    def admit_stream(self) -> bool:
        """Count a stream that is to stand open; ``False`` if there are as many as ``max_connections`` already."""
        if self.max_connections and self._streams >= self.max_connections:
            return False
        self._streams += 1
        return True

    def release_stream(self) -> None:
        """Learn that a stream that was admitted has ended."""
        self._streams -= 1

    def _resolver(self) -> Names:
        if self._names is None:
            self._names = Names()
        return self._names

    def _make_client(
        self, open_socket: Callable[[AddrInfoType], socket.socket], *, force_close: bool = False
    ) -> aiohttp.ClientSession:
        connector = RoutedConnector(
            # Places bound them.
            limit=0,
            force_close=force_close,
            keepalive_timeout=None if force_close else _KEEPALIVE_S,
            socket_factory=open_socket,
            resolver=self._resolver(),
        )
        self._resolver().serve(connector)
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=[tracing],
            # Cookies are shared between the ports of a host: one server's would reach another.
            cookie_jar=aiohttp.DummyCookieJar(),
            # A decompressed bomb is many times the limit that was checked.
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=1 << 18,
            headers={USER_AGENT: self.user_agent},
        )

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
            rule = address_rule.get()
            if rule is not None:
                rule.check(str(where[0]))
        opened = socket.socket(family, kind, protocol)
        keep_from_children(opened)
        opened.setblocking(False)
        server_id = connecting_server.get()
        if server_id:
            others = [held for held in self._sockets.get(server_id, ()) if held.fileno() != -1]
            self._sockets[server_id] = [*others, opened]
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


async def _note_reuse(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionReuseconnParams) -> None:
    exchange = context.trace_request_ctx
    if exchange is not None:
        exchange.reused = True
