"""Health: passive first, an active probe only where traffic is silent, and the state that follows from both."""

from __future__ import annotations

from mcp_manager.health.monitor import HealthMonitor

__all__ = ["HealthMonitor"]
