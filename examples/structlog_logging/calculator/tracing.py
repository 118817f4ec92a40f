"""Traces: each request is a span, which has an id for the log, whether or not there is a collector."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

__all__ = ["tracing"]


@contextlib.contextmanager
def tracing() -> Generator[None]:
    """Make spans meanwhile, and export them if ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where to.

    The provider and its exporter read the other standard variables, such as ``OTEL_SERVICE_NAME`` and
    ``OTEL_TRACES_SAMPLER``.
    """
    provider = TracerProvider(shutdown_on_exit=False)
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
