"""A :class:`Containment` for tests."""

from __future__ import annotations

from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.transports.containment import Containment

__all__ = ["TOKEN", "containment"]

TOKEN = "a-token-of-the-server"
"""The credential in the configuration of :func:`containment`."""


def containment(server_id: str = "a") -> Containment:
    """Return the containment of a server whose configuration has :data:`TOKEN` in a header."""
    config = ServerConfig(url="https://example.com/mcp", headers={"X-Key": TOKEN})
    return Containment(server_id, Secrets(config))
