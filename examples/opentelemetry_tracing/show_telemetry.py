"""Run a program with a small collector beside it, and print what it has exported: traces as trees, and metrics.

``python show_telemetry.py application.py`` needs nothing else. It shows what arrives at a collector, and replaces none.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_Series: TypeAlias = tuple[str, str, str]

_KINDS: Final = {Span.SPAN_KIND_CLIENT: "client", Span.SPAN_KIND_SERVER: "server"}
_OF_SPANS: Final = ("error.type", "mcp_manager.delivery", "mcp_manager.after_the_fact")
_OF_POINTS: Final = ("tool", "gen_ai.tool.name", "error.type")
_METRICS: Final = ("orders", "mcp.client.operation.duration", "mcp_manager.client.calls")


class Collector:
    """Take traces and metrics by OTLP, over HTTP with protobuf."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        self.points: dict[_Series, NumberDataPoint | ExponentialHistogramDataPoint] = {}

    def application(self) -> web.Application:
        """Return what serves the two paths of OTLP."""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/traces", self._take_traces)
        app.router.add_post("/v1/metrics", self._take_metrics)
        return app

    async def _take_traces(self, request: web.Request) -> web.Response:
        for part in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            service = dict(_texts(part.resource.attributes)).get("service.name", "")
            self.spans += [(service, span) for scope in part.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    async def _take_metrics(self, request: web.Request) -> web.Response:
        for part in ExportMetricsServiceRequest.FromString(await request.read()).resource_metrics:
            service = dict(_texts(part.resource.attributes)).get("service.name", "")
            for metric in (metric for scope in part.scope_metrics for metric in scope.metrics):
                for point in _points_of(metric):
                    # Counts are since the start, so that the latest point says all; exemplars are sent once.
                    series = service, metric.name, _shown(point.attributes, _OF_POINTS)
                    if before := self.points.get(series):
                        point.exemplars.extend(before.exemplars)
                    self.points[series] = point
        return web.Response(content_type="application/x-protobuf")


def _points_of(metric: Metric) -> Iterable[NumberDataPoint | ExponentialHistogramDataPoint]:
    if metric.HasField("exponential_histogram"):
        return metric.exponential_histogram.data_points
    return metric.sum.data_points


def _texts(attributes: Iterable[KeyValue]) -> Iterator[tuple[str, str]]:
    for each in attributes:
        yield each.key, each.value.string_value or str(each.value.bool_value or each.value.int_value)


def _shown(attributes: Iterable[KeyValue], names: tuple[str, ...]) -> str:
    texts = dict(_texts(attributes))
    return ", ".join(f"{name}={texts[name]}" for name in names if name in texts)


def trees_of(spans: list[tuple[str, Span]]) -> Iterator[str]:
    """Yield the lines that show each trace: a span, and below it those that it caused."""
    known = {span.span_id for _, span in spans}
    below: dict[bytes, list[tuple[str, Span]]] = {}
    for service, span in sorted(spans, key=lambda each: each[1].start_time_unix_nano):
        below.setdefault(span.parent_span_id if span.parent_span_id in known else b"", []).append((service, span))
    waiting = [(0, *each) for each in reversed(below.get(b"", []))]
    while waiting:
        depth, service, span = waiting.pop()
        kind = _KINDS.get(span.kind, "inside")
        error = ", error" if span.status.code == Status.STATUS_CODE_ERROR else ""
        details = _shown(span.attributes, _OF_SPANS)
        yield f"{'    ' * depth}{span.name} ({service}, {kind}{error})" + (f": {details}" if details else "")
        waiting += [(depth + 1, *each) for each in reversed(below.get(span.span_id, []))]


def metrics_of(collector: Collector) -> Iterator[str]:
    """Yield a line for each series, with the name of the span that its exemplar leads to."""
    names = {span.span_id: span.name for _, span in collector.spans}
    for (service, name, attributes), point in sorted(collector.points.items()):
        if name in _METRICS:
            count = point.as_int if isinstance(point, NumberDataPoint) else point.count
            exemplars = [f"a call of the span {names.get(each.span_id, '?')!r}" for each in point.exemplars]
            yield f"{name} ({service}) {attributes}: {count}" + "".join(f", {each}" for each in exemplars)


async def main(program: list[str]) -> int:
    """Run a program of Python; return its exit status."""
    collector = Collector()
    runner = web.AppRunner(collector.application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        environment = {"OTEL_SERVICE_NAME": "orders", **os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        process = await asyncio.create_subprocess_exec(sys.executable, *program, env=environment)
        status = await process.wait()
    finally:
        await runner.cleanup()
    print("\nTraces", *trees_of(collector.spans), "\nMetrics", *metrics_of(collector), sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
