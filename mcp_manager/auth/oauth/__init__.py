"""OAuth 2.1 as MCP asks for it (2026-07-28, basic/authorization): discovery, registration, grants, tokens.

``authorizations`` is the way in, imported by who needs it; here is what users bring along.
"""

from __future__ import annotations

from mcp_manager.auth.oauth.loopback import LoopbackRedirect, RedirectHandler
from mcp_manager.auth.oauth.store import FileTokenStore, MemoryTokenStore, TokenStore

__all__ = ["FileTokenStore", "LoopbackRedirect", "MemoryTokenStore", "RedirectHandler", "TokenStore"]
