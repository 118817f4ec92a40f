"""Credentials from the configuration: an API key or a bearer token."""

from __future__ import annotations

from mcp_manager.config import ServerConfig

__all__ = ["request_headers"]


def request_headers(config: ServerConfig) -> dict[str, str]:
    """Return the headers of every request to a server: the configured ones and the credential."""
    credential = config.auth.request_header()
    if credential is None:
        return dict(config.headers)
    return {**config.headers, credential[0]: credential[1]}
