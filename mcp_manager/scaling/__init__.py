"""How many instances a server may have, and where they are."""

from __future__ import annotations

from mcp_manager.scaling.capacity import check_instances

__all__ = ["check_instances"]
