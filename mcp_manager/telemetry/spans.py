"""Spans of our own, which cost a tenth of the SDK's: they wait in a bounded queue, and a thread sends them."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import getrandbits
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status

from mcp_manager._core.call_ring import PastCall
from mcp_manager._version import __version__
from mcp_manager.calls.call_log import FlightRecord
from mcp_manager.telemetry.conventions import SCHEMA_URL, SCOPE
from mcp_manager.telemetry.details import details_of
from mcp_manager.telemetry.environment import SpanQueue
from mcp_manager.telemetry.points import attribute
from mcp_manager.telemetry.propagation import Parent
from mcp_manager.telemetry.sender import Fate, Sender
from mcp_manager.telemetry.thread import ExportThread

__all__ = ["OwnSpan", "SpanExporter", "provider_of_application"]

_log = logging.getLogger(__name__)

_WARN_EVERY_S: Final = 300.0


def provider_of_application() -> trace.TracerProvider | None:
    """Return the tracer provider that the application has set, ``None`` if it has set none."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


class OwnSpan:
    """A span that is exported when it ends.

    Parameters
    ----------
    exporter
        Takes it at its end.
    shown
        Returns its name, and its attributes at the beginning; called by the thread that exports.
    parent, link
        The span that it is a child of, and another that it refers to.
    start_ns
        When it began, in nanoseconds since 1970.
    """

    __slots__ = (
        "_exporter", "attributes", "end_ns", "error", "events", "finish", "link", "parent", "record", "shown", "span_id",
        "start_ns", "trace_id", "trace_state",
    )  # fmt: skip

    def __init__(
        self,
        exporter: SpanExporter,
        shown: Callable[[], tuple[str, dict[str, Any]]],
        parent: Parent | None,
        link: Parent | None,
        start_ns: int,
    ) -> None:
        self._exporter = exporter
        self.shown: Callable[[], tuple[str, dict[str, Any]]] = shown
        self.attributes: dict[str, Any] = {}
        self.finish: Callable[[], object] = bool
        self.parent: Parent | None = parent
        self.link: Parent | None = link
        self.start_ns: int = start_ns
        self.end_ns: int = 0
        self.span_id: int = getrandbits(64) or 1
        self.trace_id: int = parent.trace_id if parent is not None else getrandbits(128) or 1
        self.trace_state: str = parent.trace_state if parent is not None else ""
        # What is kept of the call: the thread that exports makes attributes of it.
        self.record: PastCall | FlightRecord | None = None
        self.events: Sequence[tuple[str, int, Mapping[str, Any]]] = ()
        # The description of the status, "" for an error without one; None if there was no error.
        self.error: str | None = None

    def end(self, end_ns: int) -> None:
        """End the span, in nanoseconds since 1970."""
        self.end_ns = end_ns
        self._exporter.add(self)


class SpanExporter:
    """Export the spans of a manager.

    Parameters
    ----------
    sender
        Sends the requests.
    resource
        Says whose spans they are.
    queue
        How they wait.

    Attributes
    ----------
    lost
        How many spans were not exported.
    """

    def __init__(self, sender: Sender, resource: Resource, queue: SpanQueue) -> None:
        self._sender = sender
        self._resource = resource
        self._waiting: deque[OwnSpan] = deque()
        self._queue = queue
        self._thread = ExportThread(self._export, queue.interval_s, "spans")
        self._warned_at = -_WARN_EVERY_S
        self.lost: int = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Ask the thread to end, from any thread; idempotent."""
        self._thread.end()

    async def aclose(self, grace_s: float) -> None:
        """Export what waits, for ``grace_s`` seconds at most, and end the thread."""
        await self._thread.aclose(grace_s)

    def add(self, span: OwnSpan) -> None:
        """Add a span that has ended."""
        if len(self._waiting) >= self._queue.most_waiting:
            self._lose(1, "too many spans wait")
            return
        self._waiting.append(span)
        if len(self._waiting) == self._queue.most_at_once:
            self._thread.wake()

    async def _export(self, ends_at: float | None) -> None:
        try:
            async with self._sender.session() as session:
                while self._waiting:
                    # They stay in the queue until their fate is known.
                    batch = list(itertools.islice(self._waiting, self._queue.most_at_once))
                    reached = await self._send(session, batch, ends_at)
                    for _ in batch:
                        self._waiting.popleft()
                    if not reached:
                        return
        except Exception as error:
            # The thread must live on: the next export may succeed.
            self._lose(len(self._waiting), type(error).__name__)
            self._waiting.clear()
            _log.debug("the export of spans failed", exc_info=True)

    async def _send(self, session: Any, batch: Sequence[OwnSpan], ends_at: float | None) -> bool:
        """Send spans in one request, or in ever smaller ones if it is too large; tell whether the collector is there."""
        fate, rejected = await self._sender.send(session, encoded(batch, self._resource), ends_at)
        if fate is Fate.TOO_LARGE and len(batch) > 1:
            half = len(batch) // 2
            return await self._send(session, batch[:half], ends_at) and await self._send(session, batch[half:], ends_at)
        if fate is not Fate.ACCEPTED:
            self._lose(len(batch), self._sender.reason)
        elif rejected:
            self._lose(rejected, "the collector rejected some")
        return fate not in (Fate.UNAVAILABLE, Fate.UNREACHABLE, Fate.NO_ANSWER)

    def _lose(self, count: int, reason: str) -> None:
        self.lost += count
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            _log.warning("spans could not be exported: %s (%d so far)", reason, self.lost)


def encoded(spans: Sequence[OwnSpan], resource: Resource) -> bytes:
    """Return an OTLP request with these spans."""
    request = ExportTraceServiceRequest()
    scoped = request.resource_spans.add(resource=resource).scope_spans.add(
        scope=InstrumentationScope(name=SCOPE, version=__version__), schema_url=SCHEMA_URL
    )
    for span in spans:
        _encode(scoped.spans.add(), span)
    body: bytes = request.SerializeToString()
    return body


def _encode(made: Encoded, span: OwnSpan) -> None:
    span.finish()
    made.name, shown = span.shown()
    made.kind = Encoded.SPAN_KIND_CLIENT
    made.trace_id, made.span_id = span.trace_id.to_bytes(16), span.span_id.to_bytes(8)
    made.trace_state = span.trace_state
    made.start_time_unix_nano, made.end_time_unix_nano = span.start_ns, max(span.end_ns, span.start_ns)
    made.flags = 1 | SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    if span.parent is not None:
        made.parent_span_id = span.parent.span_id.to_bytes(8)
        if span.parent.is_remote:
            made.flags |= SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    shown = {**shown, **details_of(span.record), **span.attributes}
    made.attributes.extend([attribute(name, value) for name, value in shown.items()])
    for name, at_ns, told in span.events:
        made.events.add(
            name=name, time_unix_nano=at_ns, attributes=[attribute(key, value) for key, value in told.items()]
        )
    if span.link is not None:
        made.links.add(trace_id=span.link.trace_id.to_bytes(16), span_id=span.link.span_id.to_bytes(8))
    if span.error is not None:
        made.status.code, made.status.message = Status.STATUS_CODE_ERROR, span.error
