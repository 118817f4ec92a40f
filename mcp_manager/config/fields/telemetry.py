"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import Literal, TypedDict

from mcp_manager.config.fields.traces import TracesFields
from mcp_manager.config.traces import TracesConfig

__all__ = ["TelemetryFields"]


class TelemetryFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.TelemetryConfig`, as keyword arguments or as a mapping."""

    metrics: bool
    """Whether metrics are exported. Default: ``False``."""
    traces: TracesConfig | TracesFields | None
    """Which calls are traced, see :class:`TracesConfig`; ``None`` traces none."""
    endpoint: str | None
    """The base URL of the collector, without ``/v1/metrics``. Default: ``OTEL_EXPORTER_OTLP_ENDPOINT`` and the like,
    else ``http://localhost:4318``. Put credentials into ``OTEL_EXPORTER_OTLP_HEADERS``.
    """
    interval_s: float | None
    """Seconds between two exports of the metrics. Default: ``OTEL_METRIC_EXPORT_INTERVAL``, else 60."""
    temporality: Literal["cumulative", "delta"] | None
    """``cumulative`` exports counts since the start, ``delta`` those since the previous export. Default:
    ``OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE``, else ``cumulative``.
    """
    buckets: Literal["exponential", "semconv"] | None
    """The buckets of durations: ``exponential``, or ``semconv`` for the fixed ones that the conventions advise, which
    cannot tell durations below 10 ms apart. Default: ``semconv`` if
    ``OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`` is ``explicit_bucket_histogram``, else ``exponential``.
    """
    propagate_baggage: bool
    """Whether the caller's ``baggage`` is passed on to servers with the trace context. Default: ``False``."""
