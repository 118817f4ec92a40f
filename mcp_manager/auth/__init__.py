"""The credentials of outgoing requests."""

from __future__ import annotations

from mcp_manager.auth.base import Authorization, UnreachableError
from mcp_manager.auth.challenge import Challenge, parse_challenge
from mcp_manager.auth.static import request_headers

__all__ = ["Authorization", "Challenge", "UnreachableError", "parse_challenge", "request_headers"]
