"""What every session of one server is made from, and what they know of the server together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from mcp_manager.config import ServerConfig
from mcp_manager.protocol.envelope import TraceContext
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.session.handlers import HandlerMap
from mcp_manager.session.mirrored_tools import MirroredTools
from mcp_manager.session.negotiation import EraMemory
from mcp_manager.session.output_schemas import OutputSchemas
from mcp_manager.session.peer_faults import PeerFaults
from mcp_manager.session.response_cache import ResponseCache
from mcp_manager.session.subscriptions import Subscriptions
from mcp_manager.session.tool_hints import ToolHints
from mcp_manager.transports.base import MessageSink, Transport

if TYPE_CHECKING:
    from mcp_manager.auth.oauth.authorizations import Authorizations

__all__ = ["SessionSettings", "TransportFactory"]

TransportFactory = Callable[[int, MessageSink, bool], Transport]
"""``make(index, sink, sse)`` makes the transport of an instance; with ``sse``, HTTP+SSE in place of streamable HTTP."""


class SessionSettings:
    """What sessions of one server are made from.

    ``memory``, ``mirrored``, ``outputs``, ``hints``, ``cache`` and ``faults`` are what they have found out,
    ``subscriptions`` what is wanted of them; all of it outlives each of them.

    Parameters
    ----------
    server_id, config
        The server and its configuration.
    client, handlers, trace_context
        The manager's own.
    make_transport
        See :data:`TransportFactory`.
    connect_slots
        Bounds how many sessions are made at a time, over all servers.
    clock
        Monotonic nanoseconds.
    authorizations
        What obtains the server's tokens, ``None`` where its credentials are fixed.
    handler_timeout_s
        Seconds a handler may take.
    listened
        The notifications that a handler of the user's takes.
    began
        See :class:`~mcp_manager.session.subscriptions.Subscriptions`.
    """

    __slots__ = (
        "authorizations",
        "cache",
        "client",
        "config",
        "connect_slots",
        "faults",
        "handler_timeout_s",
        "handlers",
        "hints",
        "make_transport",
        "memory",
        "mirrored",
        "outputs",
        "server_id",
        "subscriptions",
        "trace_context",
    )

    def __init__(
        self,
        server_id: str,
        config: ServerConfig,
        client: ClientIdentity,
        handlers: HandlerMap,
        make_transport: TransportFactory,
        connect_slots: asyncio.Semaphore,
        clock: Callable[[], int],
        trace_context: TraceContext | None = None,
        authorizations: Authorizations | None = None,
        *,
        handler_timeout_s: float,
        listened: Collection[str] = (),
        began: Callable[[str], None] | None = None,
    ) -> None:
        self.server_id = server_id
        self.config = config
        self.client = client
        self.handlers = handlers
        self.make_transport = make_transport
        self.connect_slots = connect_slots
        self.trace_context = trace_context
        self.authorizations = authorizations
        self.handler_timeout_s = handler_timeout_s
        self.memory = EraMemory()
        self.faults = PeerFaults(server_id, clock)
        self.cache = ResponseCache(clock, enabled=config.cache)
        self.subscriptions = Subscriptions(listened, began)
        self.mirrored = MirroredTools(self.faults)
        self.outputs = OutputSchemas(self.faults, clock)
        self.hints = ToolHints()

    def place(self, index: int) -> str:
        """Name what an instance's era is a property of: the origin of its URL, or the one program."""
        if self.config.command is not None:
            return ""
        from yarl import URL  # noqa: PLC0415  (it comes with aiohttp, which is loaded with the first transport)

        return str(URL(self.config.instance_url(index)).origin())
