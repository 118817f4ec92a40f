"""The settings of gunicorn: ``gunicorn -c python:mysite.gunicorn mysite.wsgi``."""

from __future__ import annotations

import mcp_fleet

# The application is loaded once, before the fork. Nothing of the fleet runs by then: each worker starts its own.
preload_app = True
# A worker that works on a request for longer is killed; the deadlines of calls are shorter.
timeout = 30
graceful_timeout = 30


def post_worker_init(worker: object) -> None:
    """Start the fleet of a worker before its first request."""
    mcp_fleet.manager()


def worker_exit(server: object, worker: object) -> None:
    """Stop the fleet of a worker after its last request."""
    mcp_fleet.stop()
