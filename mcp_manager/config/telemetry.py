"""The configuration of OpenTelemetry: which metrics and traces are exported, and where to."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from mcp_manager.config._struct import PositiveSeconds, Settings

__all__ = ["TelemetryConfig", "TracesConfig"]

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
"""A share of calls, from 0 to 1."""


class TracesConfig(Settings, frozen=True, kw_only=True):
    """Configure which calls are traced; the decision is made before a call, or for ``errors`` and ``slow`` after it.

    Parameters
    ----------
    ratio
        The share of calls without an incoming trace that are traced. Default: what ``OTEL_TRACES_SAMPLER`` and
        ``OTEL_TRACES_SAMPLER_ARG`` say, else 0.01.
    parent
        Let the incoming trace decide for calls that have one; ``False`` applies ``ratio`` to them, too.
    errors
        Trace calls that fail, after the fact.
    slow
        Trace calls that take longer than this quantile of their server's latest calls, after the fact; ``off``
        traces none of them.
    tail_per_s
        The most traces a second that are made after the fact.
    content_bytes
        How many bytes of the arguments and of the result of a traced tool call are recorded. They may contain secrets;
        0 records none.
    """

    ratio: Share | None = None
    parent: bool = True
    errors: bool = True
    slow: Literal["off", "p95", "p99"] = "p99"
    tail_per_s: Annotated[float, Meta(ge=0.0, le=10_000.0)] = 10.0
    content_bytes: Annotated[int, Meta(ge=0, le=65_536)] = 0


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

    metrics: bool = False
    traces: TracesConfig | None = None
    endpoint: str | None = None
    interval_s: PositiveSeconds | None = None
    temporality: Literal["cumulative", "delta"] | None = None
    buckets: Literal["exponential", "semconv"] | None = None
    propagate_baggage: bool = False

    @property
    def is_on(self) -> bool:
        """Whether anything is exported."""
        return self.metrics or self.traces is not None
