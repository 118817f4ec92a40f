"""Waiting for servers: until one is ready, or its calls under way have ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from mcp_manager.errors import CallError
from mcp_manager.events.records import ServerStateChanged, ServerUndeployed
from mcp_manager.manager import McpManager

__all__ = ["idle", "in_flight", "ready"]

_LOOK_EVERY_S: Final = 0.1
_FIRST_LOOK_S: Final = 0.02
_LAST_LOOK_S: Final = 0.5
# A snapshot of a large fleet takes its time: looking must not take more than this part of it.
_SHARE: Final = 20


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


def in_flight(manager: McpManager, server_id: str) -> int:
    """Return how many calls of a server are under way; 0 if it is gone."""
    return next((each.inflight for each in manager.snapshot().servers if each.id == server_id), 0)


async def idle(manager: McpManager, server_id: str, timeout_s: float) -> bool:
    """Wait until no calls of a server are under way; return whether they have ended."""
    began = time.monotonic()
    look_s = _FIRST_LOOK_S
    while True:
        before = time.monotonic()
        if not in_flight(manager, server_id):
            return True
        now = time.monotonic()
        left_s = timeout_s - (now - began)
        if left_s <= 0:
            return False
        look_s = min(max(2 * look_s, _SHARE * (now - before)), max(_LAST_LOOK_S, _SHARE * (now - before)))
        await asyncio.sleep(min(look_s, left_s))
