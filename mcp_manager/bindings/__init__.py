"""``PyMcpManager``: the same manager for threads and for programs without a loop. No logic of its own."""

from __future__ import annotations

from mcp_manager.bindings.manager import PyMcpManager

__all__ = ["PyMcpManager"]
