"""The lifespan that all sessions of a server object share on a loop: it begins with the first and ends with the last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from mcp_manager.runtime.background import background_task, read_failure, resolve

__all__ = ["shared_lifespan"]

Enter = Callable[[], AbstractAsyncContextManager[object]]


class _Lifespan:
    """A lifespan in a task of its own, because the session that began it may end before the others.

    Parameters
    ----------
    server
        The object, which must not be collected meanwhile: it is known by its id.
    enter
        Makes what is entered.
    """

    def __init__(self, server: object, enter: Enter) -> None:
        self._server = server
        self._enter = enter
        loop = asyncio.get_running_loop()
        self._began: asyncio.Future[None] = loop.create_future()
        self._left: asyncio.Future[None] = loop.create_future()
        self.users = 0
        self.task: asyncio.Task[None] = background_task(self._run(), "run the lifespan of a server in memory")
        # Every session raises it, and there may be none any more.
        self.task.add_done_callback(read_failure)

    async def begin(self) -> None:
        """Wait until it has begun, and raise what it raises."""
        await asyncio.wait({self._began, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()

    async def end(self) -> None:
        """End it, and raise what it raises; if the caller is cancelled, or it has not begun, it is cancelled."""
        if not self._began.done():
            self.task.cancel()
        resolve(self._left)
        try:
            await asyncio.wait({self.task})
        except asyncio.CancelledError:
            self.task.cancel()
            await asyncio.wait({self.task})
            raise
        if not self.task.cancelled():
            self.task.result()

    async def _run(self) -> None:
        async with self._enter():
            resolve(self._began)
            await self._left


_Key = tuple[int, asyncio.AbstractEventLoop]

_lifespans: dict[_Key, _Lifespan] = {}


@contextlib.asynccontextmanager
async def shared_lifespan(server: Any, enter: Enter) -> AsyncIterator[None]:
    """Hold the lifespan of a server object for one session; raises what it raises.

    Parameters
    ----------
    server
        The object.
    enter
        Makes what is entered, once for all sessions of the object on this loop.
    """
    key = id(server), asyncio.get_running_loop()
    while (lifespan := _lifespans.get(key)) is not None and not lifespan.users:
        # It is ending: what it gave to the others is not usable any more.
        await asyncio.wait({lifespan.task})
    if lifespan is None:
        lifespan = _lifespans[key] = _Lifespan(server, enter)
        lifespan.task.add_done_callback(lambda _: _lifespans.pop(key))
    lifespan.users += 1
    try:
        await lifespan.begin()
        yield
    finally:
        lifespan.users -= 1
        if not lifespan.users:
            await lifespan.end()
