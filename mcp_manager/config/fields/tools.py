"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import TypedDict

from mcp_manager.types import SequenceNotStr

__all__ = ["ToolsFields"]


class ToolsFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.ToolsConfig`, as keyword arguments or as a mapping."""

    allow: SequenceNotStr[str] | None
    """The tools that are allowed; ``None`` allows all, an empty list none. It is the safer choice of the two: a tool
    that the server adds later stays forbidden.
    """
    deny: SequenceNotStr[str]
    """The tools that are forbidden, even if ``allow`` names them."""
