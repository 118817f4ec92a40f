"""What one manager exports, from its start to its end; nothing is loaded for a manager that exports nothing."""

from __future__ import annotations

import os
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mcp_manager._core.router import Router
from mcp_manager._version import __version__
from mcp_manager.calls.recovery_counts import Recoveries
from mcp_manager.config import TelemetryConfig
from mcp_manager.errors import ConfigError
from mcp_manager.health.tally import Tally
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.telemetry import environment

if TYPE_CHECKING:
    from mcp_manager.telemetry.metrics import MetricsExporter, Sources

__all__ = ["Telemetry", "open_telemetry"]

_EXTRA: Final = "install it with: pip install 'pymcp-manager[otel]'"
_SERVICE: Final = "mcp-manager"
_LAST_EXPORT_S: Final = 3.0
_READINGS: Final = 100


def open_telemetry(config: TelemetryConfig) -> Telemetry:
    """Return what a manager with this configuration exports with.

    Raises
    ------
    ConfigError
        The configuration or a variable ``OTEL_*`` is invalid, or the extra ``otel`` is not installed.
    """
    if not isinstance(config, TelemetryConfig):
        raise ConfigError(f"telemetry must be a TelemetryConfig, not of type {type(config).__name__}")
    environment.check(config)
    exports_metrics = config.metrics and not environment.is_off(os.environ, "metrics")
    if exports_metrics:
        _require_extra()
    return Telemetry(config, exports_metrics=exports_metrics)


class Telemetry:
    """Export the metrics of one manager, or nothing.

    Parameters
    ----------
    config
        What is exported; it was checked.
    exports_metrics
        Whether metrics are exported.
    """

    def __init__(self, config: TelemetryConfig, *, exports_metrics: bool) -> None:
        self._config = config
        self._metrics: MetricsExporter | None = None
        self._sources: Sources | None = None
        self._destination = environment.destination(config, os.environ, "metrics") if exports_metrics else None

    def start(
        self,
        router: Router,
        servers: Mapping[str, Supervisor],
        recoveries: Recoveries,
        tally: Tally[Supervisor],
        lag: LoopLag,
    ) -> None:
        """Begin to export what these parts of a manager count."""
        if self._destination is None:
            return
        from mcp_manager.telemetry.metrics import MetricsExporter  # noqa: PLC0415 - needs the extra
        from mcp_manager.telemetry.points import PointMaker, resource_of  # noqa: PLC0415
        from mcp_manager.telemetry.sender import Sender  # noqa: PLC0415

        config = self._config
        self._sources = sources = _sources(router, servers, recoveries, tally, lag)
        self._metrics = exporter = MetricsExporter(
            sources,
            Sender(self._destination),
            PointMaker(
                is_delta=environment.temporality(config, os.environ) == "delta",
                is_exponential=config.buckets == "exponential",
            ),
            resource_of(resource_attributes()),
            environment.interval_s(config, os.environ),
        )
        # Nobody else ends the thread of a manager that is dropped without being stopped.
        weakref.finalize(self, exporter.end).atexit = False
        exporter.start()

    def removed(self, supervisor: Supervisor) -> None:
        """Export the last counts of a server that was removed."""
        if self._metrics is not None and self._sources is not None:
            self._metrics.removed(self._sources.read(supervisor))

    async def aclose(self, servers: Sequence[Supervisor]) -> None:
        """Export the last counts of these servers, which have ended, and end the export; 3 s at most."""
        exporter, self._metrics = self._metrics, None
        if exporter is not None:
            await exporter.aclose(servers, _LAST_EXPORT_S)


def _require_extra() -> None:
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: PLC0415 - an extra, and slow to import
        import opentelemetry.sdk  # noqa: F401, PLC0415
    except ImportError:
        raise ConfigError("telemetry needs the package opentelemetry-sdk", hint=_EXTRA) from None


def resource_attributes() -> dict[str, Any]:
    """Return the attributes of the resource: our own, unless the variables ``OTEL_*`` say otherwise."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - an optional package

    own = {
        "service.name": _SERVICE,
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
    }
    return dict(Resource(own).merge(OTELResourceDetector().detect()).attributes)


def _sources(
    router: Router,
    servers: Mapping[str, Supervisor],
    recoveries: Recoveries,
    tally: Tally[Supervisor],
    lag: LoopLag,
) -> Sources:
    from mcp_manager.telemetry.metrics import Sources  # noqa: PLC0415 - needs the extra
    from mcp_manager.telemetry.readings import read  # noqa: PLC0415

    def health() -> tuple[int, int, int]:
        total, healthy, unhealthy = tally.counts
        return healthy, total - healthy - unhealthy, unhealthy

    return Sources(
        servers=lambda: _steadily(lambda: list(servers.values())),
        read=lambda each: _steadily(partial(read, each, router, recoveries, time.monotonic_ns())),
        health=health,
        lag=lag,
    )


def _steadily(reading: Any) -> Any:
    """Read data that the manager's loop may change, and read it again if that happened meanwhile."""
    for _ in range(_READINGS):
        try:
            return reading()
        except RuntimeError:
            # A dictionary changed during its iteration.
            continue
    return reading()
