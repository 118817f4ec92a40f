"""OAuth 2.1 as MCP asks for it (2026-07-28, basic/authorization): discovery, registration, grants, tokens."""

from __future__ import annotations

from mcp_manager.auth.oauth.authorizations import Authorizations
from mcp_manager.auth.oauth.flow import RedirectHandler
from mcp_manager.auth.oauth.loopback import LoopbackRedirect
from mcp_manager.auth.oauth.store import FileTokenStore, MemoryTokenStore, TokenStore

__all__ = ["Authorizations", "FileTokenStore", "LoopbackRedirect", "MemoryTokenStore", "RedirectHandler", "TokenStore"]
