"""Applies a configuration file whenever it changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from mcp_manager.config import ManagerConfig
from mcp_manager.config.arguments import as_path
from mcp_manager.config.load import FleetFile, load_fleet_file
from mcp_manager.errors import ConfigError, McpManagerError, NotRunningError
from mcp_manager.fleet.applying import Applied
from mcp_manager.fleet.fleet import collector_paused
from mcp_manager.runtime.background import background_task, bare_context
from mcp_manager.runtime.forks import tell_of_forks
from mcp_manager.runtime.phase import Phase, not_running
from mcp_manager.runtime.signals import SignalHandler, hangup_signal
from mcp_manager.runtime.threads import in_thread
from mcp_manager.serialization import Serializable

__all__ = ["FileWatch", "WatchedFile"]

_log = logging.getLogger(__name__)

_THREAD: Final = "mcp-manager file"
# For how long a file must not change before it is read: it may be written in several steps.
_SETTLED_S: Final = 0.25
# For how long a file must be missing before that is a problem: it may be about to be replaced.
_MISSING_S: Final = 0.5
# A file that changes all the time is read after so many looks; if it changes while it is read, it is read again.
_MOST_LOOKS: Final = 40


class WatchedFile(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The file that a manager follows; see :meth:`McpManager.watch`.

    Parameters
    ----------
    path
        The file.
    applied
        What the last configuration that could be read has changed.
    problem
        Why the present content was not applied; ``""`` if it was.
    """

    path: str
    applied: Applied
    problem: str = ""


