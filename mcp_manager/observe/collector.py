"""The metrics as a collector for ``prometheus_client``, beside an application's own metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from mcp_manager._core.readings import INFINITE_BOUND, exemplars, tool_exemplars
from mcp_manager._core.readings import Exemplar as Traced
from mcp_manager._core.snapshots import LE_BOUNDS_S, MethodCounts, ToolReading
from mcp_manager.errors import NotRunningError
from mcp_manager.observe.metric_families import CREATED_KINDS, FAMILIES, VALUES, Family
from mcp_manager.observe.metrics import BUILD, TOOL_BOUNDS, Reading, Source
from mcp_manager.observe.slices import Pauses
from mcp_manager.types import CallStatus, ServerState

__all__ = ["MetricsCollector", "Readable"]

_STATUS_LABELS: Final = tuple(status.label for status in CallStatus)
_FAMILY_BY_NAME: Final = {family.name: family for family in FAMILIES}


class Readable(Protocol):
    """A manager of either class."""

    def _metrics_source(self) -> Source:
        """Return what its metrics are read from."""


class MetricsCollector(Collector):
    """Show the metrics of a manager in any ``prometheus_client`` registry.

    Register it with ``registry.register(collector)`` and remove it with ``registry.unregister(collector)``. It may be
    collected on any thread, such as that of ``start_http_server``, also before the manager starts and after it stops;
    in a forked child it shows nothing. It makes one Python object a sample: with more than about a thousand used
    servers, serve ``await manager.scrape()`` instead, which is many times faster.

    Parameters
    ----------
    manager
        A ``McpManager`` or a ``PyMcpManager``.
    created
        Also tell when each counter and histogram was created (``_created``), as OpenMetrics recommends.

    Example
    -------
    ::

        from prometheus_client import REGISTRY, start_http_server

        REGISTRY.register(MetricsCollector(manager))
        start_http_server(9100)
    """

    def __init__(self, manager: Readable, *, created: bool = False) -> None:
        self._manager = manager
        self._created = created

    def describe(self) -> list[Metric]:
        """Return the families without samples: a registry asks for them when the collector is registered."""
        return [family.empty() for family in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Read the manager and yield every family."""
        try:
            source = self._manager._metrics_source()
        except NotRunningError:
            return iter(())
        return iter(families_of(source, created=self._created))


def families_of(source: Source, *, created: bool = False, server_ids: Collection[str] | None = None) -> list[Metric]:
    """Read a manager and return every family with its samples.

    Parameters
    ----------
    source
        What to read.
    created
        Whether to tell when each counter and histogram was created.
    server_ids
        The servers to show; by default all that were ever used.
    """
    families, pause = _Families(created=created), Pauses()
    read: Counter[ServerState] = Counter()
    for reading in source.readings(server_ids):
        families.add(source, reading)
        read[reading.state] += 1
        pause()
    if server_ids is None:
        for state, count in source.states(read).items():
            families.add_sample("mcp_servers", (state,), count)
        bounds, total, sum_s = source.lag.histogram()
        families.add_histogram("mcp_loop_lag_seconds", (), (bounds, total, sum_s), None)
        families.metrics["mcp_build"].add_metric((), BUILD)
    return list(families.metrics.values())


