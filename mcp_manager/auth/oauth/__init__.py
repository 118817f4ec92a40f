"""OAuth 2.1 as MCP asks for it (2026-07-28, basic/authorization); ``authorizations`` is the way in."""
