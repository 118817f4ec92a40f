"""``Service``: a gateway as a program, which signals end and reload."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from mcp_manager.config import ServeConfig
from mcp_manager.config.gateway_tables import check_serve_with_servers
from mcp_manager.config.load import FleetFile, load_fleet_file
from mcp_manager.errors import McpManagerError
from mcp_manager.fleet.capacity import check_instances
from mcp_manager.gateway.gateway import Gateway
from mcp_manager.gateway.serve_changes import FOLLOWED
from mcp_manager.gateway.systemd import Systemd
from mcp_manager.gateway.workers.worker import Worker
from mcp_manager.runtime.background import background_task, read_failure
from mcp_manager.runtime.threads import in_thread

__all__ = ["Service"]

_log = logging.getLogger(__name__)


_SUCCESS: Final = 0
_FAILURE: Final = 1
_THREAD: Final = "mcp-manager file"
_ENDINGS: Final = ("SIGTERM", "SIGINT")
_RELOAD: Final = "SIGHUP"
# Most calls end sooner, and nobody need be told of them.
_TOLD_AFTER_S: Final = 0.5


class Service:
    """Run a gateway until a signal ends it.

    SIGTERM and SIGINT end it: it accepts no new connections, and calls under way may take ``drain_timeout_s``. A second
    one ends it at once. SIGHUP reads the file again, and applies what has changed; a file that is wrong changes nothing.

    Parameters
    ----------
    gateway
        The gateway, which is not started yet.
    path
        Its file; ``None`` if it has none.
    told
        What the file says of the gateway, without what the command line has changed.
    watch
        Whether the file is followed, and applied whenever it changes.
    lenient
        Whether the servers of the file that are wrong are left out.
    stdio
        Whether it serves one client on standard input and output, and listens nowhere.
    worker
        This process as one of several, as the gateway has it; ``None`` if it is the only one.
    """

    def __init__(
        self,
        gateway: Gateway,
        path: str | None = None,
        told: ServeConfig | None = None,
        *,
        watch: bool = False,
        lenient: bool = False,
        stdio: bool = False,
        worker: Worker | None = None,
    ) -> None:
        self._worker = worker
        self._is_on_stdio = stdio
        # The parent of workers tells for all of them, and a client on standard input is not systemd.
        self._systemd = Systemd({} if stdio or worker is not None else None)
        self._gateway = gateway
        self._path = path
        self._told = told or ServeConfig()
        self._watches = watch and path is not None
        self._lenient = lenient
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._has_to_reload = False
        self._tasks: set[asyncio.Task[Any]] = set()
        if gateway.admin is not None and path is not None:
            gateway.admin.read_by(path, self.reload)

    async def run(self, on_ready: Callable[[], None]) -> int:
        """Serve, and return the exit status: 0 if every call had its time to end, otherwise 1.

        Parameters
        ----------
        on_ready
            Called once the gateway serves.

        Raises
        ------
        McpManagerError
            It cannot be started.
        """
        with self._signals():
            try:
                if self._is_on_stdio:
                    await self._gateway.serve_stdio(stop=self._ending)
                    return _SUCCESS
                async with contextlib.AsyncExitStack() as stack:
                    stack.push_async_callback(self._gateway.stop)
                    if await self._until(self._gateway.start(), self._ending):
                        if self._worker is not None:
                            following = self._worker.following(
                                self._gateway.manager, self.reload, lambda: self._gateway.serve.drain_timeout_s
                            )
                            await stack.enter_async_context(following)
                        await self._begin_watch()
                        on_ready()
                        self._systemd.ready(self._status())
                        await self._ending.wait()
                    self._systemd.stopping()
                    return await self._end()
            finally:
                self._systemd.close()
                for task in list(self._tasks):
                    task.cancel()
                if self._tasks:
                    await asyncio.wait(set(self._tasks))

    def end(self) -> None:
        """End in order; called again, at once."""
        if self._ending.is_set():
            self._hurry.set()
        self._ending.set()

    async def reload(self) -> str | None:
        """Read the file again and apply it; return what is wrong with it, ``None`` if it was applied."""
        if self._path is None:
            return None
        problem = await self._reload()
        if self._gateway.admin is not None:
            self._gateway.admin.configurations.problem = problem
        return problem

    async def _reload(self) -> str | None:
        async with self._reloading:
            self._has_to_reload = False
            self._systemd.reloading()
            try:
                file = await self._read()
                await self._take(file)
                applied = await self._gateway.apply(file.config)
            except McpManagerError as error:
                return str(error)
            finally:
                self._systemd.reloaded(self._status())
        _log.info("%s: applied: %s", self._path, applied)
        return None

    def _status(self) -> str:
        count = len(self._gateway.manager.servers())
        return f"serving {count} server{'' if count == 1 else 's'} at {self._gateway.url}"

    async def _take(self, file: FleetFile) -> None:
        """Let the gateway follow its file, and tell what it cannot follow; raises :class:`ConfigError`, or takes all."""
        now, before = file.serve or ServeConfig(), self._told
        # First, because it may be refused: what can be wrong with servers, and then what the gateway needs.
        check_serve_with_servers(now, file.config.servers)
        for server_id, config in file.config.servers.items():
            check_instances(server_id, config, config.instances)
        await self._gateway.replace_serve(now)
        self._gateway.replace_views(file.views)
        changed = [
            name
            for name in now.__struct_fields__
            if name not in FOLLOWED and getattr(now, name) != getattr(before, name)
        ]
        if changed:
            _log.warning("restart the gateway to apply the changes in serve: %s", ", ".join(changed))

    async def _end(self) -> int:
        """Let calls end; return the exit status."""
        telling = asyncio.get_running_loop().call_later(_TOLD_AFTER_S, self._tell_of_calls)
        drained = background_task(self._gateway.drain(), "drain the gateway", among=self._tasks)
        try:
            has_ended = await self._until(drained, self._hurry) and drained.result()
        finally:
            telling.cancel()
        if has_ended or not self._gateway.under_way:
            return _SUCCESS
        _log.warning("the calls that were still running were cancelled")
        return _FAILURE

    def _tell_of_calls(self) -> None:
        if self._gateway.under_way:
            _log.warning(
                "requests still running: %d; the gateway waits up to %g s for them; a second signal ends it at once",
                self._gateway.under_way,
                self._gateway.serve.drain_timeout_s,
            )

    async def _until(self, work: Any, event: asyncio.Event) -> bool:
        """Await work until an event; return whether the work ended first, raise what it raised, else cancel it."""
        task = work if isinstance(work, asyncio.Task) else background_task(work, "start the gateway", among=self._tasks)
        waiting = background_task(event.wait(), "wait for a signal", among=self._tasks)
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
        finally:
            waiting.cancel()
            task.cancel()
            await asyncio.wait({task, waiting})
            read_failure(task)
        return False

    async def _begin_watch(self) -> None:
        if self._watches and self._path is not None:
            manager = self._gateway.manager
            manager._file_watch.accept = self._accept
            await manager.watch(self._path, lenient=self._lenient)

    async def _accept(self, file: FleetFile) -> None:
        """Take what a file that is watched says of the gateway, before its servers are applied."""
        async with self._reloading:
            await self._take(file)

    async def _read(self) -> FleetFile:
        assert self._path is not None
        return await in_thread(partial(load_fleet_file, self._path, lenient=self._lenient), _THREAD)

    def _hang_up(self) -> None:
        if self._has_to_reload:
            # One that has not begun reads what is there then.
            return
        self._has_to_reload = True
        background_task(self._told_reload(), "read the configuration again", among=self._tasks)

    async def _told_reload(self) -> None:
        problem = await self.reload()
        if problem is not None:
            _log.error("the configuration was not applied: %s", problem)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Take the signals, where that is possible: on the main thread."""
        loop, taken = asyncio.get_running_loop(), []
        wanted: list[tuple[str, Callable[[], None]]] = [(name, self.end) for name in _ENDINGS]
        if self._path is not None:
            wanted.append((_RELOAD, self._hang_up))
        is_main = threading.current_thread() is threading.main_thread()
        for name, called in wanted if is_main else ():
            number = getattr(signal, name, None)
            if number is not None:
                with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                    loop.add_signal_handler(number, called)
                    taken.append(number)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)
