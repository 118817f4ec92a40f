"""What the variables of OpenTelemetry say, and what the configuration says instead."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mcp_manager import ConfigError, ManagerConfig, McpManager, TelemetryConfig, TracesConfig
from mcp_manager.telemetry import environment

PLAIN = TelemetryConfig(metrics=True)


@pytest.mark.parametrize(
    ("config", "variables", "url"),
    [
        (PLAIN, {}, "http://localhost:4318/v1/metrics"),
        (PLAIN, {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c.example/base/"}, "https://c.example/base/v1/metrics"),
        (PLAIN, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c.example/in"}, "http://c.example/in"),
        (
            TelemetryConfig(endpoint="http://d.example:1"),
            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c.example/in"},
            "http://d.example:1/v1/metrics",
        ),
    ],
)
def test_the_collector_is_that_of_the_configuration_or_of_the_variables(
    config: TelemetryConfig, variables: dict[str, str], url: str
) -> None:
    assert environment.destination(config, variables, "metrics").url == url


def test_headers_times_and_files_come_from_the_variables_of_the_signal_first() -> None:
    found = environment.destination(
        PLAIN,
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20general",
            "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "authorization=Bearer%20canary-7f3a,x-tenant=a",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
        },
        "metrics",
    )
    assert found.headers == {"authorization": "Bearer canary-7f3a", "x-tenant": "a"}
    assert (found.timeout_s, found.compression, found.certificate) == (3.0, "gzip", "/ca.pem")
    assert "canary" not in repr(found)


def test_a_variable_that_makes_no_sense_is_reported_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "brotli",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_METRIC_EXPORT_INTERVAL": "-1",
    }
    with caplog.at_level(logging.WARNING):
        found = environment.destination(PLAIN, variables, "metrics")
        assert environment.interval_s(PLAIN, variables) == 60.0
    assert (found.timeout_s, found.compression) == (10.0, "none")
    assert len(caplog.records) == 4


def test_intervals_and_temporality() -> None:
    assert environment.interval_s(PLAIN, {"OTEL_METRIC_EXPORT_INTERVAL": "5000"}) == 5.0
    assert environment.interval_s(TelemetryConfig(interval_s=7.0), {"OTEL_METRIC_EXPORT_INTERVAL": "5000"}) == 7.0
    preference = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "DELTA"}
    assert environment.temporality(PLAIN, preference) == "delta"
    assert environment.temporality(TelemetryConfig(temporality="cumulative"), preference) == "cumulative"
    assert environment.temporality(PLAIN, {}) == "cumulative"


def test_buckets_and_the_queue_of_spans() -> None:
    explicit = {"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "explicit_bucket_histogram"}
    assert environment.is_exponential(PLAIN, {})
    assert not environment.is_exponential(PLAIN, explicit)
    assert environment.is_exponential(TelemetryConfig(buckets="exponential"), explicit)
    assert environment.span_queue({}) == (5.0, 2048, 512)
    queue = {"OTEL_BSP_SCHEDULE_DELAY": "2000", "OTEL_BSP_MAX_QUEUE_SIZE": "100"}
    assert environment.span_queue(queue) == (2.0, 100, 100)


@pytest.mark.parametrize(
    ("configured", "variables", "ratio"),
    [
        (None, {}, 0.01),
        (0.5, {"OTEL_TRACES_SAMPLER": "always_on"}, 0.5),
        (None, {"OTEL_TRACES_SAMPLER": "always_off"}, 0.0),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, 1.0),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.25),
        (None, {"OTEL_TRACES_SAMPLER": "traceidratio"}, 1.0),
    ],
)
def test_the_share_of_traced_calls(configured: float | None, variables: dict[str, str], ratio: float) -> None:
    assert environment.ratio(configured, variables) == ratio


def test_signals_can_be_turned_off_by_variables() -> None:
    assert environment.is_off({"OTEL_SDK_DISABLED": "true"}, "metrics")
    assert environment.is_off({"OTEL_METRICS_EXPORTER": "none"}, "metrics")
    assert not environment.is_off({"OTEL_METRICS_EXPORTER": "none"}, "traces")
    assert not environment.is_off({}, "metrics")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"endpoint": "collector:4317"}, "telemetry.endpoint: expected the http or https URL"),
        ({"endpoint": "http://user:canary-7f3a@host"}, "must not have a user name or password"),
        ({"interval_s": -1.0}, "interval_s"),
        ({"temporality": "both"}, "temporality"),
        ({"traces": TracesConfig(ratio=2.0)}, "ratio"),
        ({"traces": TracesConfig(slow="p50")}, "slow"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_setting_is_refused_before_anything_starts(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        McpManager(ManagerConfig(telemetry=TelemetryConfig(metrics=True, **settings)))
    assert "canary" not in str(refused.value)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost")
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        McpManager(ManagerConfig(telemetry=PLAIN))
    assert McpManager(ManagerConfig()).is_running is False


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk", None)
    with pytest.raises(ConfigError, match="opentelemetry-sdk") as refused:
        McpManager(ManagerConfig(telemetry=PLAIN))
    assert "pip install 'pymcp-manager[otel]'" in str(refused.value)
