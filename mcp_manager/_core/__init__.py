"""Hot paths, compiled. No clock, no randomness, no configuration: all are passed in."""

from mcp_manager import _installation

_installation.check()
