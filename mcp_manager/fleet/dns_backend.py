"""The sockets of DNS lookups, which must not leak when a lookup is cancelled."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import dns.asyncbackend

from mcp_manager.runtime.background import background_task, to_its_end

__all__ = ["ClosingBackend"]


# dnspython does not mark the name as exported.
class ClosingBackend(dns.asyncbackend.Backend):  # type: ignore[misc,name-defined]
    """Open sockets as dnspython's asyncio backend does, and close a socket if its opening is cancelled.

    uvloop 0.23 would leave it open until the loop ends: unlike asyncio's, its ``create_datagram_endpoint`` does not
    close the transport when it is cancelled.
    """

    def __init__(self) -> None:
        self._asyncio: Any = dns.asyncbackend.get_backend("asyncio")

    def name(self) -> str:
        """Return the name of the asynchronous library, ``asyncio``."""
        name: str = self._asyncio.name()
        return name

    async def make_socket(self, af: int, socktype: int, *others: Any, **named: Any) -> Any:
        """Open a socket; see :meth:`dns.asyncbackend.Backend.make_socket`."""
        opening = self._asyncio.make_socket(af, socktype, *others, **named)
        if socktype != socket.SOCK_DGRAM:
            # Opening a TCP socket may take long, and closes it by itself when it is cancelled.
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
