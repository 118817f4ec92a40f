"""Passes the events of instances on to the health monitor and to those who wait for servers."""

from __future__ import annotations

import asyncio

from mcp_manager.errors import CallError
from mcp_manager.health import HealthMonitor
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor

__all__ = ["FleetObserver"]


class FleetObserver:
    """Pass the events of supervisors to the monitor, and wake those who wait for servers to be ready."""

    def __init__(self, monitor: HealthMonitor) -> None:
        self._monitor = monitor
        self.changed: asyncio.Event = asyncio.Event()

    def instance_added(self, supervisor: Supervisor, instance: Instance) -> None:
        self._monitor.instance_added(supervisor, instance)

    def instance_changed(self, supervisor: Supervisor, instance: Instance, error: CallError | None) -> None:
        self._monitor.instance_changed(supervisor, instance, error)
        self.changed.set()

    def instance_removed(self, instance: Instance) -> None:
        self._monitor.instance_removed(instance)
        self.changed.set()

    def instance_ended(self, supervisor: Supervisor) -> None:
        self._monitor.instance_ended(supervisor)
