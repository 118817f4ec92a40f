"""Workers of asyncio for ``asgi:app``: ``gunicorn -c async.conf.py asgi:app``. The lifespan starts the fleet."""

from __future__ import annotations

import os

from worker_metrics import child_exit, on_exit, on_starting, post_fork, pre_fork

__all__ = ["child_exit", "on_exit", "on_starting", "post_fork", "pre_fork"]

worker_class = "uvicorn_worker.UvicornWorker"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
preload_app = True
max_requests = 10_000
max_requests_jitter = 1_000
# Longer than any call may take.
graceful_timeout = int(os.environ.get("CALL_TIMEOUT_S", "10")) + 20
logconfig_dict = {"loggers": {"mcp_manager": {"level": "INFO", "handlers": ["error_console"]}}, "root": {}}
control_socket_disable = True
