"""The whole fleet at one instant, as plain data: what an operator, a status page or a bug report asks for first."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from mcp_manager._core.router import Router
from mcp_manager._core.snapshots import BackendReading as Backend
from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.config.redaction import shown_place
from mcp_manager.observe.views import Judge
from mcp_manager.protocol.revisions import Era
from mcp_manager.runtime.loop_lag import LoopLagView
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


class InstanceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One instance.

    Parameters
    ----------
    index
        Which of the server's instances it is, from 0.
    where
        Its URL without whatever may be secret in it, or the program of a child process.
    pid
        Of its child process, ``None`` without one.
    availability
        ``ready`` takes calls, ``pending`` takes them where nothing is ready, ``excluded`` takes none: it drains, or is in
        maintenance.
    era, revision
        How its session speaks, ``None`` without a session.
    generation
        Rises with every session that is made or lost.
    tier, weight
        The group it belongs to, and how much of the calls it takes beside the others.
    inflight, limit
        Calls under way, and how many there may be; ``None`` while nothing limits them.
    ejected_s, paused_s
        Seconds for which it is still out of traffic because it failed more than others, or asked for a pause.
    latency_s
        What a call is expected to take, ``None`` before the first has ended.
    circuit, retry_after_s
        State of its circuit breaker, and seconds for which it still admits nothing.
    window_calls, window_failures
        Calls in the breaker's window, and those of them that failed.
    last_error
        Why it has no session, or why its last probe failed; ``None`` when all is well.
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


class ServerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One server; ``waiting`` calls are above a limit and wait for their turn; ``retry_budget`` is how many retries and
    hedges it has now; ``p50_s`` to ``p99_s`` are of the calls of the last minute, ``None`` without any.

    ``tls_verify`` is ``False`` where its configuration has every certificate accepted. ``instances`` are those that take
    traffic and those that are on their way out, or in, by index.
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


class ManagerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The manager's own settings, as of :class:`ManagerConfig`."""

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


class FleetSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All of a fleet at one instant; ``msgspec.json.encode`` makes JSON of it.

    ``taken_at`` is the time of day in UTC (ISO 8601). Nothing in it is secret.
    """

    taken_at: str
    manager: ManagerSnapshot
    health: PyHealthStatus
    servers: tuple[ServerSnapshot, ...]
    loop_lag: LoopLagView | None = None


def manager_snapshot(config: ManagerConfig) -> ManagerSnapshot:
    """Read the manager's own settings."""
    settings = {name: getattr(config, name) for name in ManagerSnapshot.__struct_fields__}
    if config.max_connections is None:
        settings["max_connections"] = default_limit()
    return ManagerSnapshot(**settings)


def server_snapshot(supervisor: Supervisor, judge: Judge, router: Router, now_ns: int) -> ServerSnapshot:
    """Read one server; ``now_ns`` is the monotonic clock's time."""
    config = supervisor.config
    state, reasons = judge(supervisor)
    read = router.server_counts(supervisor.server_id, now_ns)
    instances = [_instance(each, now_ns) for each in read.backends]
    return ServerSnapshot(
        id=supervisor.server_id,
        server_type=config.server_type,
        tags=config.tags,
        priority=config.priority,
        state=state,
        reasons=reasons,
        desired=supervisor.desired,
        ready=sum(each.session is not None for each in supervisor.instances),
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
    )


def _where(config: ServerConfig, index: int) -> str:
    return shown_place(config, config.command if config.command is not None else config.instance_url(index))
