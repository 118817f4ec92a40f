"""Where the manager of a ``PyMcpManager`` runs: on a thread of its own or on the caller's loop, from start to stop."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Coroutine, Generator, Iterator, Mapping
from os import PathLike
from threading import get_ident
from typing import Any, Final, Self, TypeVar, Unpack

from mcp_manager._core.permanence import make_permanent
from mcp_manager.auth.options import AuthOptions, check_options
from mcp_manager.bindings.blocking_handlers import beside_the_loop
from mcp_manager.bindings.call_queue import CallQueue
from mcp_manager.bindings.caller_deadline import CallerDeadline
from mcp_manager.bindings.fleet_change import FleetChange, begin
from mcp_manager.bindings.loop_thread import LoopThread
from mcp_manager.bindings.progress import ThreadReports
from mcp_manager.config import arguments, load_manager_config
from mcp_manager.config.naming import is_url
from mcp_manager.config.sources import ManagerSource, manager_config_of
from mcp_manager.errors import ConfigError, NotRunningError
from mcp_manager.events.feed import OnStateChange
from mcp_manager.fleet import Applied
from mcp_manager.manager import ManagerOptions, McpManager
from mcp_manager.protocol.trace_context import TraceContext
from mcp_manager.runtime.background import background_task
from mcp_manager.runtime.forks import tell_of_forks
from mcp_manager.runtime.phase import Phase, Unique, not_running, running_loop, shown_manager, warn_of_unstopped
from mcp_manager.runtime.signals import SignalHandler, hangup_signal
from mcp_manager.session.handlers import HandlerMap, Handlers, as_handlers

__all__ = ["ManagerRunner"]

T = TypeVar("T")

_SIGNAL_CHECK_S: Final = 0.5
# Added to the time that the manager's own shutdown may take.
_EXIT_S: Final = 2.0


class _Stopping:
    """What ``stop()`` returns: await it to wait for the end; it gives no warning if it is never awaited."""

    __slots__ = ("_future", "_thread")

    def __init__(
        self,
        future: concurrent.futures.Future[None] | asyncio.Future[None] | None,
        thread: LoopThread | None = None,
    ) -> None:
        self._future = future
        self._thread = thread

    def __await__(self) -> Generator[Any, None, None]:
        future = self._future
        if future is None:
            return
        if isinstance(future, concurrent.futures.Future):
            future = asyncio.wrap_future(future)
        yield from asyncio.shield(future).__await__()
        if self._thread is not None:
            # The thread has nothing left to run: it ends within microseconds.
            self._thread.join()


class ManagerRunner(Unique):
    """Run one :class:`McpManager`, and the work of other threads and loops on its loop.

    See :class:`~mcp_manager.PyMcpManager` for the parameters.
    """

    def __init__(
        self,
        config_path: ManagerSource | None = None,
        *,
        handlers: Handlers | HandlerMap | None = None,
        capabilities: Mapping[str, Any] | None = None,
        shared_capabilities: Mapping[str, Any] | None = None,
        trace_context: TraceContext | None = None,
        on_state_change: OnStateChange | None = None,
        **authorization: Unpack[AuthOptions],
    ) -> None:
        check_options(authorization, type(self))
        if not isinstance(handlers, Handlers):
            as_handlers(handlers, "handlers")
        self._handlers = beside_the_loop(handlers)
        self._capabilities = arguments.as_settings(capabilities, "capabilities")
        self._shared_capabilities = shared_capabilities
        self._trace_context = arguments.as_callback(trace_context, "trace_context")
        self._on_state_change = arguments.as_callback(on_state_change, "on_state_change")
        self._authorization = authorization
        self._config_path: str | PathLike[str] | None = None
        if isinstance(config_path, PathLike) or (isinstance(config_path, str) and not is_url(config_path.strip())):
            self._config_path = config_path
        self._config = manager_config_of(config_path)
        # Reentrant: a signal may interrupt this thread while it holds the lock, and its handler may stop the manager.
        self._lock = threading.RLock()
        self._manager: McpManager | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: CallQueue | None = None
        self._serving: asyncio.Task[None] | None = None
        self._thread: LoopThread | None = None
        self._stopped = False
        self._hangups: SignalHandler | None = None
        # The thread of the caller's loop that the manager runs on; 0 if it has a thread of its own.
        self._home = 0
        self._is_inherited = False
        tell_of_forks(self)

    @classmethod
    def from_file(cls, path: str | PathLike[str], *, lenient: bool = False, **options: Unpack[ManagerOptions]) -> Self:
        """Make a manager from a configuration file; see :meth:`McpManager.from_file`."""
        manager = cls(load_manager_config(arguments.as_path(path), lenient=lenient), **options)
        manager._config_path = path
        return manager

    def _make_manager(self) -> McpManager:
        return McpManager(
            self._config,
            handlers=self._handlers,
            capabilities=self._capabilities,
            shared_capabilities=self._shared_capabilities,
            trace_context=self._trace_context,
            on_state_change=self._on_state_change,
            **self._authorization,
        )

    def __repr__(self) -> str:
        manager = self._manager
        if manager is None:
            return shown_manager(type(self), Phase.STOPPED if self._stopped else Phase.NEW, len(self._config.servers))
        return repr(manager).replace(type(manager).__name__, type(self).__name__, 1)

    def __del__(self) -> None:
        # __init__() may have failed before it was set.
        manager = getattr(self, "_manager", None)
        if manager is None or not self._is_up or not manager.is_running:
            return
        try:
            warn_of_unstopped(self, "call stop(), or use it in a with block")
        finally:
            self._end_unwatched(manager)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await self.start_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Lifecycle

    def start(self) -> None:
        """Start the manager on a thread of its own and deploy the configured servers. A second call does nothing.

        Servers that cannot be reached are retried until they answer. In a coroutine, ``await start_async()`` instead:
        this method holds the loop that it is called on until the configured servers are connected.

        Raises
        ------
        NotRunningError
            The manager was stopped before, or runs on an event loop.
        """
        with self._lock:
            if self._is_up and self._thread is not None:
                return
            self._check_startable()
            # First: if it fails, there is no thread that nobody stops.
            manager = self._make_manager()
            self._thread = LoopThread("mcp-manager")
            self._loop = self._thread.loop
            self._calls = self._thread.calls
            self._manager = manager
        _runners.add(self)
        try:
            self._wait(manager.start())
            # A signal handler or another thread may have stopped it meanwhile.
            self._check_unstopped()
        except BaseException:
            self.stop()
            raise

    async def start_async(self) -> None:
        """Start the manager on the running loop and deploy the configured servers; raises as :meth:`start` does."""
        with self._lock:
            loop = asyncio.get_running_loop()
            if self._is_up and self._loop is loop:
                return
            self._check_startable()
            self._home = get_ident()
            self._loop = loop
            self._calls = CallQueue(loop)
            self._manager = self._make_manager()
        try:
            await self._manager.start()
            self._check_unstopped()
        except BaseException:
            self._stopped = True
            raise
        self._serving = background_task(self._calls.serve(), "serve other threads")

    def stop(self) -> _Stopping:
        """Stop the manager and everything it runs; idempotent.

        It blocks until all has ended, except on a thread whose event loop is running: there it begins the shutdown and
        returns, and ``await manager.stop()`` waits for the end.
        """
        with self._lock:
            manager, loop, thread = self._manager, self._loop, self._thread
            if self._is_inherited:
                return _Stopping(None)
            self._stopped = True
        self._end_signals()
        _runners.discard(self)
        if manager is None or loop is None or loop.is_closed():
            return _Stopping(None)
        running = running_loop()
        if thread is None:
            if running is loop:
                return _Stopping(background_task(self._end(manager), "stop the manager", among=_shutdowns))
            if not loop.is_running():
                loop.run_until_complete(self._end(manager))
                return _Stopping(None)
            future = asyncio.run_coroutine_threadsafe(self._end(manager), loop)
        else:
            future = thread.finish(manager.stop)
        if running is None:
            _result_of(future)
            if thread is not None:
                thread.join()
            return _Stopping(None)
        return _Stopping(future, thread)

    def _stop_at_exit(self) -> None:
        """Stop the manager at exit, but do not wait for a blocked loop: the interpreter must be able to exit."""
        manager, thread = self._manager, self._thread
        if manager is None or thread is None or self._is_inherited:
            return
        self._stopped = True
        with contextlib.suppress(TimeoutError):
            thread.finish(manager.stop).result(self._config.shutdown_timeout_s + _EXIT_S)
            thread.join()

    async def stop_async(self) -> None:
        """Stop the manager and wait for its end."""
        await self.stop()

    def _end_unwatched(self, manager: McpManager) -> None:
        """Begin the shutdown and leave it to the loop: the garbage collector may call this on any thread."""
        loop = self._loop
        self._stopped = True
        self._end_signals()
        if self._thread is not None:
            self._thread.finish(manager.stop)
        elif loop is not None and loop.is_running():
            asyncio.run_coroutine_threadsafe(self._end(manager), loop)

    async def _end(self, manager: McpManager) -> None:
        """Stop a manager that runs on this loop, and then its queue of calls from other threads."""
        try:
            await manager.stop()
        finally:
            if self._calls is not None and self._serving is not None:
                self._calls.close()
                self._serving.cancel()
                await asyncio.wait({self._serving})

    # The configuration file

    def _begin_watch(
        self, path: str | PathLike[str] | None, *, lenient: bool, interval_s: float, sighup: bool
    ) -> Coroutine[Any, Any, Applied]:
        """Return the work that begins to follow a file."""
        manager, path = self._running(), self._config_path if path is None else path
        if path is None:
            raise ConfigError("watch() needs a path", hint="or create the manager with config_path")
        # On its own thread, which cannot handle signals, this class does so.
        return manager.watch(
            path, lenient=lenient, interval_s=interval_s, sighup=sighup if self._thread is None else False
        )

    @contextlib.contextmanager
    def _handling_hangups(self, sighup: bool) -> Iterator[None]:
        """Handle SIGHUP from now on for a manager on its own thread; as before, if the block fails."""
        handler = None
        if arguments.as_flag(sighup, "sighup") and self._thread is not None:
            handler = SignalHandler(hangup_signal(), self._running()._file_watch.look_soon)
        try:
            yield
        except BaseException:
            if handler is not None:
                handler.close()
            raise
        self._end_signals()
        self._hangups = handler

    def _end_signals(self) -> None:
        if self._hangups is not None:
            self._hangups.close()
            self._hangups = None

    # Threads and loops

    def _disown(self) -> None:
        """Leave everything to the parent process after a fork; a manager that was not started remains usable here."""
        self._lock = threading.RLock()
        if self._manager is None or self._loop is None or self._loop.is_closed():
            return
        self._is_inherited, self._home = True, 0
        self._end_signals()
        _runners.discard(self)
        if self._thread is not None:
            self._thread._disown()
        elif self._calls is not None:
            self._calls._disown()
        # Destroying it would end what the parent still uses.
        make_permanent(self)

    @property
    def _is_up(self) -> bool:
        return self._manager is not None and not self._stopped and not self._is_inherited

    def _check_unstopped(self) -> None:
        if self._stopped:
            raise NotRunningError("Failed to start manager: it was stopped", hint="create a new PyMcpManager")

    def _check_startable(self) -> None:
        if self._is_inherited:
            raise not_running(Phase.INHERITED, subject="Failed to start manager: it")
        self._check_unstopped()
        if self._manager is not None:
            raise NotRunningError(
                "Failed to start manager: it already runs "
                + ("on an event loop" if self._thread is None else "on its thread")
            )

    def _for_reading(self) -> McpManager:
        """Return the manager to read from; before the start, one with no server deployed."""
        if self._is_inherited:
            raise not_running(Phase.INHERITED)
        manager = self._manager
        return manager if manager is not None else self._make_manager()

    def _running(self) -> McpManager:
        manager = self._manager
        if self._is_inherited:
            raise not_running(Phase.INHERITED)
        if manager is None or self._stopped:
            raise NotRunningError(
                "The manager is stopped" if self._stopped else "The manager is not started",
                hint="create a new one"
                if self._stopped
                else "use it in a with block, or call start() or await start_async()",
            )
        return manager

    def _is_on_loop(self) -> bool:
        """Tell whether this is the loop that the manager runs on."""
        return running_loop() is self._loop is not None

    def _wait(
        self,
        work: Coroutine[Any, Any, T],
        deadline: CallerDeadline | None = None,
        twin: str = "the _async method",
        reports: ThreadReports | None = None,
    ) -> T:
        """Run work on the manager's loop and block this thread until it is done; Ctrl-C cancels the work.

        ``twin`` is what to await on the manager's own loop instead.
        """
        loop, calls = self._loop, self._calls
        assert loop is not None and calls is not None
        if running_loop() is loop:
            work.close()
            raise NotRunningError(
                "A sync call on the manager's own event loop would block it for ever", hint=f"await {twin} instead"
            )
        if not loop.is_running():
            work.close()
            raise _loop_over()
        return calls.run(work, deadline, reports)

    def _change(self, work: Coroutine[Any, Any, None], server_id: object) -> FleetChange:
        """Make a change: on the manager's loop begin it, and elsewhere block this thread until it is done."""
        if self._is_on_loop():
            return begin(work, server_id)
        self._wait(work)
        return FleetChange()

    def _read(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work that only reads, and can therefore run on any loop, and block this thread until it is done."""
        loop = self._loop
        if self._is_up and loop is not None and loop.is_running() and not self._is_on_loop():
            return self._wait(work)
        if running_loop() is None:
            return asyncio.run(work)
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, work).result()

    def _await(self, work: Coroutine[Any, Any, T], deadline: CallerDeadline | None = None) -> Coroutine[Any, Any, T]:
        """Return an awaitable for work on the manager's loop; if that is the running loop, the work itself."""
        loop = self._loop
        if asyncio.get_running_loop() is loop:
            return work
        calls = self._calls
        assert loop is not None and calls is not None
        if not loop.is_running():
            work.close()
            raise _loop_over()
        if self._thread is None:
            work.close()
            raise NotRunningError(
                "The manager belongs to another event loop", hint="start it with start() to call it from any loop"
            )
        return calls.run_async(work, deadline)


def _result_of(future: concurrent.futures.Future[T]) -> T:
    """Wait for a future so that Ctrl-C always gets through.

    The wait is cut into short ones, since a signal that arrives just before a wait for a lock begins does not end that
    wait.
    """
    while True:
        try:
            return future.result(_SIGNAL_CHECK_S)
        except TimeoutError:
            if future.done():
                return future.result()


def _loop_over() -> NotRunningError:
    return NotRunningError("The event loop the manager was started on is not running", hint="create a new manager")


# If stop() is not awaited, nobody else keeps these tasks alive.
_shutdowns: set[asyncio.Task[Any]] = set()

_runners: weakref.WeakSet[ManagerRunner] = weakref.WeakSet()


def _stop_all() -> None:
    for runner in list(_runners):
        runner._stop_at_exit()


atexit.register(_stop_all)
