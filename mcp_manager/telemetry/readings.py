"""What is exported of one server, read from the compiled core and the supervisor: the seam for new metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mcp_manager._core.readings import (
    Exemplar,
    Operation,
    ToolOperation,
    operations,
    probes,
    tool_exemplars,
    tool_operations,
)
from mcp_manager._core.router import Router
from mcp_manager._core.tool_table import OTHER_TOOL_NAME
from mcp_manager.config import ServerConfig
from mcp_manager.health.readiness import ready_count
from mcp_manager.observe.views import circuit_of
from mcp_manager.servers.supervisor import Recovery, RestartCause, Supervisor

__all__ = ["Levels", "Reading", "read", "read_tools"]


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
    tools, other_tools
        Its calls by tool, of those tools that have a place in the core's table, and the exemplars of all others; both
        are among the calls of ``tools/call``. ``None`` if tools are not counted.
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
    tools: list[ToolOperation] | None
    other_tools: Mapping[int, Exemplar]
    probes: tuple[int, int]
    recoveries: Mapping[Recovery, int]
    restarts: Mapping[RestartCause, int]
    levels: Levels | None


def read_tools(supervisor: Supervisor, router: Router) -> list[ToolOperation] | None:
    """Read the calls of a server by tool, on any thread."""
    return None if router.tools is None else tool_operations(router.tools, supervisor.record)


def read(
    supervisor: Supervisor,
    router: Router,
    now_ns: int,
    tools: list[ToolOperation] | None = None,
) -> Reading:
    """Read a server, on any thread.

    Parameters
    ----------
    supervisor
        The server.
    router
        Counts its calls.
    now_ns
        The time, in nanoseconds of the monotonic clock.
    tools
        Its calls by tool, if they were read before the router has forgotten its tools.
    """
    record = supervisor.record
    if tools is None:
        # Before the calls by method: those must contain them.
        tools = read_tools(supervisor, router)
    levels = None
    if not supervisor.is_over and not supervisor.is_inactive:
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
        tools,
        tool_exemplars(record, OTHER_TOOL_NAME),
        probes(record),
        dict(supervisor.recoveries or {}),
        dict(supervisor.restarts or {}),
        levels,
    )
