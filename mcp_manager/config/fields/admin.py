"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["AdminFields"]


class AdminFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.AdminConfig`, as keyword arguments or as a mapping."""

    listen: str | None
    """An address of its own, in the forms of ``serve.listen``. The API and the page are then served there alone, and
    ``/health``, ``/ready`` and ``/metrics`` there too, without authentication. Default: they are at the address of the
    gateway.
    """
    token: str | None
    """The secret that administrators send as ``Authorization: Bearer``, 32 to 4,096 printable ASCII characters without
    spaces. Default: those whom ``operators`` of ``serve.auth`` names are admitted instead.
    """
    ui: bool
    """Whether to serve the page ``/ui``. Default: ``True``."""
