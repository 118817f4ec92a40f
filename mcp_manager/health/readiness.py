"""Decides whether a server can take calls now."""

from __future__ import annotations

from mcp_manager.health.monitor import HealthMonitor
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import ServerState

__all__ = ["is_ready", "ready_count"]


def is_ready(supervisor: Supervisor, monitor: HealthMonitor) -> bool:
    """Return whether a server has a session and is ``Healthy`` or ``Degraded``."""
    state, _ = monitor.state(supervisor)
    return state in (ServerState.HEALTHY, ServerState.DEGRADED) and ready_count(supervisor) > 0


def ready_count(supervisor: Supervisor) -> int:
    """Count the instances of a server that have a session."""
    return sum(instance.session is not None for instance in supervisor.instances)
