"""Exports the core's own counts: a thread reads them and sends them to the collector, and no call waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from mcp_manager._core.readings import Distribution, Exemplar, Operation, ToolOperation
from mcp_manager._core.tool_table import OTHER_TOOL_NAME
from mcp_manager.config import ServerConfig
from mcp_manager.protocol.methods import CALL_TOOL
from mcp_manager.runtime.loop_lag import LoopLag
from mcp_manager.servers.supervisor import Recovery, Supervisor
from mcp_manager.telemetry import conventions as names
from mcp_manager.telemetry.conventions import Family
from mcp_manager.telemetry.places import place_of
from mcp_manager.telemetry.points import Point, PointMaker, attribute, encoded
from mcp_manager.telemetry.readings import Levels, Reading
from mcp_manager.telemetry.sender import Fate, Sender
from mcp_manager.telemetry.thread import ExportThread, let_others_run
from mcp_manager.types import CallStatus

__all__ = ["MetricsExporter", "Sources"]

_log = logging.getLogger(__name__)

_MOST_POINTS: Final = 1_000
"""In one request."""
_MOST_DEPARTED: Final = 10_000
_WARN_EVERY_S: Final = 300.0
# How many points are made before the thread lets others run: about a millisecond of work.
_POINTS_AT_ONCE: Final = 25

Counted = tuple[Sequence[int], Distribution, Mapping[int, Exemplar]]
"""Calls by status, the durations of those that were measured, and exemplars of these."""


class Sources:
    """Where the exporter reads; it refers to this only weakly, so that a manager can be dropped while it runs.

    Parameters
    ----------
    servers
        Returns the deployed servers.
    read
        Reads one server, given its calls by tool if the router has forgotten them; a :class:`LookupError` says that it
        is gone.
    read_tools
        Reads the calls of one server by tool.
    health
        Returns the numbers of healthy, degraded and unhealthy servers.
    lag
        The lag of the event loop.
    """

    def __init__(
        self,
        servers: Callable[[], Sequence[Supervisor]],
        read: Callable[..., Reading],
        read_tools: Callable[[Supervisor], list[ToolOperation] | None],
        health: Callable[[], tuple[int, int, int]],
        lag: LoopLag,
    ) -> None:
        self.servers = servers
        self.read = read
        self.read_tools = read_tools
        self.health = health
        self.lag = lag


class MetricsExporter:
    """Export the metrics of a manager every ``interval_s`` seconds, and once more at the end.

    Parameters
    ----------
    sources
        What is read.
    sender
        Sends the requests.
    maker
        Makes the data points.
    resource
        Says whose metrics these are.
    interval_s
        Seconds between two exports.
    """

    def __init__(
        self, sources: Sources, sender: Sender, maker: PointMaker, resource: Resource, interval_s: float
    ) -> None:
        self._sources = weakref.ref(sources)
        self._sender = sender
        self._maker = maker
        self._resource = resource
        self._began_ns = time.time_ns()
        self._attributes: dict[str, tuple[ServerConfig, list[KeyValue]]] = {}
        # Servers that have ended, and when, until a collector knows.
        self._departed: deque[tuple[Reading, int]] = deque(maxlen=_MOST_DEPARTED)
        self._exports = dict.fromkeys(Fate, 0)
        self._lost = 0
        self._warned_at = -_WARN_EVERY_S
        self._thread = ExportThread(self._export, interval_s, "metrics")
        self._ends_at: float | None = None
        self._last_servers: Sequence[Supervisor] = ()

    # On the manager's loop

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Ask the thread to end, from any thread; idempotent."""
        self._thread.end()

    def removed(self, reading: Reading) -> None:
        """Keep the last counts of a server that has ended until the next export."""
        self._departed.append((reading, time.time_ns()))

    async def aclose(self, servers: Sequence[Supervisor], grace_s: float) -> None:
        """Export once more, and end the thread.

        Parameters
        ----------
        servers
            The servers that have just ended, whose last counts are exported.
        grace_s
            How many seconds that may take.
        """
        self._last_servers = servers
        await self._thread.aclose(grace_s)
        self._last_servers = ()

    # On the thread

    async def _export(self, ends_at: float | None) -> None:
        """Collect and send everything; a failure is counted and logged."""
        sources = self._sources()
        if sources is None:
            return
        servers = sources.servers() if ends_at is None else self._last_servers
        self._ends_at = ends_at
        departed = list(self._departed)
        try:
            async with self._sender.session() as session:
                batch: list[Point] = []
                for points in self._collect(sources, departed, servers):
                    batch += points
                    while len(batch) >= _MOST_POINTS:
                        if not await self._send(session, batch[:_MOST_POINTS]):
                            return
                        del batch[:_MOST_POINTS]
                if batch and not await self._send(session, batch):
                    return
            for each in departed:
                if self._departed and self._departed[0] is each:
                    self._departed.popleft()
                    self._maker.forget((each[0].server_id, each[0].began_ns))
        except Exception as error:
            # The thread must live on: the next export may succeed.
            self._warn(type(error).__name__)
            _log.debug("the export of metrics failed", exc_info=True)

    async def _send(self, session: Any, points: Sequence[Point]) -> bool:
        """Send points in one request, or in ever smaller ones if the collector finds it too large.

        It returns false if the collector is not there, so that the next request would be in vain, too.
        """
        body = encoded(points, self._resource, is_delta=self._maker.is_delta)
        try:
            fate, rejected = await self._sender.send(session, body, self._ends_at)
        except asyncio.CancelledError:
            # They may have arrived; counted twice would be worse than not counted.
            self._maker.arrived(points)
            raise
        self._exports[fate] += 1
        if fate is Fate.TOO_LARGE and len(points) > 1:
            half = len(points) // 2
            return await self._send(session, points[:half]) and await self._send(session, points[half:])
        if fate not in (Fate.UNAVAILABLE, Fate.UNREACHABLE):
            # Refused points would be refused again, and those without an answer may have arrived.
            self._maker.arrived(points)
        if fate is not Fate.ACCEPTED:
            self._lost += len(points)
            self._warn(self._sender.reason)
        elif rejected:
            self._lost += rejected
            self._warn(f"the collector rejected {rejected} points")
        return fate not in (Fate.UNAVAILABLE, Fate.UNREACHABLE, Fate.NO_ANSWER)

    def _warn(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            _log.warning("metrics could not be exported: %s (%d data points so far)", reason, self._lost)

    # Collecting

    def _collect(
        self, sources: Sources, departed: Iterable[tuple[Reading, int]], servers: Iterable[Supervisor]
    ) -> Iterator[list[Point]]:
        """Yield the points of every server, those that have ended first, and those of the manager last."""
        now_ns, seen = time.time_ns(), set()
        for reading, ended_ns in departed:
            yield self._points_of(reading, ended_ns)
        made = 0
        for supervisor in servers:
            if made >= _POINTS_AT_ONCE:
                made = 0
                let_others_run()
            try:
                reading = sources.read(supervisor)
            except LookupError:
                continue
            if supervisor.record.is_forgotten:
                # After the reading. Its last counts are exported when it has ended, with its tools as they were.
                continue
            seen.add(supervisor.server_id)
            points = self._points_of(reading, now_ns)
            # Reading a server without calls takes time, too.
            made += len(points) + 1
            yield points
        for gone in self._attributes.keys() - seen:
            del self._attributes[gone]
        yield self._own_points(sources, (self._began_ns, now_ns))

    def _points_of(self, reading: Reading, until_ns: int) -> list[Point]:
        times = (reading.began_ns, until_ns)
        # Another server with the same id begins later.
        server = (reading.server_id, reading.began_ns)
        base = self._attributes_of(reading)
        own = base[:1]
        points: list[Point | None] = []

        def total(family: Family, count: int, name: str = "", value: str = "") -> None:
            told = [*own, attribute(name, value)] if name else own
            points.append(self._maker.total(family, told, count, times, (server, family.name, value)))

        for operation in reading.operations:
            named = [*base, attribute(names.METHOD, operation.method)]
            if operation.method == CALL_TOOL and reading.tools is not None:
                points += self._points_by_tool(reading, operation, named, times)
            else:
                points += self._points_of_calls((server, operation.method), named, operation[1:], times)
        for kind, count in reading.recoveries.items():
            _count_recovery(total, kind, count)
        for cause, count in reading.restarts.items():
            total(names.RESTARTS, count, names.CAUSE, cause)
        for result, count in zip(("success", "failure"), reading.probes, strict=True):
            total(names.PROBES, count, names.RESULT, result)
        if reading.levels is not None:
            points += self._levels(reading.levels, own, times[1])
        return [each for each in points if each is not None]

    def _points_by_tool(
        self, reading: Reading, whole: Operation, named: Sequence[KeyValue], times: tuple[int, int]
    ) -> Iterator[Point | None]:
        """Yield the points of tool calls: each is counted under its tool, and those of tools without a place together."""
        tools, server = reading.tools or [], (reading.server_id, reading.began_ns)
        named = [*named, attribute(names.OPERATION, names.EXECUTE_TOOL)]
        began_ns = self._maker.parts_began((server, whole.method), [each[:2] for each in tools], times)
        for each in tools:
            series, since = (server, whole.method, *each[:2]), (began_ns[each[:2]], times[1])
            yield from self._points_of_calls(series, [*named, attribute(names.TOOL, each.tool)], each[2:], since)
        parts = [(each.statuses, each.durations) for each in tools]
        statuses, durations = self._maker.rest((server, whole.method), whole.statuses, whole.durations, parts)
        others = [*named, attribute(names.TOOL, OTHER_TOOL_NAME)]
        counted = statuses, durations, reading.other_tools
        yield from self._points_of_calls((server, whole.method, OTHER_TOOL_NAME), others, counted, times)

    def _points_of_calls(
        self, series: tuple[Hashable, ...], named: Sequence[KeyValue], counted: Counted, times: tuple[int, int]
    ) -> Iterator[Point | None]:
        statuses, durations, exemplars = counted
        yield self._maker.durations(names.DURATION, named, durations, times, (*series, names.DURATION.name), exemplars)
        for status, count in zip(CallStatus, statuses, strict=False):
            if count:
                failed = [] if status is CallStatus.SUCCESS else [attribute(names.ERROR_TYPE, status.label)]
                own = (*series, names.CALLS.name, status.label)
                yield self._maker.total(names.CALLS, [*named, *failed], count, times, own)

    def _levels(self, levels: Levels, own: Sequence[KeyValue], now_ns: int) -> Iterator[Point]:
        yield self._maker.level(names.ACTIVE, own, levels.active, now_ns)
        yield self._maker.level(names.WAITING, own, levels.waiting, now_ns)
        yield self._maker.level(names.BREAKER, own, int(levels.circuit), now_ns)
        for state in ("desired", "ready", "draining"):
            told = [*own, attribute(names.STATE, state)]
            yield self._maker.level(names.INSTANCES, told, getattr(levels, state), now_ns)

    def _own_points(self, sources: Sources, times: tuple[int, int]) -> list[Point]:
        points: list[Point | None] = []
        for state, count in zip(("healthy", "degraded", "unhealthy"), sources.health(), strict=True):
            points.append(self._maker.level(names.SERVERS, [attribute(names.STATE, state)], count, times[1]))
        points.append(self._maker.level(names.LOOP_LAG, (), float(sources.lag.view().longest_s), times[1]))
        for fate, count in self._exports.items():
            told = [attribute(names.RESULT, fate.value)]
            points.append(self._maker.total(names.EXPORTS, told, count, times, (None, names.EXPORTS.name, fate.value)))
        points.append(self._maker.total(names.LOST_POINTS, (), self._lost, times, (None, names.LOST_POINTS.name)))
        return [each for each in points if each is not None]

    def _attributes_of(self, reading: Reading) -> list[KeyValue]:
        """Return the attributes of a server, its id first; they are made once for each configuration."""
        known = self._attributes.get(reading.server_id)
        if known is not None and known[0] is reading.config:
            return known[1]
        told: Mapping[str, Any] = {names.SERVER: reading.server_id, **place_of(reading.config)}
        made = [attribute(name, value) for name, value in told.items()]
        self._attributes[reading.server_id] = (reading.config, made)
        return made


def _count_recovery(total: Callable[..., None], kind: Recovery, count: int) -> None:
    if kind == "retry":
        total(names.RETRIES, count)
    elif kind == "hedge":
        total(names.HEDGES, count)
    else:
        total(names.FALLBACKS, count, names.SOURCE, kind)
