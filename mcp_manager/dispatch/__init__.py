"""The way of a call to the instances of a server."""

from __future__ import annotations

from mcp_manager.dispatch.dispatcher import Dispatcher

__all__ = ["Dispatcher"]
