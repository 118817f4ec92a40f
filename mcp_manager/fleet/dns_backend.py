"""The sockets of DNS look-ups, none of which is left open."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import dns.asyncbackend

from mcp_manager.runtime.background import background_task, to_its_end

__all__ = ["ClosingBackend"]


# dnspython does not mark the name as exported.
class ClosingBackend(dns.asyncbackend.Backend):  # type: ignore[misc,name-defined]
    """Open sockets as dnspython does on asyncio, and close the one whose opening is cancelled.

    uvloop leaves it open until the loop ends: unlike asyncio's, its ``create_datagram_endpoint`` does not close the
    transport when it is cancelled (0.23).
    """

    def __init__(self) -> None:
        self._asyncio: Any = dns.asyncbackend.get_backend("asyncio")

    def name(self) -> str:
        """Return the name of the asynchronous library."""
        name: str = self._asyncio.name()
        return name

    async def make_socket(self, af: int, socktype: int, *others: Any, **named: Any) -> Any:
        """Open a socket; see :meth:`dns.asyncbackend.Backend.make_socket`."""
        opening = self._asyncio.make_socket(af, socktype, *others, **named)
        if socktype != socket.SOCK_DGRAM:
            # Connecting may take long, and closes what it has opened.
            return await opening
        task = background_task(opening, "open a socket")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await to_its_end(_close(task))
            raise

    def datagram_connection_required(self) -> bool:
        """Tell whether datagram sockets must be connected."""
        is_required: bool = self._asyncio.datagram_connection_required()
        return is_required

    async def sleep(self, interval: float) -> None:
        """Sleep for ``interval`` seconds."""
        await self._asyncio.sleep(interval)


async def _close(opening: asyncio.Task[Any]) -> None:
    await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().close()
