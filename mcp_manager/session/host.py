"""The application side of every session of a manager."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import Context

import msgspec

from mcp_manager.protocol.envelope import TraceContext
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.session.handlers import HandlerMap

__all__ = ["HostApplication"]


class HostApplication(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What all sessions of a manager share; in MCP's words, the application that hosts the clients.

    Parameters
    ----------
    identity
        What servers are told of the client.
    handlers
        What answers servers and takes their notifications.
    listened
        The notifications that a handler of the user's takes.
    handler_timeout_s
        Seconds a handler may take.
    trace_context
        Returns the trace context of the caller, for every request.
    began
        ``began(server_id, kind)``: see :class:`~mcp_manager.session.knowledge.subscriptions.Subscriptions`.
    context
        What handlers run in where a server asks or notifies outside of a call; an empty one by default.
    clock
        Monotonic nanoseconds.
    lag
        How late the loop is.
    """

    identity: ClientIdentity
    handlers: HandlerMap
    clock: Callable[[], int]
    handler_timeout_s: float
    listened: Collection[str] = ()
    trace_context: TraceContext | None = None
    began: Callable[[str, str], None] | None = None
    context: Context = msgspec.field(default_factory=bare_context)
    lag: LoopLag = msgspec.field(default_factory=LoopLag)
