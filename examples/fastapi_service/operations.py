"""Endpoints for operators: health, servers and metrics. They have no authorization, so keep them inside."""

from __future__ import annotations

from typing import Final

from dependencies import Manager
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from mcp_manager import PyHealthStatus, ServerState, ServerView

__all__ = ["operations"]

MAX_LOOP_LAG_MS: Final = 5000
REQUIRED: Final = "required"
"""The tag of servers without which the service is not ready."""

operations = APIRouter(tags=["operations"])


class Missing(BaseModel):
    """A required server that cannot take calls."""

    id: str
    state: ServerState
    reasons: tuple[str, ...]


class Readiness(BaseModel):
    """Whether the service can take requests."""

    is_ready: bool
    missing: list[Missing]


@operations.get("/health/live", responses={503: {"model": PyHealthStatus}})
async def live(manager: Manager, response: Response) -> PyHealthStatus:
    """Tell whether the event loop runs. A failed server is no reason to restart this process."""
    health = manager.health()
    if health.loop_lag_ms > MAX_LOOP_LAG_MS:
        response.status_code = 503
    return health


@operations.get("/health/ready", responses={503: {"model": Readiness}})
async def ready(manager: Manager, response: Response) -> Readiness:
    """Tell whether every required server takes calls; name those that do not."""
    serving = (ServerState.HEALTHY, ServerState.DEGRADED)
    missing = [
        Missing(id=view.id, state=view.state, reasons=view.reasons)
        for view in manager.servers()
        if REQUIRED in view.tags and view.state not in serving
    ]
    if missing:
        response.status_code = 503
    return Readiness(is_ready=not missing, missing=missing)


@operations.get("/servers")
async def servers(manager: Manager) -> list[ServerView]:
    """Show every server."""
    return manager.servers()


@operations.get("/metrics", response_class=Response)
async def metrics(manager: Manager, request: Request) -> Response:
    """Return the metrics, in the format that the scraper accepts."""
    page = await manager.scrape(request.headers.get("Accept", ""))
    return Response(page.body, media_type=page.content_type)
