"""Snapshots of the whole fleet as plain data, for operators, status pages and bug reports."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from mcp_manager._core.router import Router
from mcp_manager._core.snapshots import BackendReading as Backend
from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.config.redaction import shown_place
from mcp_manager.config.tools import ALL_TOOLS, ToolsConfig
from mcp_manager.events.records import ChildExited
from mcp_manager.observe.views import Judge
from mcp_manager.protocol.revisions import Era
from mcp_manager.runtime.loop_lag import LoopLagView
from mcp_manager.serialization import Serializable
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.transports.http.connections.limit import default_limit
from mcp_manager.types import CircuitState, PyHealthStatus, ServerState

__all__ = [
    "FleetSnapshot",
    "InstanceSnapshot",
    "ManagerSnapshot",
    "ServerSnapshot",
    "manager_snapshot",
    "server_snapshot",
]

Availability = Literal["ready", "pending", "excluded"]

_AVAILABILITIES: Final[tuple[Availability, ...]] = ("ready", "pending", "excluded")


class InstanceSnapshot(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """One instance.

    Attributes
    ----------
    index
        Its number among the server's instances, from 0.
    where
        Its URL without anything in it that may be secret, or the program of its child process.
    pid
        The id of its child process; ``None`` without one.
    availability
        ``ready`` takes calls, ``pending`` takes them if no instance is ready, ``excluded`` takes none because it drains
        or is in maintenance.
    era, revision
        The era and the revision of the protocol that its session speaks; ``None`` without a session.
    generation
        Rises with every session that is made or lost.
    tier, weight
        Its tier, and its share of the calls in relation to the others.
    inflight, limit
        Calls under way, and how many there may be; ``None`` if there is no limit.
    ejected_s, paused_s
        Seconds until its ejection as an outlier ends, and until the pause ends that it asked for; 0 without one.
    latency_s
        The expected seconds of a call; ``None`` before the first has ended.
    circuit, retry_after_s
        State of its circuit breaker, and seconds for which it still admits nothing.
    window_calls, window_failures
        Calls in the breaker's window, and how many of them failed.
    last_error
        Why it has no session, or why its last probe failed; ``None`` if neither.
    last_exit
        How its program last ended by itself, or failed to start; ``None`` if it did not.
    """

    index: int
    where: str
    pid: int | None
    availability: Availability
    era: Literal["handshake", "stateless"] | None
    revision: str | None
    generation: int
    tier: int
    weight: float
    inflight: int
    limit: int | None
    ejected_s: float
    paused_s: float
    latency_s: float | None
    circuit: str
    retry_after_s: float
    window_calls: int
    window_failures: int
    last_error: str | None
    last_exit: ChildExited | None = None


class ServerSnapshot(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """One server.

    Attributes
    ----------
    id, server_type, tags, priority
        As configured.
    state, reasons
        Its state, and why it is not ``Healthy``.
    desired, ready, draining
        How many instances it should have, have a session, and drain.
    inflight
        Calls under way.
    waiting
        Calls that wait because a limit is reached.
    retry_budget
        How many retries and hedges are left in its budget.
    window_calls, window_failures
        Calls of the last 30 to 60 seconds, and how many of them failed.
    p50_s, p95_s, p99_s
        Quantiles of the latencies of these calls in seconds; ``None`` without any.
    instances
        Its instances by index, those that still connect or drain included.
    tls_verify
        ``False`` if its configuration accepts every certificate.
    tools
        Which tools may be listed and called; ``None`` if all may be.
    """

    id: str
    server_type: str
    tags: tuple[str, ...]
    priority: int
    state: ServerState
    reasons: tuple[str, ...]
    desired: int
    ready: int
    draining: int
    inflight: int
    waiting: int
    retry_budget: float
    window_calls: int
    window_failures: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    instances: tuple[InstanceSnapshot, ...]
    tls_verify: bool = True
    tools: ToolsConfig | None = None


class ManagerSnapshot(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The manager's own settings; see :class:`ManagerConfig`."""

    client_name: str
    client_version: str
    max_connections: int
    max_connections_per_origin: int
    max_concurrent: int
    max_waiting: int
    connect_concurrency: int
    start_concurrency: int
    probe_concurrency: int
    http_lanes: bool
    flight_records: int


