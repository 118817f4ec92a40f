"""Which servers there are: how they come, change and go, and how many instances each has."""

from __future__ import annotations

from mcp_manager.fleet.fleet import Applied, Fleet

__all__ = ["Applied", "Fleet"]
