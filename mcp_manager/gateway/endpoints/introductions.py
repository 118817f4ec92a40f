"""What servers have said about themselves when a session with them began."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from mcp_manager.errors import McpManagerError, ServerNotFoundError
from mcp_manager.manager import McpManager
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.runtime.background import background_task, bare_context
from mcp_manager.types import ServerState

__all__ = ["Introductions"]

_AT_ONCE: Final = 64


class Introductions:
    """Look up what servers have said about themselves, and wait a little for those that are not connected yet.

    Parameters
    ----------
    manager
        The fleet.
    """

    def __init__(self, manager: McpManager) -> None:
        self._manager = manager
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def known(self, server_id: str) -> ServerIdentity | None:
        """Return what a server said in its newest session; ``None`` if it has none, or is not deployed."""
        try:
            return self._manager.server(server_id).identity
        except ServerNotFoundError:
            return None

    async def of(self, server_ids: Iterable[str], wait_s: float) -> dict[str, ServerIdentity | None]:
        """Return what servers have said about themselves, by server id.

        Parameters
        ----------
        server_ids
            The servers.
        wait_s
            Seconds to wait for those that are being connected, or were never used. Connecting goes on after that.
        """
        found = {server_id: self.known(server_id) for server_id in server_ids}
        asked = {server_id: self._ask(server_id) for server_id, each in found.items() if each is None}
        waiting = {task for task in asked.values() if task is not None}
        if waiting:
            await asyncio.wait(waiting, timeout=wait_s)
        for server_id in asked:
            found[server_id] = self.known(server_id)
        return found

    async def aclose(self) -> None:
        """Wait for no server any longer."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ask(self, server_id: str) -> asyncio.Task[None] | None:
        """Return the task that connects a server; ``None`` if the manager has tried already, and goes on by itself."""
        task = self._asking.get(server_id)
        if task is None:
            try:
                if self._manager.server_state(server_id) is not ServerState.INITIALIZING:
                    return None
            except McpManagerError:
                return None
            task = background_task(
                self._connect(server_id), "connect a server for the gateway", among=self._tasks, context=bare_context()
            )
            self._asking[server_id] = task
            task.add_done_callback(lambda _: self._asking.pop(server_id, None))
        return task

    async def _connect(self, server_id: str) -> None:
        async with self._slots:
            try:
                # The first call of a lazy server makes its session.
                await self._manager.ping(server_id)
            except McpManagerError:
                # The manager tells of it.
                return
