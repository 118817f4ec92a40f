"""Server health: the state of each server, from its calls and, where there is no traffic, from active probes."""

from __future__ import annotations

from mcp_manager.health.monitor import HealthMonitor

__all__ = ["HealthMonitor"]
