"""What one manager exports, from its start to its end; nothing is loaded for a manager that exports nothing."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mcp_manager._core.router import Router
from mcp_manager._version import __version__
from mcp_manager.calls.call_log import CallLog
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.config import TelemetryConfig
from mcp_manager.errors import ConfigError
from mcp_manager.health.tally import Tally
from mcp_manager.observe.steady_reading import steadily
from mcp_manager.protocol.trace_context import TraceContext
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.telemetry import environment
from mcp_manager.telemetry.environment import Destination

if TYPE_CHECKING:
    from mcp_manager._core.readings import ToolOperation
    from mcp_manager.telemetry.metrics import MetricsExporter, Sources
    from mcp_manager.telemetry.spans import SpanExporter

__all__ = ["Telemetry", "open_telemetry"]

_EXTRA: Final = "install it with: pip install 'pymcp-manager[otel]'"
_SERVICE: Final = "mcp-manager"
_LAST_EXPORT_S: Final = 3.0


def open_telemetry(config: TelemetryConfig, trace_context: TraceContext | None = None) -> Telemetry:
    """Return what a manager with this configuration exports with.

    Raises
    ------
    ConfigError
        The configuration or a variable ``OTEL_*`` is invalid, or the extra ``otel`` is not installed.
    """
    if not isinstance(config, TelemetryConfig):
        raise ConfigError(f"telemetry must be a TelemetryConfig, not of type {type(config).__name__}")
    environment.check(config)
    # Looked at before the modules are imported for this manager.
    application_traces = "opentelemetry.context" in sys.modules
    signals: list[environment.Signal] = []
    if config.metrics and not environment.is_off(os.environ, "metrics"):
        signals.append("metrics")
    if config.traces is not None and not environment.is_off(os.environ, "traces"):
        signals.append("traces")
    if signals:
        _require_extra()
    destinations = {each: environment.destination(config, os.environ, each) for each in signals}
    return Telemetry(config, destinations, trace_context, application_traces=application_traces)


class Telemetry:
    """Export the metrics and traces of one manager, or nothing.

    Parameters
    ----------
    config
        What is exported; it was checked.
    destinations
        Where to, by signal; nothing else is exported.
    trace_context
        Returns the trace context of a manager's caller; ``None`` if OpenTelemetry's current context says it.
    application_traces
        Whether the application uses OpenTelemetry, so that its current context may hold a span.

    Attributes
    ----------
    session_context
        What sessions must ask for the trace context of requests; ``None`` if requests have it when they get there.
    """

    def __init__(
        self,
        config: TelemetryConfig,
        destinations: Mapping[environment.Signal, Destination],
        trace_context: TraceContext | None,
        *,
        application_traces: bool,
    ) -> None:
        self._config = config
        self._application_traces = application_traces
        self._destinations = destinations
        self._trace_context = trace_context
        self._metrics: MetricsExporter | None = None
        self._spans: SpanExporter | None = None
        self._sources: Sources | None = None
        self._ending: dict[Supervisor, list[ToolOperation] | None] = {}
        self._end_traces: Callable[[], object] = bool
        self.session_context: TraceContext | None = None if "traces" in destinations else trace_context

    @property
    def dispatcher_type(self) -> type[Dispatcher]:
        """The class of the dispatcher: one that traces, if calls are traced."""
        if "traces" not in self._destinations:
            return Dispatcher
        from mcp_manager.telemetry.dispatcher import TracedDispatcher  # noqa: PLC0415 - needs the extra

        return TracedDispatcher

    def start(
        self,
        router: Router,
        servers: Mapping[str, Supervisor],
        calls: tuple[Dispatcher, CallLog],
        tally: Tally[Supervisor],
        lag: LoopLag,
    ) -> None:
        """Begin to export what these parts of a manager count, and to trace its calls."""
        resource = resource_attributes() if self._destinations else {}
        if "metrics" in self._destinations:
            self._sources = _sources(router, servers, tally, lag)
            self._start_metrics(self._sources, resource)
        if "traces" in self._destinations:
            self._start_traces(router, *calls, resource)

    def _start_metrics(self, sources: Sources, resource: dict[str, Any]) -> None:
        from mcp_manager.telemetry.metrics import MetricsExporter  # noqa: PLC0415 - needs the extra
        from mcp_manager.telemetry.points import PointMaker, resource_of  # noqa: PLC0415
        from mcp_manager.telemetry.sender import Sender  # noqa: PLC0415

        config = self._config
        self._metrics = MetricsExporter(
            sources,
            Sender(self._destinations["metrics"]),
            PointMaker(
                is_delta=environment.temporality(config, os.environ) == "delta",
                is_exponential=environment.is_exponential(config, os.environ),
            ),
            resource_of(resource),
            environment.interval_s(config, os.environ),
        )
        # Nobody else ends the thread of a manager that is dropped without being stopped.
        weakref.finalize(self, self._metrics.end).atexit = False
        self._metrics.start()

    def _start_traces(self, router: Router, dispatcher: Dispatcher, log: CallLog, resource: dict[str, Any]) -> None:
        from mcp_manager.telemetry.dispatcher import TracedDispatcher  # noqa: PLC0415 - needs the extra
        from mcp_manager.telemetry.foreign import ForeignTracer  # noqa: PLC0415
        from mcp_manager.telemetry.points import resource_of  # noqa: PLC0415
        from mcp_manager.telemetry.sender import Sender  # noqa: PLC0415
        from mcp_manager.telemetry.spans import OwnSpan, SpanExporter, provider_of_application  # noqa: PLC0415
        from mcp_manager.telemetry.tracer import CallTracer, SpanMaker  # noqa: PLC0415

        config = self._config.traces
        assert config is not None
        assert isinstance(dispatcher, TracedDispatcher)
        provider = provider_of_application()
        make_span: SpanMaker
        if provider is not None:
            make_span = ForeignTracer(provider)
        else:
            sender, queue = Sender(self._destinations["traces"]), environment.span_queue(os.environ)
            self._spans = SpanExporter(sender, resource_of(resource), queue)
            make_span = partial(OwnSpan, self._spans)
            weakref.finalize(self, self._spans.end).atexit = False
            self._spans.start()
        given, baggage = self._trace_context, self._config.propagate_baggage
        self._end_traces = dispatcher.end
        dispatcher.trace(
            CallTracer(
                make_span,
                config,
                given,
                log,
                propagate_baggage=baggage,
                application_traces=self._application_traces,
            ),
            config,
            environment.ratio(config.ratio, os.environ),
            router,
        )

    def removed(self, supervisor: Supervisor) -> None:
        """Note the counts by tool of a server that is removed, which the router is about to add up."""
        if self._metrics is not None and self._sources is not None:
            self._ending[supervisor] = self._sources.read_tools(supervisor)

    def ended(self, supervisor: Supervisor) -> None:
        """Export the last counts of a server that was removed and has ended."""
        tools = self._ending.pop(supervisor, None)
        if self._metrics is not None and self._sources is not None:
            self._metrics.removed(self._sources.read(supervisor, tools))

    async def aclose(self, servers: Sequence[Supervisor]) -> None:
        """Export the last spans, and the last counts of these servers, which have ended; 3 s at most."""
        self._end_traces()
        for removed in list(self._ending):
            # It was being removed, and has ended; whoever removes it need not have been told yet.
            self.ended(removed)
        metrics, spans = self._metrics, self._spans
        self._metrics = self._spans = None
        ending = [] if metrics is None else [metrics.aclose(servers, _LAST_EXPORT_S)]
        if spans is not None:
            ending.append(spans.aclose(_LAST_EXPORT_S))
        await asyncio.gather(*ending)


def _require_extra() -> None:
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: PLC0415 - an extra, and slow to import
        import opentelemetry.sdk  # noqa: F401, PLC0415
    except ImportError:
        raise ConfigError("telemetry needs the package opentelemetry-sdk", hint=_EXTRA) from None


def resource_attributes() -> dict[str, Any]:
    """Return the attributes of the resource: our own, unless the variables ``OTEL_*`` say otherwise."""
    import uuid  # noqa: PLC0415 - importing the package must not load it

    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - needs the extra

    own = {
        "service.name": _SERVICE,
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
    }
    return dict(Resource(own).merge(OTELResourceDetector().detect()).attributes)


def _sources(
    router: Router,
    servers: Mapping[str, Supervisor],
    tally: Tally[Supervisor],
    lag: LoopLag,
) -> Sources:
    from mcp_manager.telemetry.metrics import Sources  # noqa: PLC0415 - needs the extra
    from mcp_manager.telemetry.readings import read, read_tools  # noqa: PLC0415

    def health() -> tuple[int, int, int]:
        total, healthy, unhealthy = tally.counts
        return healthy, total - healthy - unhealthy, unhealthy

    return Sources(
        servers=lambda: steadily(lambda: list(servers.values())),
        read=lambda each, tools=None: steadily(partial(read, each, router, time.monotonic_ns(), tools)),
        read_tools=lambda each: read_tools(each, router),
        health=health,
        lag=lag,
    )