class FleetSnapshot(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The whole fleet at one instant, without secrets; :meth:`to_json` turns it into JSON.

    Attributes
    ----------
    taken_at
        The time of day in UTC (ISO 8601).
    manager
        The manager's own settings.
    health
        The number of servers by health.
    servers
        All servers, in the order of deployment.
    loop_lag
        How late the event loop has been.
    """

    taken_at: str
    manager: ManagerSnapshot
    health: PyHealthStatus
    servers: tuple[ServerSnapshot, ...]
    loop_lag: LoopLagView | None = None


def manager_snapshot(config: ManagerConfig) -> ManagerSnapshot:
    """Return the manager's own settings."""
    settings = {name: getattr(config, name) for name in ManagerSnapshot.__struct_fields__}
    if config.max_connections is None:
        settings["max_connections"] = default_limit()
    return ManagerSnapshot(**settings)


def server_snapshot(supervisor: Supervisor, judge: Judge, router: Router, now_ns: int) -> ServerSnapshot:
    """Return a snapshot of one server; ``now_ns`` is monotonic time."""
    config = supervisor.config
    state, reasons = judge(supervisor)
    read = router.server_counts(supervisor.server_id, now_ns)
    instances = [_instance(each, now_ns) for each in read.backends]
    # Of those that were read: on another thread than the loop's, there may be others by now.
    in_traffic = set(supervisor.instances)
    return ServerSnapshot(
        id=supervisor.server_id,
        server_type=config.server_type,
        tags=config.tags,
        priority=config.priority,
        state=state,
        reasons=reasons,
        desired=supervisor.desired,
        ready=sum(each.payload in in_traffic and each.payload.session is not None for each in read.backends),
        draining=supervisor.draining,
        inflight=read.inflight,
        waiting=read.waiting,
        retry_budget=router.budget(supervisor.record, now_ns),
        window_calls=read.window_calls,
        window_failures=read.window_failures,
        p50_s=read.window.p50_s,
        p95_s=read.window.p95_s,
        p99_s=read.window.p99_s,
        instances=tuple(sorted(instances, key=lambda each: each.index)),
        tls_verify=config.tls.verify,
        tools=None if config.tools == ALL_TOOLS else config.tools,
    )


def _instance(read: Backend, now_ns: int) -> InstanceSnapshot:
    instance = read.payload
    assert isinstance(instance, Instance)
    session = instance.session
    era = None if session is None else Era.STATELESS if session.is_stateless else Era.HANDSHAKE
    error = instance.last_error
    return InstanceSnapshot(
        index=instance.index,
        where=_where(instance.template.config, instance.index),
        pid=instance.pid or None,
        availability=_AVAILABILITIES[read.availability],
        era=era.value if era is not None else None,
        revision=session.revision if session is not None else None,
        generation=instance.generation,
        tier=read.tier,
        weight=read.weight,
        inflight=read.inflight,
        limit=read.limit,
        ejected_s=max(0, read.ejected_until_ns - now_ns) / 1e9,
        paused_s=max(0, read.paused_until_ns - now_ns) / 1e9,
        latency_s=read.latency_s,
        circuit=CircuitState(read.circuit_state).label,
        retry_after_s=read.retry_after_ns / 1e9,
        window_calls=read.window_calls,
        window_failures=read.window_failures,
        last_error=instance.template.secrets.masked(str(error)) if error is not None else None,
        last_exit=instance.events.last_exit,
    )


def _where(config: ServerConfig, index: int) -> str:
    if config.server is not None:
        return type(config.server).__name__
    return shown_place(config, config.command if config.command is not None else config.instance_url(index))
