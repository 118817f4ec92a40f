"""The stdio transport: programs that are started, supervised and ended, and speak over their standard streams."""
