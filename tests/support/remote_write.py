"""OTLP as Prometheus stores it, for a Prometheus that does not take OTLP: names, labels and native histograms.

The rules are those of OpenTelemetry's specification (compatibility/prometheus_and_openmetrics) with Prometheus's default
translation: characters that it does not allow become underscores, and units and ``_total`` are appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from support.collector import attributes

__all__ = ["HEADERS", "Series", "as_series", "written"]

HEADERS: Final = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_UNITS: Final = {"s": "_seconds", "By": "_bytes", "ms": "_milliseconds"}
_FIELD: Final = descriptor_pb2.FieldDescriptorProto


class Series(NamedTuple):
    """One sample of one series: a number, or a point of an exponential histogram."""

    labels: dict[str, str]
    at_ms: int
    value: Any


def as_series(message: Any) -> Iterator[Series]:
    """Yield what Prometheus stores of an export request."""
    for holder in message.resource_metrics:
        resource = attributes(holder.resource)
        identity = {"job": resource.pop("service.name"), "instance": resource.pop("service.instance.id")}
        newest = 0
        for scope in holder.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                name = name_of(metric, kind)
                for point in getattr(metric, kind).data_points:
                    at_ms = point.time_unix_nano // 1_000_000
                    newest = max(newest, at_ms)
                    value = point if kind == "exponential_histogram" else _number(point)
                    yield Series({"__name__": name, **identity, **_labels(attributes(point))}, at_ms, value)
        yield Series({"__name__": "target_info", **identity, **_labels(resource)}, newest, 1.0)


def name_of(metric: Any, kind: str) -> str:
    """Return the name of a metric in Prometheus."""
    name = re.sub(r"[^a-zA-Z0-9_:]+", "_", metric.name)
    # What is in braces is a comment.
    unit = re.sub(r"\{.*\}", "", metric.unit)
    if unit == "1":
        name += "_ratio" if kind == "gauge" else ""
    elif unit:
        name += _UNITS[unit]
    return f"{name}_total" if kind == "sum" and metric.sum.is_monotonic else name


def written(series: list[Series]) -> bytes:
    """Encode series as a request of remote write."""
    request = _WriteRequest()
    for each in series:
        one = request.timeseries.add()
        for name, value in sorted(each.labels.items()):
            one.labels.add(name=name, value=value)
        if isinstance(each.value, float):
            one.samples.add(value=each.value, timestamp=each.at_ms)
        else:
            _add_histogram(one, each)
    return _snappy(request.SerializeToString())


def _labels(told: Mapping[str, Any]) -> dict[str, str]:
    return {re.sub(r"[^a-zA-Z0-9_]", "_", name): str(value) for name, value in told.items()}


def _number(point: Any) -> float:
    return float(getattr(point, point.WhichOneof("value")))


def _add_histogram(one: Any, each: Series) -> None:
    point = each.value
    assert point.negative.bucket_counts == []
    assert point.scale <= 8
    histogram = one.histograms.add(
        count_int=point.count,
        sum=point.sum,
        schema=point.scale,
        zero_threshold=point.zero_threshold,
        zero_count_int=point.zero_count,
        timestamp=each.at_ms,
    )
    counts = list(point.positive.bucket_counts)
    if counts:
        # OpenTelemetry numbers a bucket by its lower bound, Prometheus by its upper one.
        histogram.positive_spans.add(offset=point.positive.offset + 1, length=len(counts))
        histogram.positive_deltas.extend(now - before for before, now in zip([0, *counts], counts, strict=False))


def _snappy(data: bytes) -> bytes:
    """Return data in the block format of Snappy, as literals: nothing is compressed."""
    length, head = len(data), bytearray()
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    for at in range(0, len(data), 1 << 16):
        piece = data[at : at + (1 << 16)]
        head += bytes([61 << 2]) + (len(piece) - 1).to_bytes(2, "little") + piece
    return bytes(head)


def _write_request() -> Any:
    """Make the class of the messages of remote write 1.0, with the fields that are used here."""
    file = descriptor_pb2.FileDescriptorProto(name="remote_write.proto", package="prometheus", syntax="proto3")
    messages: dict[str, dict[str, tuple[int, Any, str]]] = {
        "Label": {"name": (1, _FIELD.TYPE_STRING, ""), "value": (2, _FIELD.TYPE_STRING, "")},
        "Sample": {"value": (1, _FIELD.TYPE_DOUBLE, ""), "timestamp": (2, _FIELD.TYPE_INT64, "")},
        "BucketSpan": {"offset": (1, _FIELD.TYPE_SINT32, ""), "length": (2, _FIELD.TYPE_UINT32, "")},
        "Histogram": {
            "count_int": (1, _FIELD.TYPE_UINT64, ""),
            "sum": (3, _FIELD.TYPE_DOUBLE, ""),
            "schema": (4, _FIELD.TYPE_SINT32, ""),
            "zero_threshold": (5, _FIELD.TYPE_DOUBLE, ""),
            "zero_count_int": (6, _FIELD.TYPE_UINT64, ""),
            "positive_spans": (11, _FIELD.TYPE_MESSAGE, "BucketSpan"),
            "positive_deltas": (12, _FIELD.TYPE_SINT64, "many"),
            "timestamp": (15, _FIELD.TYPE_INT64, ""),
        },
        "TimeSeries": {
            "labels": (1, _FIELD.TYPE_MESSAGE, "Label"),
            "samples": (2, _FIELD.TYPE_MESSAGE, "Sample"),
            "histograms": (4, _FIELD.TYPE_MESSAGE, "Histogram"),
        },
        "WriteRequest": {"timeseries": (1, _FIELD.TYPE_MESSAGE, "TimeSeries")},
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, of) in fields.items():
            label = _FIELD.LABEL_REPEATED if of else _FIELD.LABEL_OPTIONAL
            told = message.field.add(name=field, number=number, type=kind, label=label)
            if kind == _FIELD.TYPE_MESSAGE:
                told.type_name = f".prometheus.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


_WriteRequest: Final = _write_request()
