"""What the servers of the suite's ``auth/*`` scenarios are configured with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["settings"]


def settings(scenario: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a server's configuration for a scenario, beside its URL."""
    return {}
