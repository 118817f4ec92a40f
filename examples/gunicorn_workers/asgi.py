"""The same service of coroutines, for workers of asyncio: ``gunicorn -c async.conf.py asgi:app``."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from anyio import to_thread
from failures import answer_to
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from worker_metrics import announced, page_of_workers

from mcp_manager import McpManager, McpManagerError

TIMEOUT_S: Final = int(os.environ.get("CALL_TIMEOUT_S", "10"))
FLEET: Final = os.environ.get("FLEET_FILE", Path(__file__).with_name("fleet.toml"))
_log = logging.getLogger("gunicorn.error")


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, McpManager]]:
    """Run the fleet of a worker."""
    async with McpManager.from_file(FLEET) as manager:
        with announced(manager):
            yield {"manager": manager}


app = FastAPI(lifespan=lifespan)


@app.post("/sums")
async def add(numbers: dict[str, float], request: Request) -> dict[str, Any]:
    """Add two numbers."""
    manager: McpManager = request.state.manager
    result = await manager.call_tool("calculator", "add", numbers, into=float, timeout=TIMEOUT_S)
    return {"sum": result.data, "worker": os.environ["WORKER_NUMBER"]}


@app.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the metrics of all workers."""
    page = await to_thread.run_sync(page_of_workers, request.headers.get("Accept", ""))
    return Response(page.body, media_type=page.content_type)


@app.exception_handler(McpManagerError)
async def failed(_: Request, error: McpManagerError) -> JSONResponse:
    """Answer to a call that failed."""
    _log.warning("%s", error)
    return JSONResponse(*answer_to(error))
