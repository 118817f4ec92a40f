"""The methods of MCP as methods of ``McpManager``, for one server and for the whole fleet."""
