"""The acts of administrators on single servers: what the manager does for each, once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec

from mcp_manager.config import ServerConfig
from mcp_manager.errors import McpManagerError, RolloutError
from mcp_manager.gateway.admin import waiting
from mcp_manager.gateway.admin.bodies import Replacement
from mcp_manager.manager import McpManager
from mcp_manager.runtime.background import background_task, read_failure

__all__ = ["Acts"]

_log = logging.getLogger(__name__)


class _Turns:
    """Let what changes the same server wait for each other."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def of(self, server_id: str) -> AsyncIterator[None]:
        """Wait for the turn."""
        lock = self._locks.setdefault(server_id, asyncio.Lock())
        self._waiting[server_id] = self._waiting.get(server_id, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[server_id] -= 1
            if not self._waiting[server_id]:
                del self._waiting[server_id], self._locks[server_id]


class Acts:
    """Change servers.

    Each act begins at once. What replaces the configuration of a server, or removes it, waits for what does so already.

    Parameters
    ----------
    manager
        The fleet.
    """

    def __init__(self, manager: McpManager) -> None:
        self._manager = manager
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turns = _Turns()
        # The numbers of instances of those that are suspended.
        self._suspended: dict[str, int] = {}

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def deploy(self, server_id: str, config: ServerConfig) -> asyncio.Task[None]:
        """Deploy a server; return what waits until it was probed once."""
        return await self._begin(self._manager.deploy(server_id, config), f"deploy {server_id}")

    async def undeploy(self, server_id: str, check: Callable[[], None], drain_timeout_s: float | None) -> None:
        """Take a server out of traffic, wait for its calls, and remove it.

        Parameters
        ----------
        server_id
            The server.
        check
            Raises if the server is not the one that is meant; called when it is the turn of this act.
        drain_timeout_s
            Seconds that its calls may take. Default: ``drain_timeout_s`` of its configuration.
        """
        manager, timeout_s = self._manager, drain_timeout_s
        async with self._turns.of(server_id):
            config = manager.server_config(server_id)
            check()
            await manager.set_maintenance(server_id, True)
            await waiting.idle(manager, server_id, config.drain_timeout_s if timeout_s is None else timeout_s)
            # Another configuration may have been applied to the whole fleet meanwhile.
            if self._is_there(server_id, config):
                self._suspended.pop(server_id, None)
                await manager.undeploy(server_id)

    async def update(self, server_id: str, wanted: Callable[[], ServerConfig]) -> bool:
        """Change the configuration of a server; return whether it is in force already.

        Parameters
        ----------
        server_id
            The server.
        wanted
            Returns the configuration, or raises; called when it is the turn of this act.

        Raises
        ------
        RolloutError
            The new configuration does not work: the server keeps the old one.
        """
        async with self._turns.of(server_id):
            applied = await self._manager.update(server_id, wanted())
        if (failure := applied.failed.get(server_id)) is not None:
            hint = "the server keeps the configuration that it has"
            raise RolloutError(failure, server_id=server_id, hint=hint)
        return server_id not in applied.starting

    async def redeploy(self, server_id: str, how: Replacement) -> asyncio.Task[None]:
        """Replace the instances of a server by new ones with the same configuration; return what waits for that."""
        config, desired = self._manager.server_config(server_id), self._manager.server(server_id).desired
        if config.instances != desired:
            # A number that was set by scale() would not stay in force.
            config = msgspec.structs.replace(config, instances=desired)
        work = self._manager.redeploy(server_id, config, **msgspec.structs.asdict(how))
        return await self._begin(work, f"redeploy {server_id}")

    async def scale(self, server_id: str, instances: int) -> asyncio.Task[None]:
        """Set how many instances a server has; return what waits until new ones were probed."""
        self._suspended.pop(server_id, None)
        return await self._begin(self._manager.scale(server_id, instances), f"scale {server_id}")

    async def suspend(self, server_id: str) -> asyncio.Task[None]:
        """End all instances of a server, and remember how many there were."""
        desired = self._manager.server(server_id).desired
        if desired:
            self._suspended[server_id] = desired
        return await self._begin(self._manager.scale(server_id, 0), f"suspend {server_id}")

    async def resume(self, server_id: str) -> asyncio.Task[None]:
        """Let a server that was suspended or drained serve again."""
        await self._manager.set_maintenance(server_id, False)
        remembered = self._suspended.pop(server_id, None)
        desired = self._manager.server(server_id).desired
        config = self._manager.server_config(server_id)
        wanted = desired or remembered or config.instances or 1
        return await self._begin(self._manager.scale(server_id, wanted), f"resume {server_id}")

    async def drain(self, server_id: str, timeout_s: float) -> bool:
        """Take a server out of traffic, and wait for its calls; return whether they have ended."""
        await self._manager.set_maintenance(server_id, True)
        return await waiting.idle(self._manager, server_id, timeout_s)

    async def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begin an act; raises what is wrong with it at once, and logs what fails later and nobody waits for."""
        task = background_task(work, name, among=self._tasks)
        # It takes effect, or is refused, before it first waits.
        await asyncio.sleep(0)
        if task.done():
            task.result()
        else:
            task.add_done_callback(_tell_failure)
        return task

    def _is_there(self, server_id: str, config: ServerConfig) -> bool:
        try:
            return self._manager.server_config(server_id) is config
        except McpManagerError:
            return False


def _tell_failure(task: asyncio.Task[Any]) -> None:
    read_failure(task)
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.warning(
            "a change by an administrator failed: %s: %s", task.get_name(), error, extra={"event": "act_failed"}
        )
