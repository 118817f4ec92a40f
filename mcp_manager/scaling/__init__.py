"""How many instances a server may have, where they are, and how its configuration is replaced."""

from __future__ import annotations

from mcp_manager.scaling.capacity import check_instances
from mcp_manager.scaling.rollout import Rollout, RolloutPlan

__all__ = ["Rollout", "RolloutPlan", "check_instances"]
