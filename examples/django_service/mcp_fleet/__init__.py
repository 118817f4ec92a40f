"""One manager of MCP servers for each process of a Django project; :func:`manager` returns it.

Nothing is started by an import: not in the parent of runserver's reloader, not in gunicorn's master, not by commands.
"""

from __future__ import annotations

from mcp_fleet.process import manager, manager_async, stop

__all__ = ["manager", "manager_async", "stop"]
