"""The transports of MCP messages, one folder each, behind the interface in :mod:`mcp_manager.transports.base`."""
