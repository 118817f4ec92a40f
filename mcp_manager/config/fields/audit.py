"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["AuditFields", "PinsFields"]


class AuditFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.AuditConfig`, as keyword arguments or as a mapping."""

    path: str | None
    """The file that lines are appended to, or ``stderr``. Default: no audit log. A file that was renamed is opened
    anew.
    """
    arguments: bool
    """Whether to write the arguments of calls as well, which may be secrets. Default: ``False``."""
    max_queue: int
    """Lines that wait to be written; further ones are dropped and counted. Default: ``10000``."""


class PinsFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.PinsConfig`, as keyword arguments or as a mapping."""

    mode: Literal["off", "warn", "block"]
    """``off``; ``warn``, which logs it; or ``block``, which hides the tool and refuses its calls. Default: ``off``."""
    path: str | None
    """The file with the pins, which ``mcp-manager pin`` writes."""
