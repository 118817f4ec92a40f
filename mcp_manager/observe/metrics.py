"""What the metrics show, read from the core's records at each scrape: no call is counted a second time for them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from mcp_manager._core.histogram import Histogram
from mcp_manager._core.records import Server
from mcp_manager._version import __version__
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.errors import Delivery
from mcp_manager.health import HealthMonitor
from mcp_manager.observe.metric_families import STATE_NUMBERS
from mcp_manager.observe.steady_reading import steadily
from mcp_manager.runtime.read_budget import FLOOD
from mcp_manager.servers.supervisor import Recovery, Supervisor
from mcp_manager.types import ServerState

if TYPE_CHECKING:
    from mcp_manager._core.router import Router
    from mcp_manager.runtime.loop_lag import LoopLag
    from mcp_manager.transports.http.connections.pool import HttpPool

__all__ = ["BUILD", "LOWEST_BOUND", "TOOL_BOUNDS", "Reading", "Source"]

BUILD: Final = {"version": __version__, "python": platform.python_version()}
"""The labels of ``mcp_build_info``."""
LOWEST_BOUND: Final = -12
"""The exponent of the lowest bound of all histograms of calls, a power of two seconds."""
TOOL_BOUNDS: Final = slice(None, None, 2)
"""Which of the bounds the histograms by tool have: there may be many of them."""


class Reading(NamedTuple):
    """One server at the moment of a scrape.

    Attributes
    ----------
    server_id, record, state
        The server.
    values
        Its values in the order of :data:`~mcp_manager.observe.metric_families.VALUES`; ``None`` for no sample.
    errors
        Its failed calls by delivery and error.
    waits
        How long its calls waited for a limit, ``None`` if none did.
    """

    server_id: str
    record: Server
    state: ServerState
    values: list[float | None]
    errors: Mapping[tuple[Delivery, str], int]
    waits: Histogram | None


class Source:
    """Read the metrics of one manager, on any thread.

    Parameters
    ----------
    servers
        The deployed servers by id.
    monitor
        Knows the states of the servers.
    router
        Keeps the counters.
    dispatcher
        Keeps further counters.
    http
        Knows the open connections.
    lag
        Measures the manager's loop.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(
        self,
        servers: Mapping[str, Supervisor],
        monitor: HealthMonitor,
        router: Router,
        dispatcher: Dispatcher,
        http: HttpPool,
        lag: LoopLag,
        clock: Callable[[], int],
    ) -> None:
        self._servers = servers
        self._monitor = monitor
        self.router = router
        self._errors = dispatcher.errors
        self._waits = dispatcher.waits
        self._http = http
        self.lag = lag
        self._clock = clock

    def used(self) -> list[Supervisor]:
        """Return the servers that were ever used."""
        return steadily(self._monitor.tally.used)

    def readings(self, server_ids: Collection[str] | None = None) -> Iterator[Reading]:
        """Read the servers that were ever used, or those of them that are named, one at a time."""
        standing_of, errors_of, waits_of = self._monitor.tally.standing, self._errors.of, self._waits.of
        for supervisor in self.used():
            server_id = supervisor.server_id
            standing = standing_of(supervisor)
            if standing is None or (server_ids is not None and server_id not in server_ids):
                continue
            state, _ = standing.shown
            values = self._values(supervisor, state)
            yield Reading(server_id, supervisor.record, state, values, errors_of(server_id), waits_of(server_id))

    def states(self, read: Mapping[ServerState, int]) -> dict[str, int]:
        """Return the number of all servers by state, given those that were read; all others are ``Initializing``."""
        never_used = max(self._monitor.tally.counts[0] - sum(read.values()), 0)
        counts = {state.value.lower(): read.get(state, 0) for state in STATE_NUMBERS}
        counts[ServerState.INITIALIZING.value.lower()] += never_used
        return counts

    def _values(self, supervisor: Supervisor, state: ServerState) -> list[float | None]:
        server_id = supervisor.server_id
        now_ns = self._clock()
        ready, backends = 0, []
        for each in supervisor.instances:
            if each.session is not None:
                ready += 1
            if each.backend is not None:
                backends.append(each.backend)
        inflight, waiting, healthy, unhealthy, calls, failures, circuit, not_closed, openings, ejected, limit = (
            self.router.gauges_of(supervisor.record, backends, now_ns)
        )
        # Most servers have none of these, and with many servers each look into a dictionary counts.
        recoveries, restarts = supervisor.recoveries, supervisor.restarts
        config, desired = supervisor.config, supervisor.desired
        connections = self._http.clients.open_connections(server_id) if config.url is not None else ready
        busy = inflight if inflight < connections else connections
        return [
            healthy,
            unhealthy,
            *(map(recoveries.get, _RECOVERIES) if recoveries else _NO_RECOVERIES),
            *((restarts.get("exit"), restarts.get("hang")) if restarts else _NO_RESTARTS),
            supervisor.renewals or None,
            supervisor.template.fault_counts.get(FLOOD),
            openings or None,
            inflight,
            busy,
            connections - busy,
            circuit,
            not_closed or None,
            STATE_NUMBERS[state],
            ready / desired if desired else 0.0,
            failures / calls if calls else 0.0,
            desired,
            ready,
            supervisor.draining,
            ejected,
            waiting,
            limit,
            int(self.router.budget(supervisor.record, now_ns)),
        ]


_RECOVERIES: Final[tuple[Recovery, ...]] = ("retry", "hedge", "server", "stale", "static")
_NO_RECOVERIES: Final = (None,) * len(_RECOVERIES)
_NO_RESTARTS: Final = (None, None)
