"""What the standard variables ``OTEL_*`` say, for whatever the configuration leaves open."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from mcp_manager.config.telemetry import TelemetryConfig
from mcp_manager.errors import ConfigError

__all__ = [
    "Destination",
    "SpanQueue",
    "check",
    "collector_url",
    "destination",
    "interval_s",
    "is_exponential",
    "is_off",
    "ratio",
    "span_queue",
    "temporality",
]

_log = logging.getLogger(__name__)

_DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_DEFAULT_INTERVAL_S: Final = 60.0
_DEFAULT_TIMEOUT_S: Final = 10.0
_DEFAULT_RATIO: Final = 0.01
_SHORTEST_S: Final = 0.1

Signal = Literal["metrics", "traces"]
Environment = Mapping[str, str]


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where the requests of one signal are sent, and how.

    Parameters
    ----------
    url
        The URL, path included.
    headers
        Header fields by name; they may hold credentials.
    timeout_s
        How long one request may take.
    compression
        The content coding of the requests.
    certificate, client_certificate, client_key
        Files of the authority, of our certificate and of its key; ``None`` for the defaults.
    """

    url: str
    headers: dict[str, str] = {}
    timeout_s: float = _DEFAULT_TIMEOUT_S
    compression: Literal["none", "gzip", "deflate"] = "none"
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None

    def __repr__(self) -> str:
        # The headers may hold credentials, and so may the query of the URL.
        return f"<Destination {urlsplit(self.url).netloc}>"


def check(config: TelemetryConfig) -> TelemetryConfig:
    """Return the configuration if it is valid.

    Raises
    ------
    ConfigError
        A value is of a wrong type or out of range, or ``endpoint`` is no URL of a collector.
    """
    try:
        checked = msgspec.convert(msgspec.to_builtins(config), TelemetryConfig)
    except (msgspec.ValidationError, TypeError) as invalid:
        raise ConfigError(f"telemetry: {invalid}") from None
    if checked.endpoint is not None:
        _check_url(checked.endpoint, "telemetry.endpoint")
    return checked


def is_off(environment: Environment, signal: Signal) -> bool:
    """Tell whether the variables turn a signal off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return True
    return environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none"


def collector_url(config: TelemetryConfig, environment: Environment, signal: Signal) -> str:
    """Return the URL to which requests of a signal are posted.

    Raises
    ------
    ConfigError
        A variable holds no URL of a collector.
    """
    if config.endpoint is not None:
        return f"{config.endpoint.rstrip('/')}/v1/{signal}"
    for name, suffix in (
        (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"/v1/{signal}"),
    ):
        if given := environment.get(name, "").strip():
            _check_url(given, name)
            return given.rstrip("/") + suffix if suffix else given
    return f"{_DEFAULT_ENDPOINT}/v1/{signal}"


def destination(config: TelemetryConfig, environment: Environment, signal: Signal) -> Destination:
    """Return where the requests of a signal go, and how; raises as :func:`collector_url`."""

    def variable(name: str) -> str:
        own = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
        return own or environment.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    from opentelemetry.util.re import parse_env_headers  # noqa: PLC0415 - an optional package

    protocol = variable("PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        _log.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %.40r, which is not supported: http/protobuf is used", protocol)
    compression = variable("COMPRESSION").lower()
    if compression not in ("", "none", "gzip", "deflate"):
        _log.warning("OTEL_EXPORTER_OTLP_COMPRESSION is %.40r, which is not supported: none is used", compression)
        compression = ""
    return Destination(
        url=collector_url(config, environment, signal),
        headers=dict(parse_env_headers(variable("HEADERS"), liberal=True)),
        timeout_s=_number(variable("TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT") or _DEFAULT_TIMEOUT_S,
        compression=compression or "none",  # type: ignore[arg-type]
        certificate=variable("CERTIFICATE") or None,
        client_certificate=variable("CLIENT_CERTIFICATE") or None,
        client_key=variable("CLIENT_KEY") or None,
    )


def interval_s(config: TelemetryConfig, environment: Environment) -> float:
    """Return the seconds between two exports of the metrics."""
    if config.interval_s is not None:
        return max(config.interval_s, _SHORTEST_S)
    name = "OTEL_METRIC_EXPORT_INTERVAL"
    milliseconds = _number(environment.get(name, ""), name)
    return max(milliseconds / 1e3, _SHORTEST_S) if milliseconds else _DEFAULT_INTERVAL_S


def temporality(config: TelemetryConfig, environment: Environment) -> Literal["cumulative", "delta"]:
    """Return the temporality of sums and histograms."""
    if config.temporality is not None:
        return config.temporality
    given = environment.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()
    return "delta" if given in ("delta", "lowmemory") else "cumulative"


def is_exponential(config: TelemetryConfig, environment: Environment) -> bool:
    """Tell whether durations have exponential buckets."""
    if config.buckets is not None:
        return config.buckets == "exponential"
    given = environment.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "").strip().lower()
    return given != "explicit_bucket_histogram"


class SpanQueue(NamedTuple):
    """How spans wait for their export: seconds between two exports, spans that wait, and spans in one request."""

    interval_s: float
    most_waiting: int
    most_at_once: int


def span_queue(environment: Environment) -> SpanQueue:
    """Return how spans wait for their export."""

    def variable(name: str, default: float) -> float:
        return _number(environment.get(name, ""), name) or default

    waiting = max(int(variable("OTEL_BSP_MAX_QUEUE_SIZE", 2048)), 1)
    at_once = max(int(variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)), 1)
    return SpanQueue(max(variable("OTEL_BSP_SCHEDULE_DELAY", 5000) / 1e3, _SHORTEST_S), waiting, min(at_once, waiting))


def ratio(configured: float | None, environment: Environment) -> float:
    """Return the share of calls that are traced, if no incoming trace decides."""
    if configured is not None:
        return configured
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower().removeprefix("parentbased_")
    if sampler in ("always_on", "always_off"):
        return 1.0 if sampler == "always_on" else 0.0
    if sampler == "traceidratio":
        name = "OTEL_TRACES_SAMPLER_ARG"
        share = _number(environment.get(name, ""), name)
        return 1.0 if share is None else min(share, 1.0)
    return _DEFAULT_RATIO


def _number(text: str, name: str) -> float | None:
    """Return a number from 0; ``None`` if there is none or, after a warning, if it is invalid."""
    text = text.strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number) and number >= 0:
        return number
    _log.warning("%s is not a number from 0: it is ignored", name)
    return None


def _check_url(url: str, name: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError(f"{name}: expected the http or https URL of a collector")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{name}: must not have a user name or password", hint="give credentials in OTEL_EXPORTER_OTLP_HEADERS"
        )
