"""Small MCP servers for the demo and the examples."""