class _Look(NamedTuple):
    """What changes with the content of a file. Links are followed, so another target is a change, too."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class FileWatch:
    """Follow one configuration file.

    The file is looked at in regular intervals. That notices what notifications of the kernel miss: network file
    systems, the exchange of a link to a directory above the file, and what happens once the limits of inotify are
    reached. It takes a few microseconds a second, in a thread that ends with each look.

    Parameters
    ----------
    apply
        ``apply(config, invalid)`` applies a configuration without the servers ``invalid``, which stay as they are.

    Attributes
    ----------
    state
        The file and what became of it, ``None`` while none is followed; works on any thread.
    accept
        ``await accept(file)`` takes what else is in the file, before its servers are applied. If it raises
        :class:`McpManagerError`, the file is not applied.
    """

    def __init__(self, apply: Callable[[ManagerConfig, Collection[str]], Coroutine[Any, Any, Applied]]) -> None:
        self._apply = apply
        self._task: asyncio.Task[None] | None = None
        self._applying: asyncio.Task[Applied] | None = None
        self._handler: SignalHandler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = asyncio.Event()
        self._path = ""
        self._settings: ManagerConfig | None = None
        self._is_over = False
        self.state: WatchedFile | None = None
        self.accept: Callable[[FleetFile], Awaitable[None]] | None = None

    async def begin(
        self, path: str | os.PathLike[str], interval_s: float, *, lenient: bool = False, sighup: bool = False
    ) -> Applied:
        """Apply a file and follow it from now on, in place of any other; see :meth:`McpManager.watch`."""
        self._loop = asyncio.get_running_loop()
        path = _absolute(path)
        handler = SignalHandler(hangup_signal(), self.look_soon) if sighup else None
        if handler is not None:
            tell_of_forks(self)
        try:
            read = partial(_read, path, lenient)
            for _ in range(_MOST_LOOKS):
                before, file, after = await in_thread(read, _THREAD)
                if before == after:
                    break
                await asyncio.sleep(_SETTLED_S)
            if self.accept is not None:
                await self.accept(file)
            applied = await self._apply(file.config, file.left_out)
            while self._task is not None:
                has_applied = self._applying is not None
                await self._end()
                if has_applied:
                    # The watch before has applied its own file after this one.
                    applied = await self._apply(file.config, file.left_out)
            if self._is_over:
                raise not_running(Phase.STOPPING)
        except BaseException:
            if handler is not None:
                handler.close()
            raise
        self._handler = handler
        self._settings = _without_servers(file.config)
        self._path = path
        self.state = WatchedFile(path=self._path, applied=applied)
        self._task = background_task(
            self._run(partial(_look_at, path), read, interval_s, before), "watch a file", context=bare_context()
        )
        return applied

    def look_soon(self) -> None:
        """Read the file again now, even if it has not changed; works on any thread and in handlers of signals."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._asked.set)

    async def end(self) -> None:
        """Follow the file no longer; idempotent."""
        await self._end()

    async def aclose(self) -> None:
        """End for good."""
        self._is_over = True
        await self._end()

    def _disown(self) -> None:
        """Handle signals as before, in the child process of a fork."""
        if self._handler is not None:
            self._handler.close()

    async def _end(self) -> None:
        task, self._task = self._task, None
        handler, self._handler = self._handler, None
        self.state = None
        if handler is not None:
            handler.close()
        if task is None:
            return
        try:
            if self._applying is not None and not self._is_over:
                # What has begun is finished.
                await asyncio.wait({self._applying})
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _run(
        self,
        look: Callable[[], _Look | None],
        read: Callable[[], tuple[_Look | None, FleetFile, _Look | None]],
        interval_s: float,
        seen: _Look | None,
    ) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._asked.wait()
            is_asked = self._asked.is_set()
            self._asked.clear()
            try:
                now = await in_thread(look, _THREAD)
                if now == seen and not is_asked:
                    continue
                if now != seen:
                    seen = now = await self._settled(look, now, interval_s)
                seen = await self._follow(look, read, now)
            except NotRunningError:
                return
            except Exception as error:
                # Whatever happens with one state of the file, the next one is followed.
                _log.exception("the configuration file %s could not be applied", self._path)
                self._tell(f"{type(error).__name__}: {error}")

    async def _settled(self, look: Callable[[], _Look | None], now: _Look | None, interval_s: float) -> _Look | None:
        """Wait until the file does not change any more."""
        for _ in range(_MOST_LOOKS):
            await asyncio.sleep(_MISSING_S if now is None else min(interval_s, _SETTLED_S))
            before, now = now, await in_thread(look, _THREAD)
            if now == before:
                break
        return now

    async def _follow(
        self,
        look: Callable[[], _Look | None],
        read: Callable[[], tuple[_Look | None, FleetFile, _Look | None]],
        now: _Look | None,
    ) -> _Look | None:
        """Apply the file; return the state of the file that this was about."""
        try:
            before, file, after = await in_thread(read, _THREAD)
        except ConfigError as error:
            if await in_thread(look, _THREAD) == now:
                self._warn(str(error))
            return now
        if before != after:
            # The next look finds it changed.
            return before
        try:
            if self.accept is not None:
                await self.accept(file)
            applied = await self._applied(file)
        except NotRunningError:
            raise
        except McpManagerError as error:
            self._warn(str(error))
            return before
        settings = _without_servers(file.config)
        if settings != self._settings:
            self._settings = settings
            _log.warning(
                "the settings of the manager have changed in %s: they take effect with the next start", self._path
            )
        if self.state is not None:
            self.state = WatchedFile(path=self._path, applied=applied)
        _log.debug("the configuration file %s was applied", self._path)
        return before

    async def _applied(self, file: FleetFile) -> Applied:
        """Apply a configuration in a task of its own, which :meth:`end` waits for."""
        task = self._applying = background_task(self._apply(file.config, file.left_out), "apply a file")
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            self._applying = None
        return task.result()

    def _warn(self, problem: str) -> None:
        _log.warning("the configuration file %s was not applied, nothing was changed: %s", self._path, problem)
        self._tell(problem)

    def _tell(self, problem: str) -> None:
        if self.state is not None:
            self.state = msgspec.structs.replace(self.state, problem=problem)


def _absolute(path: str | os.PathLike[str]) -> str:
    """Return a path that means the same file when the process goes to another directory."""
    return os.path.abspath(as_path(path))


def _look_at(path: str) -> _Look | None:
    """Look at a file; ``None`` if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return _Look(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(path: str, lenient: bool) -> tuple[_Look | None, FleetFile, _Look | None]:
    """Read a file, and look at it before and after; raises :class:`ConfigError`."""
    before = _look_at(path)
    if before is not None and before.size == 0:
        # More likely an accident than the wish to remove all servers.
        raise ConfigError(
            f"Invalid config file {path}: it is empty",
            hint="to remove all servers, write an empty table: [servers]",
        )
    # Each pass of the collector over many new objects would hold up the loop.
    with collector_paused():
        file = load_fleet_file(path, lenient=lenient)
    return before, file, _look_at(path)


def _without_servers(config: ManagerConfig) -> ManagerConfig:
    return msgspec.structs.replace(config, servers={})
