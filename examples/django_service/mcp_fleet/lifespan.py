"""The life of the fleet under an ASGI server, which tells applications when it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp_fleet import process

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def with_fleet(application: Application) -> Application:
    """Return the application with a fleet that is up before the first request, and stopped after the last.

    Django itself does not speak the lifespan protocol. An ASGI server may end without running exit handlers.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        await receive()
        try:
            await asyncio.to_thread(process.manager)
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(process.stop)
        await send({"type": "lifespan.shutdown.complete"})

    return serve
