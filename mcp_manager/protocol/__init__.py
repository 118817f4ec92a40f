"""MCP as data and pure functions, without I/O: revisions, methods, headers, handshake, errors."""
