"""The fleet: deploying, updating, scaling and removing servers, and the index that finds them."""

from __future__ import annotations

from mcp_manager.fleet.applying import Applied
from mcp_manager.fleet.file_watch import WatchedFile
from mcp_manager.fleet.fleet import Fleet

__all__ = ["Applied", "Fleet", "WatchedFile"]
