"""Tasks of Celery that call tools of MCP servers."""

from __future__ import annotations

from jobs.celery import app

__all__ = ["app"]
