"""``PyMcpManager``: makes :class:`McpManager` usable from threads and other loops, without logic of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from os import PathLike
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar, Unpack

from mcp_manager.auth.caller import Caller
from mcp_manager.bindings.caller_deadline import CallerDeadline
from mcp_manager.bindings.fleet_change import FleetChange
from mcp_manager.bindings.mirror import deadline_of
from mcp_manager.bindings.mirrors import ForCallerMirror, McpManagerMirror
from mcp_manager.bindings.runner import ManagerRunner
from mcp_manager.calls.for_caller import ForCaller, check_caller
from mcp_manager.config.fields.server import ServerFields
from mcp_manager.config.sources import FleetSource, fleet_config_of
from mcp_manager.config.spec import ServerSpec
from mcp_manager.events.stream import EventStream
from mcp_manager.fleet import Applied
from mcp_manager.fleet.rollout import RedeployFields, Strategy
from mcp_manager.fleet.verification import ToolCheck
from mcp_manager.manager import McpManager
from mcp_manager.observe.observation import Kinds
from mcp_manager.runtime.phase import Unique
from mcp_manager.types import PyHealthStatus, PyServerInfo, Selector

if TYPE_CHECKING:
    from mcp_manager.observe.metrics import Source
    from mcp_manager.observe.scraping import TextFormat

__all__ = ["PyForCaller", "PyMcpManager"]

T = TypeVar("T")


class PyForCaller(Unique, ForCallerMirror):
    """Make calls for one caller from any thread and loop; see :meth:`PyMcpManager.for_caller` and :class:`ForCaller`.

    Parameters
    ----------
    manager
        The manager whose servers are called.
    caller
        Whom the calls are made for.

    Raises
    ------
    InvalidRequestError
        It is no :class:`Caller`.
    """

    def __init__(self, manager: PyMcpManager, caller: Caller) -> None:
        self._manager = manager
        self.caller: Caller = check_caller(caller)

    def __repr__(self) -> str:
        return f"<PyForCaller {self.caller!r}>"

    def _mirrored(self) -> tuple[ManagerRunner, ForCaller]:
        return self._manager, self._manager._running().for_caller(self.caller)

    def _mirrored_for_reading(self) -> tuple[ManagerRunner, ForCaller]:
        return self._manager, self._manager._for_reading().for_caller(self.caller)

    def execute(
        self, server_id: str | Selector, request_json: str, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send a JSON-RPC request and return the response as text; see :meth:`PyMcpManager.execute`."""
        return self._manager.execute(server_id, request_json, timeout=timeout, key=key, caller=self.caller)

    async def execute_async(
        self, server_id: str | Selector, request_json: str, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send a JSON-RPC request and return the response as text; see :meth:`PyMcpManager.execute`."""
        return await self._manager.execute_async(server_id, request_json, timeout=timeout, key=key, caller=self.caller)


class PyMcpManager(ManagerRunner, McpManagerMirror):
    """Manage a fleet of MCP servers from plain threads or from asyncio.

    It has every method of :class:`McpManager`, with the same parameters: one that blocks, such as ``call_tool``, and a
    twin to be awaited, such as ``call_tool_async``.

    Started with :meth:`start`, the manager runs on a thread of its own and may be called from any thread or loop.
    Started with :meth:`start_async`, it runs on the caller's loop: await its ``_async`` methods there, and call its
    blocking methods from other threads. Use it in a ``with`` or ``async with`` block, or call :meth:`stop`.

    On the manager's own loop, methods that change the fleet, such as :meth:`deploy_server`, work without ``await``, too:
    the change has taken effect when they return, and the :class:`FleetChange` that they return may be awaited for its
    end. Methods that only read, such as :meth:`list_servers`, :meth:`health` or :meth:`snapshot`, work on any thread and
    loop, also before the start and after the end.

    Parameters
    ----------
    config_path
        A configuration file with settings of the manager, and servers to deploy at the start; or anything else that
        :class:`~mcp_manager.McpManager` can be made from: a :class:`ManagerConfig`, a mapping, a URL, a server object
        of the packages ``mcp`` or ``fastmcp``, which runs on the manager's loop. ``None`` for the defaults and no
        servers.
    handlers
        See :class:`~mcp_manager.McpManager`. Plain functions that answer requests of servers run in threads of their
        own and may block; coroutine functions, and whatever takes notifications, run on the manager's loop.
    capabilities, shared_capabilities
        See :class:`~mcp_manager.McpManager`.
    trace_context
        See :class:`~mcp_manager.McpManager`. It is called on the thread of the manager's loop, in the context of the
        caller, so it must not block.
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

    def _mirrored(self) -> tuple[ManagerRunner, McpManager]:
        return self, self._running()

    def _mirrored_for_reading(self) -> tuple[ManagerRunner, McpManager]:
        return self, self._for_reading()

    def deploy_server(
        self, server_id: str, config_json: ServerSpec | None = None, **fields: Unpack[ServerFields]
    ) -> FleetChange:
        """Deploy a server: the same as :meth:`deploy`.

        This takes at most ``connect_timeout_s``. A server that cannot be reached is not an error. On the manager's own
        loop, the server is deployed when this method returns, and the result may be awaited for the connection.

        Parameters
        ----------
        server_id
            The only key of the server, 1 to 256 characters without control characters.
        config_json
            The configuration as JSON text, a mapping of the same shape, a :class:`ServerConfig`, a URL, or anything
            else that :meth:`McpManager.deploy` takes.
        fields
            Fields of :class:`ServerConfig`, which replace those of ``config_json``: ``url="https://…/mcp"``.

        Raises
        ------
        ConfigError
            The id or the configuration is invalid; a ``ValueError``.
        ServerExistsError
            The id is in use; a ``ValueError``.
        NotRunningError
            The manager is not started or was stopped; a ``RuntimeError``.
        """
        return self.deploy(server_id, config_json, **fields)

    async def deploy_server_async(
        self, server_id: str, config_json: ServerSpec | None = None, **fields: Unpack[ServerFields]
    ) -> None:
        """Deploy a server: the same as :meth:`deploy_async`; see :meth:`deploy_server`."""
        await self.deploy_async(server_id, config_json, **fields)

    def undeploy_server(self, server_id: str) -> FleetChange:
        """Remove a server: the same as :meth:`undeploy`. Its calls under way get ``shutdown_grace_s`` to finish.

        Raises
        ------
        ServerNotFoundError
            No such server; a ``ValueError``.
        """
        return self.undeploy(server_id)

    async def undeploy_server_async(self, server_id: str) -> None:
        """Remove a server: the same as :meth:`undeploy_async`."""
        await self.undeploy_async(server_id)

    def redeploy_server(
        self,
        server_id: str,
        config_json: ServerSpec | None = None,
        *,
        strategy: Strategy = "blue_green",
        verify_tools: ToolCheck = "off",
        **fields: Unpack[RedeployFields],
    ) -> FleetChange:
        """Replace a server's configuration without interrupting its service: the same as :meth:`redeploy`."""
        return self.redeploy(server_id, config_json, strategy=strategy, verify_tools=verify_tools, **fields)

    async def redeploy_server_async(
        self,
        server_id: str,
        config_json: ServerSpec | None = None,
        *,
        strategy: Strategy = "blue_green",
        verify_tools: ToolCheck = "off",
        **fields: Unpack[RedeployFields],
    ) -> None:
        """Replace a server's configuration without interrupting its service: the same as :meth:`redeploy_async`."""
        await self.redeploy_async(server_id, config_json, strategy=strategy, verify_tools=verify_tools, **fields)

    def scale_server(self, server_id: str, instances: int) -> FleetChange:
        """Set how many instances a server has: the same as :meth:`scale`."""
        return self.scale(server_id, instances)

    async def scale_server_async(self, server_id: str, instances: int) -> None:
        """Set how many instances a server has: the same as :meth:`scale_async`."""
        await self.scale_async(server_id, instances)

    def for_caller(self, caller: Caller) -> PyForCaller:
        """Return what makes calls for a caller, on sessions of its own and with its credentials.

        It has the same calls as this class, also from any thread and loop; see :meth:`McpManager.for_caller`.

        Raises
        ------
        InvalidRequestError
            It is no :class:`Caller`.
        """
        return PyForCaller(self, caller)

    async def for_caller_async(self, caller: Caller) -> PyForCaller:
        """Return what makes calls for a caller; see :meth:`for_caller`."""
        return self.for_caller(caller)

    def apply(self, config: FleetSource) -> Applied:
        """Make the fleet match a configuration, a mapping or a file; see :meth:`McpManager.apply`."""
        return self._wait(self._running().apply(fleet_config_of(config)), twin="apply_async")

    async def apply_async(self, config: FleetSource) -> Applied:
        """Make the fleet match a configuration, a mapping or a file; see :meth:`McpManager.apply`."""
        return await self._await(self._running().apply(fleet_config_of(config)))

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
            return self._wait(
                self._begin_watch(path, lenient=lenient, interval_s=interval_s, sighup=sighup), twin="watch_async"
            )

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
        self._wait(self._running().unwatch(), twin="unwatch_async")
        self._end_signals()

    async def unwatch_async(self) -> None:
        """End :meth:`watch`; the fleet stays as it is."""
        await self._await(self._running().unwatch())
        self._end_signals()

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
        deadline = deadline_of(manager, server_id, timeout)
        calls = manager if caller is None else manager.for_caller(caller)
        return self._wait(_executed(calls, server_id, request_json, key, deadline), deadline, "execute_async")

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
        deadline = deadline_of(manager, server_id, timeout)
        calls = manager if caller is None else manager.for_caller(caller)
        return await self._await(_executed(calls, server_id, request_json, key, deadline), deadline)

    # Methods that only read: they work on any thread and loop, also before the start and after the end

    def get_server_state(self, server_id: str) -> str:
        """Return the server's state as one word, such as ``Healthy``: the text of :meth:`server_state`.

        Raises
        ------
        ServerNotFoundError
            No such server; a ``ValueError``.
        """
        return self.server_state(server_id).value

    async def get_server_state_async(self, server_id: str) -> str:
        """Return the server's state; see :meth:`get_server_state`."""
        return self.get_server_state(server_id)

    def get_health_status(self) -> PyHealthStatus:
        """Return the health of the whole fleet at one instant: the same as :meth:`health`."""
        return self.health()

    async def get_health_status_async(self) -> PyHealthStatus:
        """Return the health of the whole fleet at one instant: the same as :meth:`health_async`."""
        return self.health()

    def list_servers(self) -> list[PyServerInfo]:
        """List every deployed server, in the order of deployment; :meth:`servers` tells more of each."""
        return self._for_reading()._server_infos()

    async def list_servers_async(self) -> list[PyServerInfo]:
        """List every deployed server, in the order of deployment."""
        return self.list_servers()

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

    async def events_async(
        self, *, server_id: str | None = None, kinds: Kinds | None = None, buffer: int = 1_000
    ) -> EventStream:
        """Return a stream of events from now on; see :meth:`events`."""
        return self.events(server_id=server_id, kinds=kinds, buffer=buffer)

    async def metrics_text_async(
        self,
        *,
        format: TextFormat = "text",
        servers: Iterable[str] | None = None,
        families: Iterable[str] | None = None,
    ) -> str:
        """Return all metrics as text; a thread writes them, so that the loop goes on. See :meth:`metrics_text`."""
        return await asyncio.to_thread(self.metrics_text, format=format, servers=servers, families=families)

    def export_prometheus_metrics(self) -> str:
        """Return all metrics in the Prometheus text format: the same as :meth:`metrics_text`."""
        return self.metrics_text()

    async def export_prometheus_metrics_async(self) -> str:
        """Return all metrics in the Prometheus text format: the same as :meth:`metrics_text_async`."""
        return await self.metrics_text_async()

    get_metrics = export_prometheus_metrics

    def _metrics_source(self) -> Source:
        return self._for_reading()._metrics_source()


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
