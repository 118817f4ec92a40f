"""An orderly end of listening for test servers, which loses no socket that was just accepted."""

from __future__ import annotations

import asyncio

__all__ = ["stop_listening"]

# Event-loop iterations in which an accepted connection gets its task, its transport and its protocol's task.
_PASSES = 5


async def stop_listening(server: asyncio.Server) -> None:
    """Stop accepting, let connections that were just accepted get their transport and handler, and close the listener.

    asyncio loses the socket of a connection that is accepted before the listener closes and whose task runs afterwards.
    """
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener.fileno())
    for _ in range(_PASSES):
        await asyncio.sleep(0)
    server.close()
