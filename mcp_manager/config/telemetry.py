"""The configuration of OpenTelemetry: which metrics and traces are exported, and where to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Unpack

import msgspec

from mcp_manager.config._struct import PositiveSeconds, Settings, as_section
from mcp_manager.config.traces import TracesConfig

if TYPE_CHECKING:
    from mcp_manager.config.fields.telemetry import TelemetryFields

__all__ = ["TelemetryConfig"]


class TelemetryConfig(Settings, frozen=True, kw_only=True):
    """Configure the export to an OpenTelemetry collector, over OTLP (HTTP with protobuf).

    It needs the extra ``otel``. What is not given here is taken from the standard variables ``OTEL_*``.

    Parameters
    ----------
    metrics
        Whether metrics are exported.
    traces
        Which calls are traced, see :class:`TracesConfig`; ``None`` traces none.
    endpoint
        The base URL of the collector, without ``/v1/metrics``. Default: ``OTEL_EXPORTER_OTLP_ENDPOINT`` and the like,
        else ``http://localhost:4318``. Put credentials into ``OTEL_EXPORTER_OTLP_HEADERS``.
    interval_s
        Seconds between two exports of the metrics. Default: ``OTEL_METRIC_EXPORT_INTERVAL``, else 60.
    temporality
        ``cumulative`` exports counts since the start, ``delta`` those since the previous export. Default:
        ``OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE``, else ``cumulative``.
    buckets
        The buckets of durations: ``exponential``, or ``semconv`` for the fixed ones that the conventions advise, which
        cannot tell durations below 10 ms apart. Default: ``semconv`` if ``OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION``
        is ``explicit_bucket_histogram``, else ``exponential``.
    propagate_baggage
        Whether the caller's ``baggage`` is passed on to servers with the trace context.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[TelemetryFields]) -> None: ...

    metrics: bool = False
    traces: TracesConfig | None = None
    endpoint: str | None = None
    interval_s: PositiveSeconds | None = None
    temporality: Literal["cumulative", "delta"] | None = None
    buckets: Literal["exponential", "semconv"] | None = None
    propagate_baggage: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        traces: object = self.traces
        if isinstance(traces, Mapping):
            msgspec.structs.force_setattr(self, "traces", as_section(TracesConfig, traces, "traces"))

    @property
    def is_on(self) -> bool:
        """Whether anything is exported."""
        return self.metrics or self.traces is not None
