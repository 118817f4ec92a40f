"""The metrics as text, for fleets of any size: the lines are rendered once, with places for the labels of a server.

``prometheus_client`` renders the lines, and all numbers but whole ones and sums of time; ``_core.exposition`` only puts
the parts together. With an object a sample, 10,000 used servers take seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from mcp_manager._core.exposition import Page
from mcp_manager._core.metric_lines import SeriesLines, ValueLine
from mcp_manager._core.readings import Exemplar
from mcp_manager._core.snapshots import LE_BOUNDS_S
from mcp_manager.observe.metric_families import CREATED_KINDS, FAMILIES, VALUES
from mcp_manager.observe.metrics import BUILD, LOWEST_BOUND, TOOL_BOUNDS, Reading, Source
from mcp_manager.observe.steady_reading import steadily
from mcp_manager.types import CallStatus, ServerState

__all__ = ["Layout", "reading_into"]

Encoder = Callable[[Collector], bytes]
"""Renders a registry: ``generate_latest`` of a format."""

# Places for labels; they need no escaping.
_SERVER, _OWN = "<server>", "<own>"

_Parts = tuple[bytes, bytes, bytes]
_as_text: Final[Callable[[float], str]] = floatToGoString
_BY_NAME: Final = {family.name: family for family in FAMILIES}


class Layout:
    """What the text of all scrapes of one format has in common.

    Parameters
    ----------
    encoder
        Renders the format.
    families
        The names of the families to show, ``None`` for all.
    is_of_servers
        Whether only families by server are shown.
    """

    def __init__(self, encoder: Encoder, families: Collection[str] | None, *, is_of_servers: bool) -> None:
        self._encoder = encoder
        shown = [
            (families is None or each.name in families) and (not is_of_servers or "server_id" in each.labels)
            for each in FAMILIES
        ]
        self.numbers: dict[str, int] = {family.name: at if shown[at] else -1 for at, family in enumerate(FAMILIES)}
        # What ends a page of OpenMetrics; the older format has no end.
        self._tail = encoder(_One([]))
        self.is_open: bool = bool(self._tail)
        self._heads = tuple(
            encoder(_One([family.empty()])).removesuffix(self._tail) if shown[at] else b""
            for at, family in enumerate(FAMILIES)
        )
        self._values = tuple(self._value_line(name, extra) for name, extra in VALUES)
        self._errors: dict[tuple[str, str], ValueLine] = {}
        bounds = [repr(bound) for bound in LE_BOUNDS_S]
        self._kinds = (
            self._series("mcp_requests", "mcp_response_time_seconds", bounds, 1),
            self._series("mcp_tool_calls", "mcp_tool_response_time_seconds", bounds[TOOL_BOUNDS], 2),
            # Only the histogram is used, and it has one label: the other is written empty.
            self._series("", "mcp_queue_wait_seconds", bounds, 1),
        )

    def new_page(self) -> Page:
        """Return a page without servers."""
        return Page(self._heads, self._tail, self._values, self._kinds, _as_text)

    def lines(self, metric: Metric) -> list[bytes]:
        """Return the sample lines of a family up to their values."""
        text = self._encoder(_One([metric]))
        return [line[: line.rindex(b" ") + 1] for line in text.splitlines() if not line.startswith(b"#")]

    def error_line(self, kind: tuple[str, str]) -> ValueLine:
        """Return the line of failed calls of one kind: their delivery and error."""
        line = self._errors.get(kind)
        if line is None:
            line = self._errors[kind] = self._value_line("mcp_call_errors", kind)
        return line

    def _value_line(self, name: str, extra: tuple[str, ...]) -> ValueLine:
        labels = (_SERVER, *extra)
        value, *created = self._counter_lines(name, labels) if _is_created(name) else self._gauge_lines(name, labels)
        before, after = value.split(_SERVER.encode())
        return ValueLine(self.numbers[name], before, after, created[0].split(_SERVER.encode())[0] if created else None)

    def _gauge_lines(self, name: str, labels: tuple[str, ...]) -> list[bytes]:
        metric = _empty(name)
        metric.add_metric(labels, 0.0)
        return self.lines(metric)

    def _counter_lines(self, name: str, labels: tuple[str, ...]) -> list[bytes]:
        metric = _empty(name)
        metric.add_metric(labels, 0.0, 0.0 if self.is_open else None)
        return self.lines(metric)

    def _series(self, counter: str, histogram: str, bounds: list[str], step: int) -> SeriesLines:
        labels = (_SERVER, _OWN)
        by_status = [
            self._counter_lines(counter, (*labels, each.label)) if counter else [b"", b""] for each in CallStatus
        ]
        metric = _empty(histogram)
        own = (_SERVER, _OWN)[: len(_BY_NAME[histogram].labels)]
        metric.add_metric(own, [(bound, 0) for bound in (*bounds, "+Inf")], 0.0)
        if self.is_open:
            metric.add_sample(f"{histogram}_created", dict(zip(_BY_NAME[histogram].labels, own, strict=True)), 0.0)
        *buckets, count, total = (_parts(line) for line in self.lines(metric)[: len(bounds) + 3])
        created = _parts(self.lines(metric)[-1]) if self.is_open else None
        return SeriesLines(
            self.numbers[counter] if counter else -1,
            tuple(_parts(lines[0]) for lines in by_status),
            tuple(_parts(lines[-1]) for lines in by_status) if self.is_open else None,
            self.numbers[histogram],
            (tuple(buckets), count, total, created),
            (LOWEST_BOUND, step),
        )


def reading_into(
    page: Page, source: Source, layout: Layout, server_ids: Collection[str] | None = None
) -> Iterator[None]:
    """Read a manager for a page, one server a step.

    Parameters
    ----------
    page
        Where its numbers go.
    source
        What to read.
    layout
        The format and the families.
    server_ids
        The servers to show; by default all that were ever used.
    """
    read: Counter[ServerState] = Counter()
    for reading in source.readings(server_ids):
        _add_server(page, layout, source, reading)
        read[reading.state] += 1
        yield
    if server_ids is None:
        _add_fleet(page, layout, source, source.states(read))


def _add_server(page: Page, layout: Layout, source: Source, reading: Reading) -> None:
    record = reading.record
    label = record.label
    if label is None:
        label = record.label = escaped(reading.server_id)
    page.add_server(label, reading.values, record.created_s)
    show = _exemplar if layout.is_open else None
    page.add_methods(record, escaped, show)
    if source.router.tools is not None:
        page.add_tools(source.router.tools, record, escaped, show)
    if reading.waits is not None:
        page.add_histogram(reading.waits)
    if reading.errors:
        errors = steadily(lambda: list(reading.errors.items()))
        page.add_counts([layout.error_line(kind) for kind, _ in errors], [count for _, count in errors])


def _add_fleet(page: Page, layout: Layout, source: Source, states: Mapping[str, int]) -> None:
    metric = _empty("mcp_servers")
    for state in states:
        metric.add_metric((state,), 0.0)
    for line, count in zip(layout.lines(metric), states.values(), strict=True):
        page.add_line(layout.numbers["mcp_servers"], line, count)
    bounds, total, sum_s = source.lag.histogram()
    metric = _empty("mcp_loop_lag_seconds")
    metric.add_metric((), [*((repr(float(bound)), 0) for bound, _ in bounds), ("+Inf", 0)], 0.0)
    values = [*(count for _, count in bounds), total, total, sum_s]
    for line, value in zip(layout.lines(metric), values, strict=True):
        page.add_line(layout.numbers["mcp_loop_lag_seconds"], line, value)
    metric = _empty("mcp_build")
    metric.add_metric((), BUILD)
    for line in layout.lines(metric):
        page.add_line(layout.numbers["mcp_build"], line, 1.0)


def _exemplar(exemplar: Exemplar) -> bytes:
    """Return an exemplar as OpenMetrics writes it behind the value of a bucket."""
    labels = f'span_id="{exemplar.span_id:016x}",trace_id="{exemplar.trace_id:032x}"'
    seconds, at_s = _as_text(exemplar.value_ns / 1e9), exemplar.at_ns / 1e9
    return f" # {{{labels}}} {seconds} {at_s}".encode()


class _One(Collector):
    """Stands for a registry with a few families."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def escaped(label: str) -> bytes:
    """Return a label's value as both text formats write it."""
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"").encode("utf-8", "replace")


def _empty(name: str) -> Any:
    return _BY_NAME[name].empty()


def _is_created(name: str) -> bool:
    return _BY_NAME[name].kind in CREATED_KINDS


def _parts(line: bytes) -> _Parts:
    """Split a line at the places for labels; the second place is missing where there is one label only."""
    first, second = sorted((_SERVER.encode(), _OWN.encode()), key=line.find) if _OWN.encode() in line else (None, None)
    if first is None or second is None:
        before, _, after = line.partition(_SERVER.encode())
        return before, after, b""
    before, _, rest = line.partition(first)
    between, _, after = rest.partition(second)
    return before, between, after
