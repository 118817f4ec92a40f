"""Hot paths, compiled. No clock, no randomness, no configuration: all are passed in."""

from mcp_manager._core import installation

installation.check()
