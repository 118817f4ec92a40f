"""Waiting until no call of an instance is in flight."""

from __future__ import annotations

import asyncio

from mcp_manager._core.records import Backend
from mcp_manager.runtime.background import resolve

__all__ = ["backend_idle"]


class _OnIdle:
    """Tells all who wait for the end of the last call of a backend, once: later calls do not pay for it."""

    __slots__ = ("_backend", "told")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.told = asyncio.get_running_loop().create_future()

    def __call__(self) -> None:
        self._backend.on_idle = None
        resolve(self.told)


async def backend_idle(backend: Backend) -> None:
    """Wait until no call of a backend is in flight."""
    while backend.inflight:
        on_idle = backend.on_idle
        if not isinstance(on_idle, _OnIdle):
            on_idle = backend.on_idle = _OnIdle(backend)
        # Not awaited directly: a caller that gives up would cancel it for the others.
        await asyncio.wait({on_idle.told})
