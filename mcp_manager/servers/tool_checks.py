"""What has to be checked before a tool of a server is called: its rules and its rate limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mcp_manager.config import RateConfig, ServerConfig
from mcp_manager.protocol.tool_rules import ToolRules, rules_of

__all__ = ["ToolChecks", "tool_checks_of"]


class ToolChecks(NamedTuple):
    """The checks of a server's tools.

    Parameters
    ----------
    rules
        Which tools may be listed and called (``tools``); ``None`` if all may be.
    rates
        Calls per second by tool (``limits.tools``).
    """

    rules: ToolRules | None
    rates: Mapping[str, RateConfig]


def tool_checks_of(config: ServerConfig) -> ToolChecks | None:
    """Return the checks that a configuration asks for, ``None`` if there are none: most servers have none."""
    rules, rates = rules_of(config.tools), config.limits.tools
    return ToolChecks(rules, rates) if rules is not None or rates else None
