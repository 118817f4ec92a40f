"""The configuration of which calls are traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Unpack

from msgspec import Meta

from mcp_manager.config._struct import Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.traces import TracesFields

__all__ = ["TracesConfig"]

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
"""A share of calls, from 0 to 1."""


class TracesConfig(Settings, frozen=True, kw_only=True):
    """Configure which calls are traced; the decision is made before a call, or for ``errors`` and ``slow`` after it.

    Parameters
    ----------
    ratio
        The share of calls without an incoming trace that are traced. Default: what ``OTEL_TRACES_SAMPLER`` and
        ``OTEL_TRACES_SAMPLER_ARG`` say, else 0.01.
    parent
        Let the incoming trace decide for calls that have one; ``False`` applies ``ratio`` to them, too.
    errors
        Trace calls that fail, after the fact.
    slow
        Trace calls that take longer than this quantile of their server's latest calls, after the fact; ``off``
        traces none of them.
    tail_per_s
        The most traces a second that are made after the fact.
    content_bytes
        How many bytes of the arguments and of the result of a traced tool call are recorded. They may contain secrets;
        0 records none.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[TracesFields]) -> None: ...

    ratio: Share | None = None
    parent: bool = True
    errors: bool = True
    slow: Literal["off", "p95", "p99"] = "p99"
    tail_per_s: Annotated[float, Meta(ge=0.0, le=10_000.0)] = 10.0
    content_bytes: Annotated[int, Meta(ge=0, le=65_536)] = 0
