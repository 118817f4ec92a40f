"""Waiting until no call of a server is in flight."""

from __future__ import annotations

import asyncio
from typing import Final

from mcp_manager.servers.idle import backend_idle
from mcp_manager.servers.supervisor import Supervisor

__all__ = ["server_idle"]

_LOOK_AGAIN_S: Final = 0.02


async def server_idle(supervisor: Supervisor) -> None:
    """Wait until no call of a server is in flight, those of instances that drain or are gone included."""
    record = supervisor.record
    while record.inflight:
        backends = [backend for each in supervisor.instances if (backend := each.backend) is not None]
        busy = [each for each in backends if each.inflight]
        if busy:
            await asyncio.gather(*map(backend_idle, busy))
        else:
            # Nothing tells of the calls of instances that are no longer in traffic.
            await asyncio.sleep(_LOOK_AGAIN_S)
