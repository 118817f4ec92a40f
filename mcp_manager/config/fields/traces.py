"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["TracesFields"]


class TracesFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.TracesConfig`, as keyword arguments or as a mapping."""

    ratio: float | None
    """The share of calls without an incoming trace that are traced. Default: what ``OTEL_TRACES_SAMPLER`` and
    ``OTEL_TRACES_SAMPLER_ARG`` say, else 0.01.
    """
    parent: bool
    """Let the incoming trace decide for calls that have one; ``False`` applies ``ratio`` to them, too. Default:
    ``True``.
    """
    errors: bool
    """Trace calls that fail, after the fact. Default: ``True``."""
    slow: Literal["off", "p95", "p99"]
    """Trace calls that take longer than this quantile of their server's latest calls, after the fact; ``off`` traces
    none of them. Default: ``p99``.
    """
    tail_per_s: float
    """The most traces a second that are made after the fact. Default: ``10.0``."""
    content_bytes: int
    """How many bytes of the arguments and of the result of a traced tool call are recorded. They may contain secrets; 0
    records none. Default: ``0``.
    """
