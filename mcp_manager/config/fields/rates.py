"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["RateFields", "RetryBudgetFields"]


class RateFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.RateConfig`, as keyword arguments or as a mapping."""

    rate: float
    """Calls per second on average; 0 sets no limit. Default: ``0.0``."""
    burst: int
    """Calls that may arrive at once after a pause, at least 1. Default: ``1``."""


class RetryBudgetFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.RetryBudgetConfig`, as keyword arguments or as a mapping."""

    ratio: float
    """Retries and hedges allowed per call of the last ``ttl_s`` seconds, from 0 to 1. Default: ``0.2``."""
    min_per_s: float
    """Retries and hedges per second allowed on top, so that a server with few calls has some; 0 for none. Default:
    ``10.0``.
    """
    ttl_s: float
    """Seconds that a call counts towards ``ratio``, above 0. Default: ``10.0``."""
