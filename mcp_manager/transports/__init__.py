"""Bytes in, bytes out: one module per transport behind the seam of :mod:`mcp_manager.transports.base`."""
