"""Sessions with MCP servers: negotiation, requests and notifications in both directions, and detection of their loss.

The protocol has two eras. The handshake revisions, 2024-11-05 to 2025-11-25, begin a session with ``initialize``; the
stateless revisions, from 2026-07-28 on, send everything with each request.
"""

from __future__ import annotations

from mcp_manager.session.progress import ProgressCallback, ProgressReports
from mcp_manager.session.session import Session
from mcp_manager.session.template import SessionTemplate

__all__ = ["ProgressCallback", "ProgressReports", "Session", "SessionTemplate"]
