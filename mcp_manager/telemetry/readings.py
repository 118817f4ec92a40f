"""What is exported of one server, read from the compiled core and the supervisor: the seam for new metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mcp_manager._core.readings import Operation, operations, probes
from mcp_manager._core.router import Router
from mcp_manager.calls.recovery_counts import Recoveries, Recovery
from mcp_manager.config import ServerConfig
from mcp_manager.health.readiness import ready_count
from mcp_manager.observe.views import circuit_of
from mcp_manager.servers.supervisor import RestartCause, Supervisor

__all__ = ["Levels", "Reading", "read"]


class Levels(NamedTuple):
    """What goes up and down: calls under way and waiting, instances by state, and the state of the circuits."""

    active: int
    waiting: int
    desired: int
    ready: int
    draining: int
    circuit: int


class Reading(NamedTuple):
    """One server at one instant.

    Attributes
    ----------
    began_ns
        When the server was deployed, in nanoseconds since 1970.
    server_id, config
        The server. The supervisor is left out: it would keep the manager alive.
    operations
        Its calls by method.
    probes
        The health probes that succeeded, and those that failed.
    recoveries, restarts
        Retries, hedges and fallbacks by kind, and restarts of child processes by cause.
    levels
        ``None`` for a server that is gone, or that is lazy and was never used.
    """

    began_ns: int
    server_id: str
    config: ServerConfig
    operations: list[Operation]
    probes: tuple[int, int]
    recoveries: Mapping[Recovery, int]
    restarts: Mapping[RestartCause, int]
    levels: Levels | None


def read(supervisor: Supervisor, router: Router, recoveries: Recoveries, now_ns: int) -> Reading:
    """Read a server, on any thread; ``now_ns`` is monotonic time."""
    record = supervisor.record
    levels = None
    if not supervisor.is_over and not supervisor.is_dormant:
        levels = Levels(
            record.inflight,
            record.waiting,
            supervisor.desired,
            ready_count(supervisor),
            supervisor.draining,
            circuit_of(supervisor, router, now_ns),
        )
    return Reading(
        int(record.created_s * 1e9),
        supervisor.server_id,
        supervisor.config,
        operations(record),
        probes(record),
        dict(recoveries.of(supervisor.server_id)),
        dict(supervisor.restarts or {}),
        levels,
    )
