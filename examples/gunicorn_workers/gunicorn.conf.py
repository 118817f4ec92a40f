"""Workers of threads for ``wsgi:app``; gunicorn reads this file by itself."""

from __future__ import annotations

import contextlib
import os

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from worker_metrics import announced, child_exit, on_exit, on_starting, post_fork, pre_fork
from wsgi import manager

__all__ = ["child_exit", "on_exit", "on_starting", "post_fork", "post_worker_init", "pre_fork", "worker_exit"]

worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 16
preload_app = True
# A worker ends after so many requests, and another one takes its place.
max_requests = 10_000
max_requests_jitter = 1_000
# Longer than any call may take.
graceful_timeout = int(os.environ.get("CALL_TIMEOUT_S", "10")) + 20
# Lines of the manager go where those of gunicorn go.
logconfig_dict = {"loggers": {"mcp_manager": {"level": "INFO", "handlers": ["error_console"]}}, "root": {}}
# By default, it is one socket for all services of a user.
control_socket_disable = True

_running = contextlib.ExitStack()


def post_worker_init(_: Worker) -> None:
    """Start the fleet in a worker: a manager that was started before the fork would belong to the master."""
    _running.enter_context(manager)
    _running.enter_context(announced(manager))


def worker_exit(server: Arbiter, _: Worker) -> None:
    """Stop the fleet of a worker, when its requests have been answered."""
    # gunicorn may call this in the master, too, whose manager must not be stopped: it is for all workers to come.
    if server.pid != os.getpid():
        _running.close()
