"""Where a server is, as attributes of the conventions."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from mcp_manager.config import ServerConfig
from mcp_manager.telemetry.conventions import ADDRESS, NETWORK_PROTOCOL, PORT, TRANSPORT, TRANSPORTS

__all__ = ["place_of"]

_PORTS = {"http": 80, "https": 443}


def place_of(config: ServerConfig) -> dict[str, Any]:
    """Return the transport of a server, and its host and port if all of its instances share them."""
    found: dict[str, Any] = {TRANSPORT: TRANSPORTS.get(config.transport, "tcp")}
    if config.runs_here:
        return found
    found[NETWORK_PROTOCOL] = "http"
    if isinstance(config.url, str) and not config.has_url_template and config.unix_socket is None:
        parts = urlsplit(config.url)
        if parts.hostname:
            found[ADDRESS] = parts.hostname
            found[PORT] = parts.port or _PORTS.get(parts.scheme, 0)
    return found
