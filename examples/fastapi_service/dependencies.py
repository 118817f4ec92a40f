"""What endpoints ask FastAPI for: the manager, the time that they have, and to be cancelled with their client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, HTTPException, Request

from mcp_manager import DeadlineExceededError, McpManager

__all__ = ["Manager", "Timeout", "cancel_with_client"]


# A coroutine function: FastAPI would run a plain one in a thread.
async def manager_of(request: Request) -> McpManager:
    """Return the manager that the lifespan of the service started."""
    manager: McpManager = request.state.manager
    return manager


Manager = Annotated[McpManager, Depends(manager_of)]


async def timeout_of(
    request_timeout: Annotated[float, Header(gt=0, le=60, description="Seconds until the client gives up")] = 10.0,
) -> float:
    """Return the seconds that a client gives a request, by the header field ``Request-Timeout``."""
    return request_timeout


Timeout = Annotated[float, Depends(timeout_of)]


async def cancel_with_client(request: Request) -> AsyncIterator[None]:
    """Cancel an endpoint when its client closes the connection: a dependency with the scope ``function``.

    Without it, the endpoint runs to its end. With it, the manager tells the server that nobody waits for the call any
    more. Leave it out where a call that is broken off does more harm than one whose result is lost. It also answers the
    client of an endpoint that uvicorn cancels because the service stops.
    """
    endpoint = asyncio.current_task()
    assert endpoint is not None

    async def watch() -> None:
        # The body was read before; so what comes is the end of the connection.
        while (await request.receive())["type"] != "http.disconnect":
            pass
        endpoint.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # What is raised instead becomes an answer; a cancellation would be logged as a fault of the service.
        endpoint.uncancel()
        if watcher.done():
            raise HTTPException(499, "The client has closed the connection") from None
        # By uvicorn, at the end of its --timeout-graceful-shutdown.
        raise DeadlineExceededError("The service stops") from None
    finally:
        watcher.cancel()
