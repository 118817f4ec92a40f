"""OTLP data points: they are made from readings, as counts since the start or since the previous export."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from mcp_manager._core.readings import Distribution, Exemplar
from mcp_manager._version import __version__
from mcp_manager.telemetry.conventions import CALLS, DURATION, SCHEMA_URL, SCOPE, SEMCONV_BOUNDS_S, Family
from mcp_manager.telemetry.distributions import less, since, together
from mcp_manager.telemetry.thread import let_others_run
from mcp_manager.types import CallStatus

__all__ = ["Point", "PointMaker", "attribute", "encoded", "resource_of"]

_MOST_BUCKETS: Final = 160
# How many are added to a request before the thread lets others run: about half a millisecond of work.
_POINTS_AT_ONCE: Final = 200
_ZERO_THRESHOLD: Final = 2.0**-20
_NO_EXEMPLARS: Final[Mapping[int, Exemplar]] = {}
_NO_DURATIONS: Final = Distribution(0, 0, 0, 0, 0, 0, 0, [])

Attributes = Sequence[KeyValue]
Series = tuple[Hashable, ...]
"""Names one series: the server, the metric, and what tells its series apart."""


class Point(NamedTuple):
    """A data point, its metric, and what is remembered of its series once the point has arrived.

    That is the value that a later delta begins from, and the exemplars, which are sent once.
    """

    family: Family
    data: Any
    series: Series | None = None
    value: int | Distribution | None = None
    exemplars: frozenset[Exemplar] = frozenset()


def attribute(name: str, value: str | int | float | bool) -> KeyValue:
    """Return an attribute."""
    if isinstance(value, bool):
        return KeyValue(key=name, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=name, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=name, value=AnyValue(double_value=value))
    return KeyValue(key=name, value=AnyValue(string_value=value))


class _Remembered:
    """What is remembered of the series of one server.

    Attributes
    ----------
    before, began
        By series: what had arrived, and when the next delta begins.
    sent
        By series: the exemplars that have arrived.
    parts
        By method: when it was last read, and the parts that it had then, with when each of them began.
    gone
        By method: what had arrived of the parts that have ended.
    """

    __slots__ = ("before", "began", "gone", "parts", "sent")

    def __init__(self) -> None:
        self.before: dict[Series, int | Distribution] = {}
        self.began: dict[Series, int] = {}
        self.sent: dict[Series, frozenset[Exemplar]] = {}
        self.parts: dict[Series, tuple[int, dict[Series, int]]] = {}
        self.gone: dict[Series, tuple[list[int], Distribution]] = {}


_NOTHING: Final = _Remembered()


class PointMaker:
    """Make data points.

    Parameters
    ----------
    is_delta
        Whether counts are those since the previous export that arrived.
    is_exponential
        Whether durations have exponential buckets, not those of the conventions.
    """

    def __init__(self, *, is_delta: bool, is_exponential: bool) -> None:
        self.is_delta = is_delta
        self._is_exponential = is_exponential
        # By server, so that it costs nothing to forget one of many.
        self._servers: dict[Hashable, _Remembered] = {}

    def total(
        self, family: Family, attributes: Attributes, count: int, times: tuple[int, int], series: Series
    ) -> Point | None:
        """Return a count, or ``None`` if nothing was added since the previous export.

        Parameters
        ----------
        family, attributes, series
            The metric, and which of its series.
        count
            The count since the start.
        times
            When the counting began, and now, in nanoseconds since 1970.
        """
        value, began_ns = count, times[0]
        if self.is_delta:
            known = self._known_of(series)
            before = known.before.get(series, 0)
            assert isinstance(before, int)
            value, began_ns = count - before, known.began.get(series, times[0])
        if value <= 0:
            return None
        data = NumberDataPoint(start_time_unix_nano=began_ns, time_unix_nano=times[1], as_int=value)
        data.attributes.extend(attributes)
        return Point(family, data, series, count)

    def level(self, family: Family, attributes: Attributes, value: float, now_ns: int) -> Point:
        """Return a value that may go up and down."""
        data = NumberDataPoint(time_unix_nano=now_ns)
        if isinstance(value, int):
            data.as_int = value
        else:
            data.as_double = value
        data.attributes.extend(attributes)
        return Point(family, data)

    def durations(
        self,
        family: Family,
        attributes: Attributes,
        measured: Distribution,
        times: tuple[int, int],
        series: Series,
        exemplars: Mapping[int, Exemplar] = _NO_EXEMPLARS,
    ) -> Point | None:
        """Return a histogram, or ``None`` if nothing was added since the previous export; see :meth:`total`.

        ``exemplars`` has the latest ones; the point gets those that have not arrived yet.
        """
        shown, began_ns, known = measured, times[0], self._known_of(series)
        if self.is_delta:
            before = known.before.get(series)
            began_ns = known.began.get(series, times[0])
            if isinstance(before, Distribution):
                shown = since(before, measured)
        if not shown.count:
            return None
        data = _exponential(shown) if self._is_exponential else _explicit(shown)
        data.start_time_unix_nano, data.time_unix_nano = began_ns, times[1]
        data.count, data.sum = shown.count, shown.sum_ns / 1e9
        if shown is measured and shown.max_ns:
            # Not known of a part of the calls.
            data.min, data.max = shown.min_ns / 1e9, shown.max_ns / 1e9
        data.attributes.extend(attributes)
        latest = frozenset(exemplars.values())
        for each in latest - known.sent.get(series, frozenset()):
            data.exemplars.add(
                time_unix_nano=each.at_ns,
                as_double=each.value_ns / 1e9,
                trace_id=each.trace_id.to_bytes(16),
                span_id=each.span_id.to_bytes(8),
            )
        return Point(family, data, series, measured, latest)

    def parts_began(self, whole: Series, parts: Iterable[Series], times: tuple[int, int]) -> Mapping[Series, int]:
        """Return when the parts of calls that have series of their own began; call it for every reading.

        A part that was not there at the previous reading has begun since. One that is missing from now on has ended: its
        calls remain, but deltas that have arrived are not counted again.

        Parameters
        ----------
        whole
            Names the calls, by server and method.
        parts
            Names the parts: the series of a part is named by both.
        times
            When the counting began, and now, in nanoseconds since 1970.
        """
        remembered = self._remembered_of(whole)
        read_ns, before = remembered.parts.get(whole, (times[0], {}))
        now = {part: before.get(part, read_ns) for part in parts}
        for ended in before.keys() - now.keys():
            self._end_part(remembered, (*whole, *ended), whole)
        remembered.parts[whole] = times[1], now
        return now

    def rest(
        self,
        whole: Series,
        statuses: Sequence[int],
        durations: Distribution,
        parts: Collection[tuple[Sequence[int], Distribution]],
    ) -> tuple[Sequence[int], Distribution]:
        """Return what remains of calls, by status and duration, after the parts; see :meth:`parts_began`.

        Parameters
        ----------
        whole
            Names the calls.
        statuses, durations
            All calls.
        parts
            Those of the parts.
        """
        taken = list(parts)
        gone = self._known_of(whole).gone
        if whole in gone:
            taken.append(gone[whole])
        if not taken:
            return statuses, durations._replace(min_ns=0, max_ns=0)
        counts = [sum(each) for each in zip(*(part[0] for part in taken), strict=True)]
        remaining = less(durations, together(part[1] for part in taken))
        return [max(every - part, 0) for every, part in zip(statuses, counts, strict=True)], remaining._replace(
            min_ns=0, max_ns=0
        )

    def _end_part(self, remembered: _Remembered, series: Series, whole: Series) -> None:
        """Forget the series of a part, and keep the counts of deltas that have arrived."""
        measured = (*series, DURATION.name)
        counted = [(*series, CALLS.name, status.label) for status in CallStatus]
        if self.is_delta:
            counts, durations = remembered.gone.get(whole, ([0] * len(CallStatus), _NO_DURATIONS))
            before = remembered.before.pop(measured, None)
            if isinstance(before, Distribution):
                durations = together((durations, before))
            for at, each in enumerate(counted):
                count = remembered.before.pop(each, 0)
                if isinstance(count, int):
                    counts[at] += count
            remembered.gone[whole] = counts, durations
        for each in (measured, *counted):
            remembered.began.pop(each, None)
            remembered.sent.pop(each, None)

    def arrived(self, points: Iterable[Point]) -> None:
        """Let the next deltas begin where these points ended."""
        for _, data, series, value, exemplars in points:
            if series is None or value is None:
                continue
            if exemplars:
                self._remembered_of(series).sent[series] = exemplars
            if self.is_delta:
                remembered = self._remembered_of(series)
                remembered.before[series], remembered.began[series] = value, data.time_unix_nano

    def forget(self, server: Hashable) -> None:
        """Forget the series of a server that is gone."""
        self._servers.pop(server, None)

    def _known_of(self, series: Series) -> _Remembered:
        return self._servers.get(series[0], _NOTHING)

    def _remembered_of(self, series: Series) -> _Remembered:
        found = self._servers.get(series[0])
        if found is None:
            found = self._servers[series[0]] = _Remembered()
        return found


def _exponential(shown: Distribution) -> ExponentialHistogramDataPoint:
    """Make the point of an exponential histogram; its scale is so small that the buckets are not too many."""
    scale, offset, counts = shown.scale, shown.offset, shown.counts
    while len(counts) > _MOST_BUCKETS:
        if offset % 2:
            counts = [0, *counts]
        counts = [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
        scale, offset = scale - 1, offset // 2
    data = ExponentialHistogramDataPoint(
        scale=scale, zero_count=shown.zero_count, zero_threshold=_ZERO_THRESHOLD if shown.zero_count else 0.0
    )
    if counts:
        data.positive.offset = offset
        data.positive.bucket_counts.extend(counts)
    return data


def _explicit(shown: Distribution) -> HistogramDataPoint:
    """Make the point of a histogram with the bounds of the conventions; each bucket counts where its upper end is."""
    totals = [0] * (len(SEMCONV_BOUNDS_S) + 1)
    totals[0] = shown.zero_count
    width = 2.0**-shown.scale
    for index, count in enumerate(shown.counts, shown.offset):
        if count:
            totals[bisect_left(SEMCONV_BOUNDS_S, 2.0 ** ((index + 1) * width))] += count
    return HistogramDataPoint(explicit_bounds=SEMCONV_BOUNDS_S, bucket_counts=totals)


def encoded(points: Sequence[Point], resource: Resource, *, is_delta: bool) -> bytes:
    """Return an OTLP request with these points."""
    request = ExportMetricsServiceRequest()
    scoped = request.resource_metrics.add(resource=resource).scope_metrics.add(
        scope=InstrumentationScope(name=SCOPE, version=__version__), schema_url=SCHEMA_URL
    )
    temporality = AGGREGATION_TEMPORALITY_DELTA if is_delta else AGGREGATION_TEMPORALITY_CUMULATIVE
    metrics: dict[str, Any] = {}
    for number, (family, data, *_) in enumerate(points, 1):
        if number % _POINTS_AT_ONCE == 0:
            let_others_run()
        found = metrics.get(family.name)
        if found is None:
            metric = scoped.metrics.add(name=family.name, unit=family.unit, description=family.description)
            found = metrics[family.name] = _container(metric, family, data, temporality)
        found.append(data)
    body: bytes = request.SerializeToString()
    return body


def _container(metric: Metric, family: Family, data: Any, temporality: Any) -> Any:
    """Return the list of a metric that its points belong to."""
    if family.kind == "level":
        return metric.gauge.data_points
    if family.kind == "total":
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = temporality, True
        return metric.sum.data_points
    histogram = metric.exponential_histogram if isinstance(data, ExponentialHistogramDataPoint) else metric.histogram
    histogram.aggregation_temporality = temporality
    return histogram.data_points


def resource_of(attributes: Mapping[str, Any]) -> Resource:
    """Return a resource with these attributes."""
    return Resource(attributes=[attribute(name, value) for name, value in attributes.items()])
