"""An application with traces, metrics and logs of its own, whose calls to MCP servers are part of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Generator, Sequence
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TraceState
from opentelemetry.util.types import Attributes

from mcp_manager import CallError, McpManager, ToolError, load_manager_config
from mcp_manager.observe.log_format import JsonFormatter

_AFTER_THE_FACT: Final = "mcp_manager.after_the_fact"

log = logging.getLogger("orders")
tracer = trace.get_tracer("orders")
_orders = metrics.get_meter("orders").create_counter("orders", "{order}", "orders that were handled")


class KeepFailures(Sampler):
    """Sample as another sampler does, and all calls that failed or were slow.

    The manager makes spans of those after the fact; the rule of the configuration, ``tail_per_s``, limits them.
    """

    def __init__(self, ordinary: Sampler) -> None:
        self._ordinary = ordinary

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide about one span that is about to begin."""
        sampler = ALWAYS_ON if attributes and _AFTER_THE_FACT in attributes else self._ordinary
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Describe the sampler, as the SDK does in its own description."""
        return f"KeepFailures({self._ordinary.get_description()})"


class TraceIds(logging.Filter):
    """Give the log records of the application the ids of its span; those of the manager have those of the call."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; keep it."""
        span = trace.get_current_span().get_span_context()
        if span.is_valid and not hasattr(record, "trace_id"):
            record.trace_id = trace.format_trace_id(span.trace_id)
            record.span_id = trace.format_span_id(span.span_id)
        return True


@contextlib.contextmanager
def telemetry(ratio: float) -> Generator[None]:
    """Export spans and metrics meanwhile, to the collector that the environment names; without one, print spans."""
    has_collector = "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ
    exporter: SpanExporter = OTLPSpanExporter() if has_collector else ConsoleSpanExporter()
    sampler = KeepFailures(ParentBased(TraceIdRatioBased(ratio)))
    traces = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(traces)
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if has_collector else []
    counts = MeterProvider(metric_readers=readers, shutdown_on_exit=False)
    metrics.set_meter_provider(counts)
    try:
        yield
    finally:
        counts.shutdown()
        traces.shutdown()


def log_to_stderr() -> None:
    """Write the log as JSON, with the ids of spans."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    handler.addFilter(TraceIds())
    logging.basicConfig(level="WARNING", handlers=[handler])


async def order(manager: McpManager, tool: str, arguments: dict[str, float], timeout: float = 10) -> None:
    """Handle one order: a span of the application, with the call in it."""
    with tracer.start_as_current_span(f"order {tool}") as span:
        try:
            result = await manager.call_tool("calculator", tool, arguments, timeout=timeout, into=float)
            print(f"{tool}: {result.data}")
        except (CallError, ToolError) as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            log.warning("the order failed: %s", error.message, extra={"delivery": error.delivery})
            print(f"{tool}: failed, {error.delivery}")
    _orders.add(1, {"tool": tool})


async def main() -> None:
    """Handle three orders, the second of which fails, and the third of which takes too long."""
    environment = {"PYTHON": sys.executable, **os.environ}
    # Tracer providers must be set before the manager starts.
    async with McpManager(load_manager_config("fleet.toml", environment=environment)) as manager:
        await manager.wait_ready(timeout=60)
        await order(manager, "add", {"a": 2, "b": 3})
        await order(manager, "divide", {"a": 1, "b": 0})
        await order(manager, "wait", {"seconds": 1.5}, timeout=1.1)


if __name__ == "__main__":
    log_to_stderr()
    # With 1, every order is traced; a service with many orders takes 0.01, say.
    with telemetry(ratio=float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", "1"))):
        asyncio.run(main())
