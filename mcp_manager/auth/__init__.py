"""Credentials of outgoing requests."""

from __future__ import annotations

from mcp_manager.auth.static import request_headers

__all__ = ["request_headers"]
