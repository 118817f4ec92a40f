"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["ResumeFields"]


class ResumeFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ResumeConfig`, as keyword arguments or as a mapping."""

    max_events: int
    """How many of the latest events of a call's stream the gateway keeps; 0 keeps none. Default: ``256``."""
    keep_s: float
    """How long the gateway keeps them after the client has disconnected. Default: ``60.0``."""
