"""OAuth 2.1 as MCP prescribes it (2026-07-28, basic/authorization); ``authorizations`` is the entry point."""
