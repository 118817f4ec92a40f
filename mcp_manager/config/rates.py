"""The configuration of rates: of calls, and of retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Unpack

from msgspec import Meta

from mcp_manager.config._struct import Count, PositiveSeconds, Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.rates import RateFields, RetryBudgetFields

__all__ = ["RateConfig", "RetryBudgetConfig"]

PerSecond = Annotated[float, Meta(ge=0.0, le=1e9)]
"""A rate per second; the field says what 0 means."""


class RetryBudgetConfig(Settings, frozen=True, kw_only=True):
    """Configure how many retries and hedges are allowed in addition to the calls themselves (Finagle, RetryBudget).

    Parameters
    ----------
    ratio
        Retries and hedges allowed per call of the last ``ttl_s`` seconds, from 0 to 1.
    min_per_s
        Retries and hedges per second allowed on top, so that a server with few calls has some; 0 for none.
    ttl_s
        Seconds that a call counts towards ``ratio``, above 0.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[RetryBudgetFields]) -> None: ...

    ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2
    min_per_s: PerSecond = 10.0
    ttl_s: PositiveSeconds = 10.0


class RateConfig(Settings, frozen=True, kw_only=True):
    """Configure how many calls per second are admitted (GCRA, ITU-T I.371).

    Parameters
    ----------
    rate
        Calls per second on average; 0 sets no limit.
    burst
        Calls that may arrive at once after a pause, at least 1.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[RateFields]) -> None: ...

    rate: PerSecond = 0.0
    burst: Count = 1
