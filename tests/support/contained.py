"""What logs the failures of one server's handlers and background work, for tests of what uses it."""

from __future__ import annotations

from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.transports.containment import Containment

__all__ = ["TOKEN", "containment"]

TOKEN = "a-token-of-the-server"
"""The credential that servers of :func:`containment` are trusted with."""


def containment(server_id: str = "a") -> Containment:
    """Return that of a server with :data:`TOKEN` as its bearer token."""
    config = ServerConfig(url="https://example.com/mcp", headers={"X-Key": TOKEN})
    return Containment(server_id, Secrets(config))
