"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["ResumeFields"]


class ResumeFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ResumeConfig`, as keyword arguments or as a mapping."""

    max_events: int
    """How many of its latest events are kept; 0 keeps none, so that no stream can be resumed. Default: ``256``."""
    keep_s: float
    """Seconds that they are kept after the client was gone. Default: ``60.0``."""
