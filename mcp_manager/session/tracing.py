"""The trace context in the requests of the handshake era."""

from __future__ import annotations

from mcp_manager._core.jsonrpc import Message
from mcp_manager.protocol.trace_context import TraceContext, in_trace, read_trace
from mcp_manager.transports.base import Exchange, Sendable

__all__ = ["Tracing"]


class Tracing:
    """Put the trace context of callers into the requests of one session.

    The compiled call path uses it as a dialect that makes exchanges in Python and accepts every result.

    Parameters
    ----------
    trace_context
        Called for every request: returns the caller's trace context.
    """

    __slots__ = ("_trace_context",)

    stateless_frame = None

    def __init__(self, trace_context: TraceContext) -> None:
        self._trace_context = trace_context

    def traced(self, request: Sendable) -> Sendable:
        """Return the request with its caller's trace context, or unchanged if there is none."""
        trace = read_trace(self._trace_context)
        return in_trace(request, trace, replaces=False) if trace else request

    def exchange(self, request: Sendable, request_id: int, deadline_ns: int) -> Exchange:
        """Make the exchange of a request."""
        return self.traced(request).exchange(request_id, deadline_ns)

    def accepts(self, reply: Message) -> bool:
        """Tell whether a result completes its call; every result does."""
        return True
