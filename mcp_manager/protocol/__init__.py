"""MCP as data and pure decisions: revisions, methods, the handshake. Nothing here does I/O."""
