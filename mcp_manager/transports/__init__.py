"""Bytes in, bytes out: one folder per transport behind the seam of :mod:`mcp_manager.transports.base`."""
