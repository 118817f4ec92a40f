"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["AdminFields"]


class AdminFields(TypedDict, total=False):
    """The fields of :class:`~mcp_manager.AdminConfig`, as keyword arguments or as a mapping."""

    listen: str | None
    """A separate address, in the forms of ``serve.listen``. Then the API and the page are only there, and ``/health``,
    ``/ready`` and ``/metrics`` are there too, without authentication. Default: the address of the gateway.
    """
    token: str | None
    """The secret that clients send as ``Authorization: Bearer``: 32 to 4,096 printable ASCII characters without spaces.
    Default: none; then the principals in ``operators`` of ``serve.auth`` may use the API.
    """
    ui: bool
    """Whether to serve the page ``/ui``. Default: ``True``."""
