"""The same log in a program with threads: each job's lines have its name."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from mcp_manager import CallError, PyMcpManager

from . import logs
from .tracing import tracing

_JOBS: Final[dict[str, float]] = {"quick": 0.0, "slow": 60.0}

_log: structlog.stdlib.BoundLogger = structlog.get_logger("calculator.batch")


def work(manager: PyMcpManager, job: str, seconds: float) -> None:
    """Do one job. The context that is bound here is on the manager's lines about its calls, too."""
    with structlog.contextvars.bound_contextvars(job=job):
        try:
            manager.call_tool("calculator", "sleep", {"seconds": seconds}, timeout=0.5)
        except CallError as error:
            _log.warning("job failed", error=error)
        else:
            _log.info("job done")


def main() -> None:
    """Run all jobs, each on a thread."""
    logs.configure(as_json=not sys.stdout.isatty(), level=os.environ.get("LOG_LEVEL", "INFO"))
    server = {"command": sys.executable, "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]}
    with tracing(), PyMcpManager({"calculator": server}) as manager, ThreadPoolExecutor() as threads:
        for done in [threads.submit(work, manager, job, seconds) for job, seconds in _JOBS.items()]:
            done.result()


if __name__ == "__main__":
    main()
