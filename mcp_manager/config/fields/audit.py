"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["AuditFields", "PinsFields"]


class AuditFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.AuditConfig`, as keyword arguments or as a mapping."""

    path: str | None
    """The file to append lines to, or ``stderr``. Default: no audit log. If you rename the file, the gateway opens a
    new one.
    """
    arguments: bool
    """Whether to write the arguments of calls too. They may contain secrets. Default: ``False``."""
    max_queue: int
    """How many lines may wait to be written. The gateway drops and counts further ones. Default: ``10000``."""


class PinsFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.PinsConfig`, as keyword arguments or as a mapping."""

    mode: Literal["off", "warn", "block"]
    """``off``; ``warn``, which logs a difference; or ``block``, which also hides the tool and refuses its calls.
    Default: ``off``.
    """
    path: str | None
    """The file with the pins. ``mcp-manager pin`` writes it."""
