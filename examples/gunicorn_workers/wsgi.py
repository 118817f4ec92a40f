"""A service of plain functions, for workers of threads: ``gunicorn wsgi:app``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from failures import answer_to
from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from worker_metrics import page_of_workers

from mcp_manager import McpManagerError, PyMcpManager

TIMEOUT_S: Final = int(os.environ.get("CALL_TIMEOUT_S", "10"))

# Made in the master, which reads the file once for all workers, and started in each of them: see gunicorn.conf.py.
manager = PyMcpManager(os.environ.get("FLEET_FILE", Path(__file__).with_name("fleet.toml")))
app = Flask(__name__)


@app.post("/sums")
def add() -> ResponseReturnValue:
    """Add two numbers."""
    result = manager.call_tool("calculator", "add", request.get_json(), into=float, timeout=TIMEOUT_S)
    return {"sum": result.data, "worker": os.environ["WORKER_NUMBER"]}


@app.get("/metrics")
def metrics() -> Response:
    """Return the metrics of all workers."""
    page = page_of_workers(request.headers.get("Accept", ""))
    return Response(page.body, content_type=page.content_type)


@app.errorhandler(McpManagerError)
def failed(error: McpManagerError) -> ResponseReturnValue:
    """Answer to a call that failed."""
    app.logger.warning("%s", error)
    return answer_to(error)
