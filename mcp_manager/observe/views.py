"""What can be seen of the fleet: pure readings of supervisors, monitor and router, made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from mcp_manager._core.router import Router
from mcp_manager._core.snapshots import ServerSnapshot
from mcp_manager.calls.recoveries import Recoveries, Recovery
from mcp_manager.errors import CallError
from mcp_manager.health.readiness import ready_count
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.runtime.read_budget import FLOOD
from mcp_manager.servers.supervisor import RestartCause, Supervisor
from mcp_manager.types import CircuitState, PyHealthStatus, ServerState

if TYPE_CHECKING:
    from mcp_manager.transports.http.connections.pool import HttpPool

__all__ = [
    "Judge",
    "ServerReading",
    "ServerView",
    "circuit_of",
    "fleet_health",
    "server_reading",
    "server_view",
]

Judge = Callable[[Supervisor], tuple[ServerState, tuple[str, ...]]]
"""Says what a server is shown as, and why it is not ``Healthy``."""


class ServerView(msgspec.Struct, frozen=True, kw_only=True):
    """What ``server(id)`` shows of one server.

    ``identity`` is what it told of itself, ``None`` before there is a session, or if it told nothing. ``transport`` is
    the one in use, which may be older than the configured one. ``pids`` are its child processes; ``faults`` counts by
    kind what it sent that it should not have, and that harmed no call. ``tls_verify`` is ``False`` where its
    configuration has every certificate accepted. ``last_error`` is also how far a program has come that is starting, and
    when one is started again. ``restarts`` counts by cause the child processes that were gone: those that ended by
    themselves (``exit``), and those that were killed because they did not answer (``hang``).
    """

    id: str
    name: str
    server_type: str
    state: ServerState
    reasons: tuple[str, ...]
    priority: int
    tags: tuple[str, ...]
    transport: str
    circuit: str
    desired: int
    ready: int
    draining: int
    protocol_version: str | None
    identity: ServerIdentity | None
    faults: dict[str, int]
    last_error: str | None
    pids: tuple[int, ...]
    tls_verify: bool = True
    restarts: dict[RestartCause, int] = msgspec.field(default_factory=dict)


class ServerReading(msgspec.Struct, frozen=True, kw_only=True):
    """One server at the moment of a scrape.

    ``ejected`` of its instances are out of traffic because they failed more than others; ``limit`` is how many calls those
    that have a limit take together, ``None`` if none has; ``floods`` is how often reading from it had to pause for a second.
    """

    snapshot: ServerSnapshot
    circuit: CircuitState
    desired: int
    ready: int
    draining: int
    ejected: int
    limit: int | None
    open_connections: int
    recoveries: Mapping[Recovery, int]
    restarts: Mapping[RestartCause, int] = msgspec.field(default_factory=dict)
    floods: int = 0


def server_view(supervisor: Supervisor, judge: Judge, router: Router, now_ns: int) -> ServerView:
    """Read one server."""
    state, reasons = judge(supervisor)
    config = supervisor.config
    # Everything is read once: on another thread than the loop's, it may be gone at the second look.
    instances = supervisor.instances
    session = next((session for each in instances if (session := each.session) is not None), None)
    last_error, restarts_in_s = next(
        ((error, each.restarts_in_s) for each in instances if (error := each.last_error) is not None), (None, 0.0)
    )
    if last_error is None and supervisor.settings.endpoints is not None:
        last_error = supervisor.settings.endpoints.problem
    return ServerView(
        id=supervisor.server_id,
        name=config.name or supervisor.server_id,
        server_type=config.server_type,
        state=state,
        reasons=reasons,
        priority=config.priority,
        tags=config.tags,
        transport="sse" if session is not None and session.is_sse else config.transport,
        circuit=circuit_of(supervisor, router, now_ns).label,
        desired=supervisor.desired,
        ready=ready_count(supervisor),
        draining=supervisor.draining,
        protocol_version=session.revision if session is not None else None,
        identity=session.identity if session is not None else None,
        faults=supervisor.settings.fault_counts,
        last_error=_last_error(supervisor, last_error, restarts_in_s),
        pids=tuple(pid for each in instances if (pid := each.pid)),
        tls_verify=config.tls.verify,
        restarts=dict(supervisor.restarts or {}),
    )


def fleet_health(counts: tuple[int, int, int], router: Router, now_ns: int, lag_s: float = 0.0) -> PyHealthStatus:
    """Show how many servers there are, healthy, and unhealthy; whatever is neither counts as degraded."""
    total, healthy, unhealthy = counts
    window = router.fleet_window(now_ns)
    return PyHealthStatus(
        total_servers=total,
        healthy_servers=healthy,
        degraded_servers=total - healthy - unhealthy,
        unhealthy_servers=unhealthy,
        avg_response_time_ms=round(window.sum_ns / window.count / 1e6) if window.count else 0,
        loop_lag_ms=round(lag_s * 1e3),
    )


def server_reading(
    supervisor: Supervisor, router: Router, http: HttpPool, recoveries: Recoveries, now_ns: int
) -> ServerReading:
    """Read one server for the metrics."""
    snapshot = router.server_snapshot(supervisor.server_id, now_ns)
    limits = [each.limit for each in snapshot.instances if each.limit is not None]
    ready = ready_count(supervisor)
    is_http = supervisor.config.transport != "stdio"
    return ServerReading(
        snapshot=snapshot,
        circuit=circuit_of(supervisor, router, now_ns),
        desired=supervisor.desired,
        ready=ready,
        draining=supervisor.draining,
        ejected=sum(each.ejected_until_ns > now_ns for each in snapshot.instances),
        limit=sum(limits) if limits else None,
        open_connections=http.clients.open_connections(supervisor.server_id) if is_http else ready,
        recoveries=dict(recoveries.of(supervisor.server_id)),
        restarts=dict(supervisor.restarts or {}),
        floods=supervisor.settings.fault_counts.get(FLOOD, 0),
    )


def circuit_of(supervisor: Supervisor, router: Router, now_ns: int) -> CircuitState:
    """Return the state of a server's circuits as one: open only when no instance's lets a call through."""
    states = {
        router.instance_snapshot(handle, now_ns).circuit_state
        for each in supervisor.instances
        if (handle := each.handle) is not None
    }
    for state in (CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN):
        if state in states:
            return state
    return CircuitState.CLOSED


def _last_error(supervisor: Supervisor, error: CallError | None, restarts_in_s: float) -> str | None:
    if error is None:
        return _start_progress(supervisor)
    reason = supervisor.settings.secrets.masked(f"{error.message} ({error.hint})" if error.hint else error.message)
    return f"{reason}; it is started again in {restarts_in_s:.1f} s" if restarts_in_s else reason


def _start_progress(supervisor: Supervisor) -> str | None:
    """Say how far the start of a program has come that is under way."""
    if supervisor.config.transport != "stdio":
        return None
    return next((progress for each in supervisor.instances if (progress := each.start_progress)), None)