class _Families:
    """The families while their samples are added; label values are in the order of the labels of the family."""

    def __init__(self, *, created: bool) -> None:
        self.metrics: dict[str, Any] = {name: family.empty() for name, family in _FAMILY_BY_NAME.items()}
        self._created = created

    def add(self, source: Source, reading: Reading) -> None:
        """Add the samples of one server."""
        server_id, record = reading.server_id, reading.record
        created_s = record.created_s
        for (name, extra), value in zip(VALUES, reading.values, strict=True):
            if value is not None:
                self.add_sample(name, (server_id, *extra), value, created_s)
        for (delivery, error), count in reading.errors.items():
            self.add_sample("mcp_call_errors", (server_id, delivery, error), count, created_s)
        for method in source.router.methods_of(record):
            self._add_statuses("mcp_requests", (server_id, method.method), method, created_s)
            found = exemplars(record, method.method)
            self._add_latency("mcp_response_time_seconds", (server_id, method.method), method, created_s, found)
        for tool in source.router.tools_of(record):
            self._add_statuses("mcp_tool_calls", (server_id, tool.tool), tool, created_s)
            found = tool_exemplars(record, tool.tool)
            self._add_latency("mcp_tool_response_time_seconds", (server_id, tool.tool), tool, created_s, found)
        if reading.waits is not None:
            counts = list(zip(LE_BOUNDS_S, reading.waits.le_counts(-12, 7), strict=True))
            histogram = counts, reading.waits.count, reading.waits.sum_ns / 1e9
            self.add_histogram("mcp_queue_wait_seconds", (server_id,), histogram, created_s)

    def add_sample(self, name: str, labels: tuple[str, ...], value: float, created_s: float | None = None) -> None:
        """Add a value, and for a counter when it was created."""
        if self._created and _is_created(_FAMILY_BY_NAME[name]):
            self.metrics[name].add_metric(labels, value, created_s)
        else:
            self.metrics[name].add_metric(labels, value)

    def add_histogram(
        self,
        name: str,
        labels: tuple[str, ...],
        histogram: tuple[list[tuple[float, int]], int, float],
        created_s: float | None,
        found: Mapping[int, Traced] | None = None,
    ) -> None:
        """Add a histogram: cumulative counts by bound, count and sum, and its exemplars by the exponent of a bound."""
        counts, total, sum_s = histogram
        metric = self.metrics[name]
        buckets = [*((_bound(bound), count) for bound, count in counts), ("+Inf", total)]
        metric.add_metric(labels, _with_exemplars(buckets, found) if found else buckets, sum_s)
        if self._created and created_s is not None:
            own = dict(zip(_FAMILY_BY_NAME[name].labels, labels, strict=True))
            metric.add_sample(f"{name}_created", own, created_s)

    def _add_statuses(
        self, name: str, labels: tuple[str, ...], counts: MethodCounts | ToolReading, created_s: float
    ) -> None:
        for label, count in zip(_STATUS_LABELS, counts.counts, strict=True):
            if count:
                self.add_sample(name, (*labels, label), count, created_s)

    def _add_latency(
        self,
        name: str,
        labels: tuple[str, ...],
        counts: MethodCounts | ToolReading,
        created_s: float,
        found: Mapping[int, Traced],
    ) -> None:
        buckets = list(counts.buckets if isinstance(counts, MethodCounts) else counts.buckets[TOOL_BOUNDS])
        self.add_histogram(name, labels, (buckets, counts.count, counts.sum_s), created_s, found)


def _with_exemplars(
    buckets: list[tuple[str, int]], found: Mapping[int, Traced]
) -> list[tuple[str, int, Exemplar | None]]:
    """Return buckets with the latest exemplar of each."""
    bounds = [float(bound) for bound, _ in buckets]
    latest: dict[int, Traced] = {}
    for exponent, exemplar in sorted(found.items(), key=lambda each: each[1].at_ns):
        least = math.inf if exponent == INFINITE_BOUND else 2.0**exponent
        latest[next(at for at, bound in enumerate(bounds) if bound >= least)] = exemplar
    return [(*bucket, _shown(latest[at]) if at in latest else None) for at, bucket in enumerate(buckets)]


def _shown(exemplar: Traced) -> Exemplar:
    labels = {"trace_id": f"{exemplar.trace_id:032x}", "span_id": f"{exemplar.span_id:016x}"}
    return Exemplar(labels, exemplar.value_ns / 1e9, exemplar.at_ns / 1e9)


def _is_created(family: Family) -> bool:
    return family.kind in CREATED_KINDS


def _bound(seconds: float) -> str:
    return repr(float(seconds))
