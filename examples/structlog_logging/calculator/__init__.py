"""A web service that logs with structlog, with the lines of ``mcp_manager`` in the same form."""
