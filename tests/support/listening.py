"""How a server of the tests stops listening without losing a socket that it has just accepted."""

from __future__ import annotations

import asyncio

__all__ = ["stop_listening"]

# A task begins, its transport tells the protocol, and the protocol's own task begins.
_PASSES = 5


async def stop_listening(server: asyncio.Server) -> None:
    """Accept no more, let what was just accepted get its transport and its handler, and close the listener.

    asyncio drops the socket of a connection that was accepted before the listener closed and whose task runs after.
    """
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener.fileno())
    for _ in range(_PASSES):
        await asyncio.sleep(0)
    server.close()
