"""``PyMcpManager``: makes :class:`McpManager` usable from threads and other loops, without logic of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from os import PathLike
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar, Unpack

from mcp_manager.auth.caller import Caller
from mcp_manager.bindings.caller_deadline import CallerDeadline
from mcp_manager.bindings.runner import ManagerRunner
from mcp_manager.calls.for_caller import ForCaller
from mcp_manager.config import ManagerConfig, arguments, load_manager_config
from mcp_manager.events.child_output import StderrLines
from mcp_manager.events.stream import EventStream
from mcp_manager.fleet import Applied, WatchedFile
from mcp_manager.fleet.fleet import ServerSpec
from mcp_manager.fleet.rollout import Shift, Strategy
from mcp_manager.fleet.verification import ToolCheck
from mcp_manager.manager import McpManager
from mcp_manager.observe.observation import Kinds
from mcp_manager.types import PyHealthStatus, PyServerInfo, Selector

if TYPE_CHECKING:
    from mcp_manager.observe.metrics import Source
    from mcp_manager.observe.scraping import Exposition, ExpositionStream
    from mcp_manager.observe.snapshot import FleetSnapshot

__all__ = ["PyMcpManager"]

T = TypeVar("T")


class PyMcpManager(ManagerRunner):
    """Manage a fleet of MCP servers from plain threads or from asyncio.

    Started with :meth:`start`, the manager runs on a thread of its own and may be called from any thread or loop.
    Started with :meth:`start_async`, it runs on the caller's loop: await its ``_async`` methods there, and call its
    blocking methods from other threads. Use it in a ``with`` or ``async with`` block, or call :meth:`stop`.

    Methods that only read work on any thread and loop, also before the start and after the end:
    :meth:`get_server_state`, :meth:`get_health_status`, :meth:`list_servers`, :meth:`snapshot`,
    :meth:`export_prometheus_metrics`.

    Parameters
    ----------
    config_path
        A ``.toml`` or ``.json`` file with settings of the manager, and servers to deploy at the start; ``None`` for the
        defaults and no servers.
    token_store, redirect_handler, credentials
        See :class:`~mcp_manager.McpManager`; what is asynchronous is awaited on the manager's loop.
    on_state_change
        See :class:`~mcp_manager.McpManager`. It is called on the thread of the manager's loop, so it must not block:
        while it runs, every call waits.

    Raises
    ------
    ConfigError
        The file is missing or invalid.

    Example
    -------
    ::

        with PyMcpManager() as manager:
            manager.deploy_server("search", {"url": "https://search.example.com/mcp"})
            response = manager.execute("search", '{"method": "tools/list"}', timeout=10)
    """

    def deploy_server(self, server_id: str, config_json: ServerSpec) -> None:
        """Deploy a server: validate its configuration, register it, connect and probe it once.

        This takes at most ``connect_timeout_s``. A server that cannot be reached is not an error; see
        :meth:`McpManager.deploy`.

        Parameters
        ----------
        server_id
            The only key of the server, 1 to 256 characters without control characters.
        config_json
            The configuration as JSON text, a mapping of the same shape, or a :class:`ServerConfig`.

        Raises
        ------
        ConfigError
            The id or the configuration is invalid; a ``ValueError``.
        ServerExistsError
            The id is in use; a ``ValueError``.
        NotRunningError
            The manager is not started or was stopped; a ``RuntimeError``.
        """
        self._wait(self._running().deploy(server_id, config_json))

    async def deploy_server_async(self, server_id: str, config_json: ServerSpec) -> None:
        """Deploy a server; see :meth:`deploy_server`."""
        await self._await(self._running().deploy(server_id, config_json))

    def undeploy_server(self, server_id: str) -> None:
        """Remove a server; its calls under way get ``shutdown_grace_s`` to finish.

        Raises
        ------
        ServerNotFoundError
            No such server; a ``ValueError``.
        """
        self._wait(self._running().undeploy(server_id))

    async def undeploy_server_async(self, server_id: str) -> None:
        """Remove a server; see :meth:`undeploy_server`."""
        await self._await(self._running().undeploy(server_id))

    def redeploy_server(
        self,
        server_id: str,
        config_json: ServerSpec,
        *,
        strategy: Strategy = "blue_green",
        verify_tools: ToolCheck = "off",
        **shift: Unpack[Shift],
    ) -> None:
        """Replace a server's configuration without interrupting its service; see :meth:`McpManager.redeploy`."""
        self._wait(
            self._running().redeploy(server_id, config_json, strategy=strategy, verify_tools=verify_tools, **shift)
        )

    async def redeploy_server_async(
        self,
        server_id: str,
        config_json: ServerSpec,
        *,
        strategy: Strategy = "blue_green",
        verify_tools: ToolCheck = "off",
        **shift: Unpack[Shift],
    ) -> None:
        """Replace a server's configuration without interrupting its service; see :meth:`McpManager.redeploy`."""
        await self._await(
            self._running().redeploy(server_id, config_json, strategy=strategy, verify_tools=verify_tools, **shift)
        )

    def apply(self, config: ManagerConfig | str | PathLike[str]) -> Applied:
        """Make the fleet match a configuration or a file; see :meth:`McpManager.apply`."""
        return self._wait(self._running().apply(_config_of(config)))

    async def apply_async(self, config: ManagerConfig | str | PathLike[str]) -> Applied:
        """Make the fleet match a configuration or a file; see :meth:`McpManager.apply`."""
        return await self._await(self._running().apply(_config_of(config)))

    def watch(
        self,
        path: str | PathLike[str] | None = None,
        *,
        lenient: bool = False,
        interval_s: float = 1.0,
        sighup: bool = False,
    ) -> Applied:
        """Apply a configuration file now and whenever it changes, until :meth:`unwatch` or :meth:`stop`.

        Parameters
        ----------
        path
            The file; by default, the one that the manager was created with.
        lenient, interval_s, sighup
            See :meth:`McpManager.watch`. With ``sighup``, call this method on the main thread.

        Returns
        -------
        What the file has changed.

        Raises
        ------
        ConfigError
            The file or an argument is invalid; nothing was changed.
        """
        with self._handling_hangups(sighup):
            return self._wait(self._begin_watch(path, lenient=lenient, interval_s=interval_s, sighup=sighup))

    async def watch_async(
        self,
        path: str | PathLike[str] | None = None,
        *,
        lenient: bool = False,
        interval_s: float = 1.0,
        sighup: bool = False,
    ) -> Applied:
        """Apply a configuration file now and whenever it changes; see :meth:`watch`."""
        with self._handling_hangups(sighup):
            return await self._await(self._begin_watch(path, lenient=lenient, interval_s=interval_s, sighup=sighup))

    def unwatch(self) -> None:
        """End :meth:`watch`; the fleet stays as it is."""
        self._wait(self._running().unwatch())
        self._end_signals()

    async def unwatch_async(self) -> None:
        """End :meth:`watch`; the fleet stays as it is."""
        await self._await(self._running().unwatch())
        self._end_signals()

    @property
    def watched(self) -> WatchedFile | None:
        """The file that :meth:`watch` follows and what became of it; ``None`` without one. Works on any thread."""
        return self._for_reading().watched

    def execute(
        self,
        server_id: str | Selector,
        request_json: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        caller: Caller | None = None,
    ) -> str:
        """Send a JSON-RPC request and return the whole JSON-RPC response as text.

        Parameters
        ----------
        server_id
            The server, or a :class:`Selector` for any server that matches.
        request_json
            ``{"method": …, "params": …?}``; ``jsonrpc`` and ``id`` may be left out. A notification returns ``null``.
        timeout
            Seconds for the whole call; ``request_timeout_s`` of the server by default. It holds even while the
            manager's loop is blocked: this thread then gives up a quarter of a second later.
        key
            Calls with the same key stay together, as ``balancing`` of the server's configuration says.
        caller
            Whom the call is made for; see :meth:`McpManager.for_caller`.

        Returns
        -------
        The response with the caller's ``id``; a JSON-RPC error is a response, too.

        Raises
        ------
        InvalidRequestError, ServerNotFoundError
            The request is invalid, or there is no such server; nothing was sent. Both are a ``ValueError``.
        CallError
            There was no answer; a ``RuntimeError`` whose ``delivery`` says whether the request may have been executed.
        NotRunningError
            The manager is not started, or was stopped before the answer; a ``RuntimeError``.
        """
        manager = self._running()
        deadline = _deadline_of(manager, server_id, timeout)
        calls = manager if caller is None else manager.for_caller(caller)
        return self._wait(_executed(calls, server_id, request_json, key, deadline), deadline)

    async def execute_async(
        self,
        server_id: str | Selector,
        request_json: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        caller: Caller | None = None,
    ) -> str:
        """Send a JSON-RPC request; see :meth:`execute`."""
        manager = self._manager
        if manager is not None and caller is None and get_ident() == self._home and not self._stopped:
            # The path of nearly every call: like _await(), but without looking up the running loop.
            return await manager.execute_text(server_id, request_json, timeout=timeout, key=key)
        manager = self._running()
        deadline = _deadline_of(manager, server_id, timeout)
        calls = manager if caller is None else manager.for_caller(caller)
        return await self._await(_executed(calls, server_id, request_json, key, deadline), deadline)

    def scale_server(self, server_id: str, instances: int) -> None:
        """Set how many instances a server has; see :meth:`McpManager.scale`."""
        self._wait(self._running().scale(server_id, instances))

    async def scale_server_async(self, server_id: str, instances: int) -> None:
        """Set how many instances a server has; see :meth:`McpManager.scale`."""
        await self._await(self._running().scale(server_id, instances))

    # Methods that only read: they work on any thread and loop, also before the start and after the end

    def get_server_state(self, server_id: str) -> str:
        """Return the server's state as one word, such as ``Healthy``.

        Raises
        ------
        ServerNotFoundError
            No such server; a ``ValueError``.
        """
        return self._for_reading().server_state(server_id).value

    async def get_server_state_async(self, server_id: str) -> str:
        """Return the server's state; see :meth:`get_server_state`."""
        return self.get_server_state(server_id)

    def get_health_status(self) -> PyHealthStatus:
        """Return the health of the whole fleet at one instant."""
        return self._for_reading().health()

    async def get_health_status_async(self) -> PyHealthStatus:
        """Return the health of the whole fleet at one instant."""
        return self.get_health_status()

    def list_servers(self) -> list[PyServerInfo]:
        """List every deployed server, in the order of deployment."""
        return self._for_reading()._server_infos()

    async def list_servers_async(self) -> list[PyServerInfo]:
        """List every deployed server, in the order of deployment."""
        return self.list_servers()

    def snapshot(self) -> FleetSnapshot:
        """Return the fleet at one instant as plain data without secrets."""
        return self._for_reading().snapshot()

    async def snapshot_async(self) -> FleetSnapshot:
        """Return the whole fleet at one instant; see :meth:`snapshot`."""
        return self.snapshot()

    def events(self, *, server_id: str | None = None, kinds: Kinds | None = None, buffer: int = 1_000) -> EventStream:
        """Return a stream of events from now on, for ``for`` on any thread and ``async for`` on any loop.

        ``for`` waits for the next event and ends when the manager stops; on the manager's own loop, use ``async for``.
        See :meth:`McpManager.events` for the parameters.

        Raises
        ------
        NotRunningError
            The manager is not started, or was stopped; a ``RuntimeError``.
        """
        return self._running().events(server_id=server_id, kinds=kinds, buffer=buffer)

    def stderr_lines(self, server_id: str, *, follow: bool = False) -> StderrLines:
        """Return the latest lines that a server's programs wrote to stderr; see :meth:`McpManager.stderr_lines`."""
        return self._for_reading().stderr_lines(server_id, follow=follow)

    def export_prometheus_metrics(self) -> str:
        """Return all metrics in the Prometheus text format; see :meth:`McpManager.metrics_text`."""
        return self._for_reading().metrics_text()

    async def export_prometheus_metrics_async(self) -> str:
        """Return all metrics in the Prometheus text format; a thread writes them, so that the loop goes on."""
        return await asyncio.to_thread(self.export_prometheus_metrics)

    get_metrics = export_prometheus_metrics

    async def scrape_async(
        self, accept: str | None = "", *, servers: Iterable[str] | None = None, families: Iterable[str] | None = None
    ) -> Exposition:
        """Return the metrics for whoever scrapes, in the format that an ``Accept`` header field asks for.

        See :meth:`McpManager.scrape`; this works on any loop.
        """
        return await self._for_reading().scrape(accept, servers=servers, families=families)

    async def scrape_stream_async(
        self, accept: str | None = "", *, servers: Iterable[str] | None = None, families: Iterable[str] | None = None
    ) -> ExpositionStream:
        """Return the metrics in pieces, for fleets of any size.

        See :meth:`McpManager.scrape_stream`; this works on any loop.
        """
        return await self._for_reading().scrape_stream(accept, servers=servers, families=families)

    def _metrics_source(self) -> Source:
        return self._for_reading()._metrics_source()


def _config_of(config: ManagerConfig | str | PathLike[str]) -> ManagerConfig:
    return load_manager_config(arguments.as_path(config)) if isinstance(config, str | PathLike) else config


def _deadline_of(manager: McpManager, server_id: str | Selector, timeout: float | None) -> CallerDeadline | None:
    """Return when a caller gives up; ``None`` if the server, and so its timeout, is still to be chosen."""
    timeout_s = manager._request_timeout_s(server_id) if timeout is None else arguments.as_seconds(timeout, "timeout")
    if timeout_s is None:
        return None
    return CallerDeadline(timeout_s, server_id if isinstance(server_id, str) else None)


async def _executed(
    calls: McpManager | ForCaller,
    server_id: str | Selector,
    request_json: str,
    key: str | None,
    deadline: CallerDeadline | None,
) -> str:
    """Execute a request in the time that is left when the loop begins it."""
    if deadline is None:
        return await calls.execute_text(server_id, request_json, key=key)
    return await calls.execute_text(server_id, request_json, timeout=deadline.left_s(), key=key)
