"""``Worker``: what a worker process does besides serving: it follows the orders of its parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from mcp_manager.config import ManagerConfig
from mcp_manager.errors import McpManagerError
from mcp_manager.gateway.workers.assignment import Assignment
from mcp_manager.gateway.workers.lifeline import Lifeline
from mcp_manager.gateway.workers.listeners import BACKLOG
from mcp_manager.gateway.workers.ownership import divided, is_elsewhere
from mcp_manager.gateway.workers.siblings import Siblings
from mcp_manager.manager import McpManager
from mcp_manager.runtime.background import background_task

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

_CONNECTED_AT_ONCE: Final = 16
# For what comes after the last call, once the parent is gone.
_AFTER_DRAIN_S: Final = 10.0

Reload = Callable[[], Awaitable[str | None]]
"""``await reload()`` reads the configuration again, and returns what is wrong with it; ``None`` if it was applied."""


class Worker:
    """This process, as one of several that serve an address.

    Parameters
    ----------
    assignment
        What it is.
    parent
        The socket to the parent.
    """

    def __init__(self, assignment: Assignment, parent: socket.socket) -> None:
        self.assignment: Assignment = assignment
        self.siblings: Siblings = Siblings(assignment)
        self.elsewhere: frozenset[str] = frozenset()
        """The ids of the servers whose programs siblings run."""
        self._parent = parent
        listener, self._sibling_listener = assignment.sockets()
        self.listener: socket.socket = listener
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def divided(self, config: ManagerConfig) -> ManagerConfig:
        """Return this worker's part of the fleet: see :func:`~mcp_manager.gateway.workers.ownership.divided`."""
        servers = config.servers.items()
        self.elsewhere = frozenset(each for each, server in servers if is_elsewhere(each, server, self.assignment))
        return divided(config, self.assignment)

    async def listen_to_siblings(self, protocols: Callable[[], asyncio.BaseProtocol]) -> None:
        """Accept what siblings pass on.

        They are accepted until the end, also while calls under way finish: they may need this worker for theirs.
        """
        self._server = await asyncio.get_running_loop().create_server(protocols, sock=self._sibling_listener)
        # The event loop has shortened the queue, in which calls wait if this worker dies.
        self._sibling_listener.listen(BACKLOG)

    async def aclose(self) -> None:
        """Accept nothing more of siblings, and end the connections to them. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._sibling_listener.close()
        await self.siblings.aclose()

    @contextlib.asynccontextmanager
    async def following(
        self, manager: McpManager, reload: Reload, drain_timeout_s: Callable[[], float]
    ) -> AsyncIterator[None]:
        """Tell the parent that this worker serves, and follow its orders; enter it when the gateway serves.

        Parameters
        ----------
        manager
            The fleet.
        reload
            Reads the configuration again.
        drain_timeout_s
            Returns the seconds that calls may take once the service ends, or the parent is gone.
        """

        async def follow() -> None:
            problem = await self._problem_of(reload)
            lifeline.grace_s = drain_timeout_s() + _AFTER_DRAIN_S
            lifeline.say({"is": "reloaded", "problem": problem, "drain_timeout_s": drain_timeout_s()})

        def take(order: str) -> None:
            if order == "reload":
                background_task(follow(), "reload the configuration", among=self._tasks)
            elif order == "together":
                background_task(self.connect(manager), "connect to siblings", among=self._tasks)

        grace_s = drain_timeout_s() + _AFTER_DRAIN_S
        with Lifeline(self._parent, self.assignment.directory, take, grace_s) as lifeline:
            lifeline.say({"is": "ready"})
            try:
                yield
            finally:
                while self._tasks:
                    for task in list(self._tasks):
                        task.cancel()
                    await asyncio.wait(set(self._tasks))

    async def _problem_of(self, reload: Reload) -> str | None:
        try:
            return await reload()
        except McpManagerError as error:
            return str(error)
        except Exception as error:
            _log.exception("the configuration was not applied")
            return type(error).__name__

    async def connect(self, manager: McpManager) -> None:
        """Connect to the programs that siblings run: before, they may not have served yet."""
        slots = asyncio.Semaphore(_CONNECTED_AT_ONCE)

        async def one(server_id: str) -> None:
            async with slots:
                try:
                    await manager.ping(server_id)
                except McpManagerError as error:
                    _log.info("the sibling that runs %s is not reached yet: %s", server_id, error)

        await asyncio.gather(*map(one, self.elsewhere))
