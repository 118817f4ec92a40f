"""The compiled hot paths. They use no clock, randomness or configuration of their own: callers pass all of it in."""

from mcp_manager._core import installation

installation.check()
