"""Managers that use the authorizations which ``mcp-manager login`` has stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from mcp_manager.auth.redirect import RedirectHandler
from mcp_manager.auth.token_store import FileTokenStore
from mcp_manager.config import AuthConfig, ManagerConfig, ServerConfig, TelemetryConfig

if TYPE_CHECKING:
    from mcp_manager.manager import McpManager

__all__ = ["manager_of", "stored_in", "with_oauth", "with_stored_grant"]

_PARTS: Final = ("mcp-manager", "authorizations")


def stored_in() -> Path:
    """Return the directory of the stored authorizations (``XDG_STATE_HOME``)."""
    given = os.environ.get("XDG_STATE_HOME", "")
    # A relative path is to be ignored (XDG Base Directory Specification).
    base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    return base.joinpath(*_PARTS)


def manager_of(config: ManagerConfig, redirect_handler: RedirectHandler | None = None) -> McpManager:
    """Return a manager that reads and stores authorizations, if one of its servers uses OAuth; it exports nothing."""
    from mcp_manager.manager import McpManager  # noqa: PLC0415 - the parent of workers needs none, and stays small

    uses_oauth = any(server.auth.type == "oauth" for server in config.servers.values())
    store = FileTokenStore(stored_in()) if uses_oauth else None
    config = msgspec.structs.replace(config, telemetry=TelemetryConfig())
    return McpManager(config, token_store=store, redirect_handler=redirect_handler)


def with_oauth(server: ServerConfig) -> ServerConfig:
    """Return the configuration of a server that was named by its URL, with OAuth."""
    return msgspec.structs.replace(server, auth=AuthConfig(type="oauth"))


async def with_stored_grant(server_id: str, server: ServerConfig) -> ServerConfig:
    """Return the configuration of a server that was named by its URL, with OAuth if it was logged in to."""
    from mcp_manager.auth.oauth.kept_grants import KeptGrant  # noqa: PLC0415 - most servers need no OAuth

    oauth = with_oauth(server)
    kept = KeptGrant(FileTokenStore(stored_in()), server_id, str(server.url), oauth.auth)
    return server if await kept.load() is None else oauth
