"""One server's session: the era is settled, requests are numbered, and what the server sends by itself is taken."""

from __future__ import annotations

from mcp_manager.session.progress import ProgressCallback, ProgressReports
from mcp_manager.session.session import Session
from mcp_manager.session.template import SessionTemplate

__all__ = ["ProgressCallback", "ProgressReports", "Session", "SessionTemplate"]
