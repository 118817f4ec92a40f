"""Waiting for servers: until one is ready, or its calls under way have ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from mcp_manager.errors import CallError
from mcp_manager.events.records import ServerStateChanged, ServerUndeployed
from mcp_manager.fleet.idle import server_idle
from mcp_manager.manager import McpManager

__all__ = ["idle", "ready"]

_LOOK_EVERY_S: Final = 0.1


async def ready(manager: McpManager, server_id: str, timeout_s: float) -> bool:
    """Wait until all instances of a server have a session; return whether they have.

    One of a lazy server is enough, and it is connected. A server that is suspended is never ready.

    Parameters
    ----------
    manager
        The fleet.
    server_id
        The server; :class:`ServerNotFoundError` is raised once it is gone.
    timeout_s
        Seconds to wait.
    """
    until = time.monotonic() + timeout_s
    has_asked = False
    with manager.events(server_id=server_id, kinds=(ServerStateChanged, ServerUndeployed)) as changes:
        while True:
            view = manager.server(server_id)
            is_lazy = manager.server_config(server_id).connect == "lazy"
            left_s = until - time.monotonic()
            is_ready = 0 < view.desired and view.ready >= (1 if is_lazy else view.desired)
            if is_ready or left_s <= 0:
                return is_ready
            if is_lazy and not has_asked:
                has_asked = True
                with contextlib.suppress(CallError):
                    await manager.ping(server_id, timeout=left_s)
                continue
            with contextlib.suppress(TimeoutError, StopAsyncIteration):
                # The second session of a server may change no state.
                async with asyncio.timeout(min(left_s, _LOOK_EVERY_S)):
                    await anext(changes)


async def idle(manager: McpManager, server_id: str, timeout_s: float) -> bool:
    """Wait until no calls of a server are under way; return whether they have ended, or it is gone."""
    supervisor = manager._servers.get(server_id)
    if supervisor is None:
        return True
    try:
        async with asyncio.timeout(timeout_s):
            await server_idle(supervisor)
    except TimeoutError:
        return not supervisor.record.inflight
    return True
