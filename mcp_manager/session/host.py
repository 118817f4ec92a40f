"""What an application contributes to all sessions of its manager."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import Context

import msgspec

from mcp_manager.events.feed import EventFeed
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.protocol.trace_context import TraceContext
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.session.handlers import HandlerMap

__all__ = ["HostApplication"]


class HostApplication(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What all sessions of a manager share. MCP calls the application a host.

    Parameters
    ----------
    identity
        The name, version and capabilities that servers receive.
    handlers
        Answer the requests of servers and take their notifications, by method; the manager's own are among them.
    clock
        Monotonic nanoseconds.
    handler_timeout_s
        Seconds a handler may take.
    listened
        The methods for which the application has a handler.
    trace_context
        Called for every request: returns the caller's trace context. ``None`` sends none.
    began
        ``began(server_id, kind)``: see :class:`~mcp_manager.session.knowledge.subscriptions.Subscriptions`.
    context
        The context of handlers that run outside of a call; an empty one by default.
    lag
        Measures how late the event loop is.
    events
        Tells of what happens to servers.
    shared_identity
        What the programs and servers in memory receive in place of ``identity``, because all callers share their
        sessions; ``None`` for the same.
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
    events: EventFeed = msgspec.field(default_factory=EventFeed)
    shared_identity: ClientIdentity | None = None
