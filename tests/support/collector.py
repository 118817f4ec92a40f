"""An OpenTelemetry collector on a thread of its own: it decodes what arrives, or behaves as a script says."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mcp_manager.testing.scripted.watching import Watched

__all__ = ["Answer", "Arrived", "Collector", "attributes"]

_WAIT_S: Final = 10.0


@dataclass(frozen=True)
class Answer:
    """What the collector does with one request; ``hold`` is what it waits for before it answers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    rejected: int = 0


@dataclass(frozen=True)
class Arrived:
    """One request that was answered with 200: its header fields, its body before decompression, and what it says."""

    headers: Mapping[str, str]
    body: bytes
    message: Any


def attributes(holder: Any) -> dict[str, Any]:
    """Return the attributes of a point, span or resource as a dictionary."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


class Collector(Watched):
    """Take OTLP over HTTP; ``with`` starts and ends it.

    Attributes
    ----------
    arrived
        The accepted requests with metrics.
    spans
        The spans that arrived, each with the resource that it belongs to.
    attempts
        How many requests came, refused ones included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[Arrived] = []
        self.spans: list[tuple[Any, Any]] = []
        self.attempts = 0
        self.bodies: list[bytes] = []
        self._script: collections.deque[Answer] = collections.deque()
        self._standing: Callable[[int], Answer] = lambda size: Answer()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="collector", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(_WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(_WAIT_S)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._port}"

    def script(self, *answers: Answer) -> None:
        """Answer the next requests like this, then as always."""
        self._script.extend(answers)

    def always(self, answer: Callable[[int], Answer]) -> None:
        """Answer every request that no script is left for, given its size."""
        self._standing = answer

    def points(self, name: str, arrived: Arrived | None = None) -> list[Any]:
        """Return the points of a metric, of one request or of all."""
        return [
            point
            for each in ([arrived] if arrived is not None else self.arrived)
            for metric in metrics(each.message)
            if metric.name == name
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    def newest(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """Return the latest point of each series of a metric."""
        return {frozenset(attributes(point).items()): point for point in self.points(name)}

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v1/metrics", self._take)
        app.router.add_post("/v1/traces", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._port = runner.addresses[0][1]
        self._started.set()
        await self._over.wait()
        await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        # The server has undone the content coding.
        body = await request.read()
        self.bodies.append(body)
        answer = self._script.popleft() if self._script else self._standing(len(body))
        if answer.hold is not None:
            while not answer.hold.is_set():
                await asyncio.sleep(0.01)
        reply = b""
        if answer.status == 200:
            reply = self._keep(request, body, answer)
        self.attempts += 1
        self.news()
        return web.Response(status=answer.status, headers=answer.headers, body=reply)

    def _keep(self, request: web.Request, body: bytes, answer: Answer) -> bytes:
        if request.path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            self.spans += [
                (span, resource.resource)
                for resource in traces.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
            return b""
        message = ExportMetricsServiceRequest.FromString(body)
        self.arrived.append(Arrived(dict(request.headers), body, message))
        response = ExportMetricsServiceResponse()
        response.partial_success.rejected_data_points = answer.rejected
        return bytes(response.SerializeToString())


def metrics(message: Any) -> Iterator[Any]:
    """Yield the metrics of a request."""
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics
