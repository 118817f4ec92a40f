"""The application that owns the fleet."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class McpFleetConfig(AppConfig):
    """Checks the fleet with the project's other settings; starts nothing."""

    name = "mcp_fleet"
    verbose_name = "MCP servers"

    def ready(self) -> None:
        """Register the check of the fleet."""
        from mcp_fleet.checks import fleet_is_valid  # noqa: PLC0415 - the settings must be loaded

        register(fleet_is_valid)
