"""Where requests come from, told to servers of the handshake era: their ``_meta`` was free for it all along."""

from __future__ import annotations

from mcp_manager._core.jsonrpc import Message
from mcp_manager.protocol.envelope import TraceContext, read_trace, with_trace
from mcp_manager.transports.base import Exchange, Request, Sendable

__all__ = ["Tracing"]


class Tracing:
    """Put the trace context of callers into the requests of one session.

    To the compiled path it is a dialect: one that makes exchanges in Python, and to which every result is an end.

    Parameters
    ----------
    trace_context
        Asked for every request where it comes from.
    """

    __slots__ = ("_trace_context",)

    stateless_frame = None

    def __init__(self, trace_context: TraceContext) -> None:
        self._trace_context = trace_context

    def traced(self, request: Sendable) -> Sendable:
        """Return a request that says where it comes from; as it is, if it cannot, or nothing is known."""
        trace = read_trace(self._trace_context)
        if not trace:
            return request
        method_raw = request.method if type(request) is Request else request.method_raw
        assert isinstance(method_raw, bytes)
        return Request(method_raw, with_trace(request.params, trace))

    def exchange(self, request: Sendable, request_id: int, deadline_ns: int) -> Exchange:
        """Make the exchange of a request."""
        return self.traced(request).exchange(request_id, deadline_ns)

    def accepts(self, reply: Message) -> bool:
        """Tell whether a result is the end of its call."""
        return True
