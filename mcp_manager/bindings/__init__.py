"""``PyMcpManager``: the manager for threads and for programs without an event loop. It has no logic of its own."""

from __future__ import annotations

from mcp_manager.bindings.fleet_change import FleetChange
from mcp_manager.bindings.manager import PyForCaller, PyMcpManager

__all__ = ["FleetChange", "PyForCaller", "PyMcpManager"]
