"""What MCP lets one ask of a server, and of the whole fleet: the methods of ``McpManager``."""
