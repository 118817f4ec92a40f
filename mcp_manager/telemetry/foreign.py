"""Spans of the application's own tracer, for an application that has set up OpenTelemetry itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from mcp_manager._core.call_ring import PastCall
from mcp_manager._version import __version__
from mcp_manager.calls.call_log import FlightRecord
from mcp_manager.telemetry.conventions import SCHEMA_URL, SCOPE
from mcp_manager.telemetry.details import details_of
from mcp_manager.telemetry.propagation import Parent

__all__ = ["ForeignSpan", "ForeignTracer"]


class ForeignTracer:
    """Make spans with the application's tracer provider, whose sampler and exporters apply."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer(SCOPE, __version__, schema_url=SCHEMA_URL)

    def __call__(
        self,
        shown: Callable[[], tuple[str, dict[str, Any]]],
        parent: Parent | None,
        link: Parent | None,
        start_ns: int,
    ) -> ForeignSpan | None:
        """Start a span; ``None`` if the sampler refuses."""
        name, attributes = shown()
        context = Context()
        if parent is not None:
            context = trace.set_span_in_context(NonRecordingSpan(_context_of(parent)), context)
        links = () if link is None else (Link(_context_of(link)),)
        span = self._tracer.start_span(name, context, SpanKind.CLIENT, attributes, links, start_ns)
        return ForeignSpan(span) if span.is_recording() else None


class ForeignSpan:
    """A span of the application's tracer; see :class:`~mcp_manager.telemetry.spans.OwnSpan`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.attributes: dict[str, Any] = {}
        self.finish: Callable[[], object] = bool
        self.record: PastCall | FlightRecord | None = None
        self.events: Sequence[tuple[str, int, Mapping[str, Any]]] = ()
        self.error: str | None = None
        context = span.get_span_context()
        self.trace_id: int = context.trace_id
        self.span_id: int = context.span_id
        self.trace_state: str = context.trace_state.to_header()

    def end(self, end_ns: int) -> None:
        """End the span, in nanoseconds since 1970."""
        self.finish()
        self._span.set_attributes({**details_of(self.record), **self.attributes})
        for name, at_ns, told in self.events:
            self._span.add_event(name, told, at_ns)
        if self.error is not None:
            self._span.set_status(StatusCode.ERROR, self.error or None)
        self._span.end(end_ns)


def _context_of(span: Parent) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if span.is_sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([span.trace_state]) if span.trace_state else None
    return SpanContext(span.trace_id, span.span_id, span.is_remote, flags, state)
