"""Small real MCP servers, shipped so that the demo and the examples need nothing else."""
