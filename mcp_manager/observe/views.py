"""Views of single servers and the health of the fleet, read from supervisors, monitor and router on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mcp_manager._core.router import Router
from mcp_manager.config.tools import ALL_TOOLS, ToolsConfig
from mcp_manager.errors import CallError
from mcp_manager.events.records import ChildExited
from mcp_manager.health.readiness import ready_count
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.serialization import ImmutableDict, View
from mcp_manager.servers.supervisor import RestartCause, Supervisor
from mcp_manager.types import CircuitState, PyHealthStatus, PyServerInfo, ServerState

__all__ = [
    "Judge",
    "ServerView",
    "circuit_of",
    "fleet_health",
    "last_exit",
    "server_info",
    "server_view",
]

Judge = Callable[[Supervisor], tuple[ServerState, tuple[str, ...]]]
"""Returns the state that a server is shown with, and the reasons why it is not ``Healthy``."""


class ServerView(View, structs=("identity", "tools", "last_exit")):
    """What ``server(id)`` returns for a server; it is a dict, too, for ``json`` and web frameworks.

    Items have the same values as attributes; ``identity``, ``tools`` and ``last_exit`` are dicts there.

    Attributes
    ----------
    id, server_type, priority, tags
        As configured.
    name
        The configured name, the id without one.
    state, reasons
        Its state, and why it is not ``Healthy``.
    transport
        The transport in use, which may be older than the configured one.
    circuit
        The state of its circuits as one: open only if no instance admits calls.
    desired, ready, draining
        How many instances it should have, have a session, and drain.
    protocol_version
        The revision of the protocol in use; ``None`` without a session.
    identity
        What the server says about itself; ``None`` without a session, or if it says nothing.
    faults
        Counts, by kind, of what it should not have sent and what harmed no call.
    last_error
        Why an instance has no session or failed its last probe, and when its program is started again; for a program
        that is starting, how far it has come.
    pids
        The ids of its child processes.
    tls_verify
        ``False`` if its configuration accepts every certificate.
    restarts
        Restarts of child processes by cause: those that ended by themselves (``exit``), and those that were killed
        because they did not answer (``hang``).
    tools
        Which tools may be listed and called; ``None`` if all may be.
    last_exit
        How a program of it last ended by itself, or failed to start; ``None`` if none did.
    found_endpoints
        The endpoints in use that were found at ``/mcp``, because the configured URL has no path and is no endpoint.
    """

    __slots__ = ()

    id: str
    name: str
    server_type: str
    state: ServerState
    reasons: tuple[str, ...]
    priority: int
    tags: tuple[str, ...]
    transport: Literal["http", "sse", "stdio", "memory"]
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
    restarts: dict[RestartCause, int] = ImmutableDict()  # type: ignore[assignment]
    tools: ToolsConfig | None = None
    last_exit: ChildExited | None = None
    found_endpoints: tuple[str, ...] = ()


def server_view(supervisor: Supervisor, judge: Judge, router: Router, now_ns: int) -> ServerView:
    """Return a view of one server; ``now_ns`` is monotonic time."""
    state, reasons = judge(supervisor)
    config = supervisor.config
    # Everything is read once: on another thread than the loop's, a second look may find it gone.
    instances = supervisor.instances
    session = next((session for each in instances if (session := each.session) is not None), None)
    last_error, restarts_in_s = next(
        ((error, each.restarts_in_s) for each in instances if (error := each.last_error) is not None), (None, 0.0)
    )
    if last_error is None and supervisor.template.endpoints is not None:
        last_error = supervisor.template.endpoints.problem
    return ServerView._of(
        {
            "id": supervisor.server_id,
            "name": config.name or supervisor.server_id,
            "server_type": config.server_type,
            "state": state,
            "reasons": reasons,
            "priority": config.priority,
            "tags": config.tags,
            "transport": "sse" if session is not None and session.is_sse else config.transport,
            "circuit": circuit_of(supervisor, router, now_ns).label,
            "desired": supervisor.desired,
            "ready": ready_count(supervisor),
            "draining": supervisor.draining,
            "protocol_version": session.revision if session is not None else None,
            "identity": session.identity if session is not None else None,
            "faults": ImmutableDict(supervisor.template.fault_counts),
            "last_error": _last_error(supervisor, last_error, restarts_in_s),
            "pids": tuple(pid for each in instances if (pid := each.pid)),
            "tls_verify": config.tls.verify,
            "restarts": ImmutableDict((supervisor.restarts or {}).items()),
            "tools": None if config.tools == ALL_TOOLS else config.tools,
            "last_exit": last_exit(supervisor),
            "found_endpoints": supervisor.template.found_endpoints,
        }
    )


def server_info(supervisor: Supervisor, judge: Judge) -> PyServerInfo:
    """Return the short view of one server."""
    config = supervisor.config
    return PyServerInfo._of(
        {
            "id": supervisor.server_id,
            "name": config.name or supervisor.server_id,
            "server_type": config.server_type,
            "state": judge(supervisor)[0].value,
            "priority": config.priority,
        }
    )


def fleet_health(counts: tuple[int, int, int], router: Router, now_ns: int, lag_s: float = 0.0) -> PyHealthStatus:
    """Return the number of servers by health; those neither healthy nor unhealthy count as degraded."""
    total, healthy, unhealthy = counts
    window = router.fleet_window(now_ns)
    return PyHealthStatus._of(
        {
            "total_servers": total,
            "healthy_servers": healthy,
            "degraded_servers": total - healthy - unhealthy,
            "unhealthy_servers": unhealthy,
            "avg_response_time_ms": round(window.sum_ns / window.count / 1e6) if window.count else 0,
            "loop_lag_ms": round(lag_s * 1e3),
        }
    )


def circuit_of(supervisor: Supervisor, router: Router, now_ns: int) -> CircuitState:
    """Return the state of a server's circuits as one: open only if no instance admits calls."""
    states = {
        router.backend_reading(backend, now_ns).circuit_state
        for each in supervisor.instances
        if (backend := each.backend) is not None
    }
    for state in (CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN):
        if state in states:
            return state
    return CircuitState.CLOSED


def last_exit(supervisor: Supervisor) -> ChildExited | None:
    """Return how a program of a server last ended by itself."""
    exits = [found for each in supervisor.instances if (found := each.events.last_exit) is not None]
    return max(exits, key=lambda each: each.monotonic_ns, default=None)


def _last_error(supervisor: Supervisor, error: CallError | None, restarts_in_s: float) -> str | None:
    if error is None:
        return _start_progress(supervisor)
    reason = supervisor.template.secrets.masked(f"{error.message} ({error.hint})" if error.hint else error.message)
    return f"{reason}; it is started again in {restarts_in_s:.1f} s" if restarts_in_s else reason


def _start_progress(supervisor: Supervisor) -> str | None:
    """Return how far a program that is starting has come; ``None`` if there is none."""
    if supervisor.config.transport != "stdio":
        return None
    return next((progress for each in supervisor.instances if (progress := each.start_progress)), None)
