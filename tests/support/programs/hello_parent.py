"""The parent of two workers of the program ``hello_worker.py``, for tests that kill it: it prints their process ids."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mcp_manager.gateway.workers.parent import Parent, WorkersConfig


async def run() -> int:
    worker = [sys.executable, str(Path(__file__).with_name("hello_worker.py")), *sys.argv[1:]]

    def ready(_: int) -> None:
        assert parent._listeners is not None
        print(parent._listeners.directory, *parent.pids(), flush=True)

    parent = Parent(WorkersConfig(worker, 2, ("127.0.0.1", 0)), ready)
    return await parent.run()


sys.exit(asyncio.run(run()))
