"""What a call costs, beside the clients one would use instead: the work behind ``mcp-manager bench``."""
