"""What ``python manage.py check`` says about the fleet."""

from __future__ import annotations

from collections.abc import Sequence

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error

from mcp_manager import ConfigError, PyMcpManager


def fleet_is_valid(app_configs: Sequence[AppConfig] | None, **_: object) -> list[CheckMessage]:
    """Report every mistake in the fleet; nothing is connected."""
    try:
        PyMcpManager(settings.MCP_FLEET)
    except ConfigError as error:
        mistakes = [str(each) for each in error.problems] or [str(error)]
        return [Error(each, obj="MCP_FLEET", id="mcp_fleet.E001") for each in mistakes]
    return []
