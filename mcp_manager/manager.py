"""``McpManager``, the manager for asyncio: it connects the parts of the package and does no I/O of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextvars import copy_context
from os import PathLike
from secrets import token_hex
from threading import get_ident
from typing import Any, Final, Self, TypeVar, Unpack

from mcp_manager._core.jsonrpc import ERROR, FrameError, Message, scan
from mcp_manager.auth.options import AuthOptions, check_options
from mcp_manager.calls.affinity import Affinity
from mcp_manager.calls.call import ANYWHERE, Call, Where
from mcp_manager.calls.call_log import CallLog
from mcp_manager.calls.exchanges import Exchanges
from mcp_manager.calls.routing import Routing
from mcp_manager.config import arguments, load_manager_config
from mcp_manager.config.sources import ManagerSource, manager_config_of
from mcp_manager.errors import RpcError
from mcp_manager.events.feed import EventFeed, OnStateChange
from mcp_manager.fleet.applying import Applying
from mcp_manager.fleet.assembly import Assembly, client_identities
from mcp_manager.fleet.file_watch import FileWatch
from mcp_manager.fleet.fleet import Fleet, end_all
from mcp_manager.fleet.management import FleetManagement
from mcp_manager.health import HealthMonitor
from mcp_manager.observe.observation import Observation
from mcp_manager.observe.views import Judge
from mcp_manager.protocol.capabilities import elicitation_modes
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.protocol.methods import ELICIT, ELICITATION_COMPLETE, TOOLS_CHANGED, is_notification
from mcp_manager.protocol.request import (
    Operation,
    encode_method,
    encode_params,
    encode_text,
    invalid_request,
)
from mcp_manager.protocol.safety import tool_of
from mcp_manager.protocol.trace_context import TraceContext
from mcp_manager.runtime.background import background_task, finish
from mcp_manager.runtime.forks import tell_of_forks
from mcp_manager.runtime.phase import Lifetime, Phase, not_running
from mcp_manager.servers.core_settings import router_of
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import ProgressCallback
from mcp_manager.session.handlers import HandlerMap, Handlers, Roots, as_handlers
from mcp_manager.session.host import HostApplication
from mcp_manager.telemetry import open_telemetry
from mcp_manager.transports.base import Request
from mcp_manager.types import Selector
from mcp_manager.verbs.client_side import ClientSide
from mcp_manager.verbs.deployed_servers import DeployedServers
from mcp_manager.verbs.fleet_tools import FleetTools
from mcp_manager.verbs.tool_cache import ToolCache
from mcp_manager.verbs.url_elicitation import UrlElicitations

__all__ = ["ManagerOptions", "McpManager"]

T = TypeVar("T")

_CLOCK: Final = time.monotonic_ns


class ManagerOptions(AuthOptions, total=False):
    """The parameters of :class:`McpManager` beside its configuration."""

    handlers: Handlers | HandlerMap | None
    capabilities: Mapping[str, Any] | None
    shared_capabilities: Mapping[str, Any] | None
    trace_context: TraceContext | None
    on_state_change: OnStateChange | None


class McpManager(Lifetime, DeployedServers, ClientSide, FleetManagement, FleetTools, Observation, Exchanges):
    """Manage a fleet of MCP servers on the running event loop.

    Methods that only read work on any thread and loop: ``health``, ``server_state``, ``server``, ``servers``,
    ``server_config``, ``metrics_text``, ``snapshot``, ``flight_records``. All others must be called on the loop that :meth:`start` ran on,
    and raise :class:`NotRunningError` elsewhere. Use the manager in an ``async with`` block, or call :meth:`start` and
    :meth:`stop`.

    Parameters
    ----------
    config
        What says which servers :meth:`start` deploys, and the settings of the manager; ``None`` for the defaults and no
        servers. One of:

        - a :class:`ManagerConfig`, or a :class:`ServerConfig` with a name
        - the path of a configuration file; see also :meth:`from_file`
        - a mapping as such a file has it, ours or a client's: ``{"servers": {…}}``, ``{"mcpServers": {…}}``; or servers
          by id alone
        - a URL: its host, with the port if it has one, is the id of the server
        - a server object of the packages ``mcp`` or ``fastmcp``, which runs in this process; its name is the id
        - a list of these
    handlers
        A :class:`Handlers`, or a mapping from method names to functions that are called as ``handler(server_id,
        params)``. They answer the requests of servers and receive their notifications; the client capabilities follow
        from them.
    capabilities
        Further client capabilities, which override those that follow from ``handlers``: ``{"sampling": {"tools":
        {}}}``.
    shared_capabilities
        For gateways: the client capabilities that programs and servers in memory are told, whose session all callers
        share. HTTP servers are then told ``capabilities`` alone, or those of the :class:`Caller`: none follow from
        ``handlers``.
    trace_context
        Called for every request; returns the trace context to send along (``traceparent``, …), in ``_meta`` and header
        fields.
    token_store, redirect_handler
        ``token_store`` keeps OAuth tokens. ``redirect_handler`` takes a user to an authorization URL and returns the
        URL that the user was redirected to.
    on_state_change
        Called on the manager's loop with every :class:`ServerStateChanged`; may be a coroutine function.
    credentials
        By server id: called for a bearer token, or for header fields by name, before the first request and after a 401.

    Raises
    ------
    ConfigError
        An argument is invalid.

    Example
    -------
    ::

        async with McpManager() as manager:
            await manager.deploy("search", url="https://search.example.com/mcp", tags=["web"])
            result = await manager.call_tool("search", "query", {"text": "mcp"}, timeout=10)
            print(result.text)
    """

    def __init__(
        self,
        config: ManagerSource | None = None,
        *,
        handlers: Handlers | HandlerMap | None = None,
        capabilities: Mapping[str, Any] | None = None,
        shared_capabilities: Mapping[str, Any] | None = None,
        trace_context: TraceContext | None = None,
        on_state_change: OnStateChange | None = None,
        **authorization: Unpack[AuthOptions],
    ) -> None:
        super().__init__()
        check_options(authorization, type(self))
        self._config = manager_config_of(config)
        capabilities = arguments.as_settings(capabilities, "capabilities")
        self._roots: Roots | None = None
        if isinstance(handlers, Handlers):
            capabilities = {**handlers.capabilities(), **capabilities}
            self._roots = handlers.root_list()
            handlers = handlers.by_method(self._roots)
        handlers = as_handlers(handlers, "handlers")
        listeners = {**handlers, TOOLS_CHANGED: self._tools_changed, ELICITATION_COMPLETE: self._elicitation_complete}
        self._on_tools_changed = handlers.get(TOOLS_CHANGED)
        self._on_elicitation_complete = handlers.get(ELICITATION_COMPLETE)
        identity, shared_identity = client_identities(self._config, handlers, capabilities, shared_capabilities)
        is_asked_by_url = "url" in elicitation_modes(identity.capabilities)
        self._url_elicitations = UrlElicitations(handlers.get(ELICIT) if is_asked_by_url else None, _CLOCK)
        self._tools = ToolCache(self._list_tools, self._stamp, _CLOCK, self._config.list_timeout_s)
        self._events = EventFeed(arguments.as_callback(on_state_change, "on_state_change"))
        self._telemetry = open_telemetry(self._config.telemetry, arguments.as_callback(trace_context, "trace_context"))
        host = HostApplication(
            identity=identity,
            shared_identity=shared_identity,
            handlers=listeners,
            clock=_CLOCK,
            handler_timeout_s=self._config.handler_timeout_s,
            listened=frozenset(handlers),
            trace_context=self._telemetry.session_context,
            began=self._tools.began,
            # The context in which the manager was made: a server's own requests and notifications belong to no call.
            context=copy_context(),
            events=self._events,
        )
        self._assembly = Assembly(self._config, host, **authorization)
        self._http = self._assembly.http
        self._lag = host.lag
        self._is_loop_running: Callable[[], bool] = bool
        self._router = router_of(self._config)
        self._monitor = HealthMonitor(self._router, _CLOCK, concurrency=self._config.probe_concurrency)
        self._affinity = Affinity(self._router)
        self._call_log = CallLog(self._config.flight_records, self._router, _CLOCK, time.time)
        self._dispatcher = self._telemetry.dispatcher_type(
            self._router,
            self._monitor,
            _CLOCK,
            self._call_log,
            self._affinity,
            lambda: self._servers.values(),
            config=self._config,
        )
        self._fleet = Fleet(self._assembly, self._router, self._monitor, self._removed, self._ended, _CLOCK)
        self._applying = Applying(self._fleet)
        self._file_watch = FileWatch(self._applying.apply)
        self._servers = self._fleet.servers
        self._routing = Routing(self._servers, self._fleet.index, self._monitor, self._router, self._tools, _CLOCK)
        self._past_servers: frozenset[str] = frozenset()
        self._stop_asked = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        tell_of_forks(self)

    @classmethod
    def from_file(cls, path: str | PathLike[str], *, lenient: bool = False, **options: Unpack[ManagerOptions]) -> Self:
        """Make a manager from a configuration file, our own or that of an MCP client.

        Parameters
        ----------
        path
            The file; see :func:`load_manager_config`.
        lenient
            Leave out the servers that are wrong, with a warning for each problem, instead of raising an error.
        options
            The other parameters of the class.

        Raises
        ------
        ConfigError
            The file cannot be read or something in it is wrong; ``problems`` lists everything.
        """
        return cls(load_manager_config(arguments.as_path(path), lenient=lenient), **options)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Lifecycle

    async def start(self) -> None:
        """Start on the running loop and deploy the configured servers. A second call on the same loop does nothing.

        It waits for servers for at most ``connect_timeout_s``; those that cannot be reached are retried until they
        answer.

        Raises
        ------
        NotRunningError
            The manager was stopped before, or runs on another loop.
        """
        loop = asyncio.get_running_loop()
        if self._phase is Phase.RUNNING and self._loop is loop:
            return
        if self._phase is not Phase.NEW:
            raise not_running(self._phase, subject="Failed to start manager: it")
        self._loop = loop
        self._phase = Phase.RUNNING
        self._serving_thread = get_ident()
        self._is_loop_running = loop.is_running
        self._owner = background_task(self._own(), "own the manager")
        self._monitor.start()
        self._lag.start()
        try:
            calls = self._dispatcher, self._call_log
            self._telemetry.start(self._router, self._servers, calls, self._monitor.tally, self._lag)
            await self._fleet.deploy_all(self._config.servers)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End every session, child process and task; idempotent.

        Calls under way get ``shutdown_grace_s`` to finish; after ``shutdown_timeout_s``, what is left is ended by
        force.

        Raises
        ------
        NotRunningError
            The manager belongs to another event loop.
        """
        if self._phase is Phase.NEW:
            self._phase = Phase.STOPPED
            await self._events.aclose()
        if self._phase in (Phase.STOPPED, Phase.INHERITED):
            return
        if self._loop is not asyncio.get_running_loop():
            raise not_running(self._phase, "belongs to another event loop")
        assert self._owner is not None
        self._phase = Phase.STOPPING
        self._serving_thread = 0
        self._stop_asked.set()
        try:
            # Waited for, not awaited: if the task is cancelled, that must not cancel the caller.
            await asyncio.wait({self._owner})
            if self._owner.cancelled() and self._phase is Phase.STOPPING:
                # A closing loop cancelled the task before it began.
                self._owner = background_task(self._own(), "own the manager")
                await asyncio.wait({self._owner})
        except asyncio.CancelledError:
            # The caller gives up, but the shutdown must not be left half done: end at once.
            if not self._owner.done():
                if not self._owner.cancelling():
                    self._owner.cancel()
                await asyncio.wait({self._owner})
            raise

    async def _own(self) -> None:
        """Wait until asked to stop, or until the loop cancels its remaining tasks, and then end the manager."""
        hurried = False
        try:
            await self._stop_asked.wait()
        except asyncio.CancelledError:
            hurried = True
        if self._phase is Phase.INHERITED:
            return
        self._phase = Phase.STOPPING
        self._serving_thread = 0
        self._past_servers = frozenset(self._servers)
        supervisors = self._fleet.take_all()
        self._url_elicitations.forget()
        for part in (self._file_watch, self._routing, self._tools, self._monitor, self._dispatcher):
            hurried |= await finish(part.aclose(), "end a part of the manager")
        await end_all(supervisors, 0.0 if hurried else self._config.shutdown_timeout_s)
        await finish(self._http.aclose(), "close the connections")
        await finish(self._events.aclose(), "end the events")
        await finish(self._telemetry.aclose(supervisors), "end the telemetry")
        self._lag.close()
        self._phase = Phase.STOPPED

    # Calls

    def execute_raw(
        self, server_id: str | Selector, request: bytes, *, timeout: float | None = None, key: str | None = None
    ) -> Coroutine[Any, Any, bytes]:
        """Send one JSON-RPC request as bytes and return the whole JSON-RPC response as bytes.

        Parameters
        ----------
        server_id
            The server, or a :class:`Selector` for any server that matches.
        request
            ``{"method": …, "params": …?}``; ``jsonrpc`` and ``id`` may be left out. A notification (``notifications/…``
            without an id) returns ``null``.
        timeout
            Seconds for the whole call; ``request_timeout_s`` of the server by default.
        key
            Calls with the same key stay together, as ``balancing`` of the server's configuration says.

        Returns
        -------
        The response, with the caller's ``id`` if there was one; a JSON-RPC error is a response, too.

        Raises
        ------
        InvalidRequestError
            It is not a JSON-RPC request; nothing was sent.
        ServerNotFoundError
            No such server.
        CallError
            There was no answer; ``delivery`` says whether the request may have been executed.
        """
        return self._execute(server_id, request, timeout, False, key)

    def execute_text(
        self, server_id: str | Selector, request: str, *, timeout: float | None = None, key: str | None = None
    ) -> Coroutine[Any, Any, str]:
        """Send one JSON-RPC request as text and return the whole JSON-RPC response as text; see :meth:`execute_raw`."""
        return self._execute(server_id, request, timeout, True, key)

    async def _execute(
        self, server_id: str | Selector, request: Any, timeout: float | None, as_text: bool, key: str | None
    ) -> Any:
        if get_ident() != self._serving_thread or not self._is_loop_running():
            self._check_running()
        try:
            message = scan(encode_text(request) if as_text else request)
            # A selector is no server's id.
            supervisor = self._servers.get(server_id)  # type: ignore[arg-type]
        except FrameError as error:
            raise invalid_request(error) from None
        except TypeError:
            raise arguments.wrong_call(server_id, request) from None
        if supervisor is None:
            if isinstance(server_id, Selector):
                return await self._routed(
                    server_id,
                    Operation(message.method or "", tool_of(message.params), key),
                    timeout,
                    lambda chosen, left: self._execute(chosen, request, left, as_text, key),
                )
            supervisor = self._supervisor_of(server_id)
        now_ns = _CLOCK()
        deadline_ns = now_ns + (supervisor.request_timeout_ns if timeout is None else arguments.timeout_in_ns(timeout))
        method, id_raw = message.method, message.id_raw
        if method is None:
            raise invalid_request(None)
        if id_raw is None and is_notification(method):
            await self._dispatcher.notify(Call(supervisor, method, message, now_ns, deadline_ns))
            return "null" if as_text else b"null"
        if key is None:
            reply = await self._dispatcher.call(supervisor, method, message, now_ns, deadline_ns)
        else:
            call = Call(supervisor, method, message, now_ns, deadline_ns, where=Where(key=key))
            reply = await self._dispatcher.make(call)
        return reply.take_text(id_raw) if as_text else reply.take_frame(id_raw)

    async def call(
        self,
        server_id: str,
        method: str,
        params: object = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Message:
        """Send a request and return the reply as received: the seam under :meth:`request` and the typed verbs."""
        self._check_running()
        supervisor = self._supervisor_of(server_id)
        outgoing, reports = self._outgoing(method, params, on_progress, supervisor.template)
        now_ns = _CLOCK()
        deadline_ns = now_ns + (supervisor.request_timeout_ns if timeout is None else arguments.timeout_in_ns(timeout))
        reply: Message | None = None
        if key is None and reports is None:
            reply = await self._dispatcher.call(supervisor, method, outgoing, now_ns, deadline_ns)
            if reply.kind != ERROR:
                return reply
        call = Call(supervisor, method, outgoing, now_ns, deadline_ns, reports, Where(key=key))
        return await self._finished(call, supervisor.template, reply)

    async def _routed(
        self,
        selector: Selector,
        operation: Operation,
        timeout: float | None,
        attempt: Callable[[str, float | None], Awaitable[T]],
    ) -> T:
        self._check_running()
        return await self._routing.carry(selector, operation, arguments.check_timeout(timeout), attempt)

    async def _page(
        self, server_id: str, method: str, params: object, place: object | None, timeout: float | None
    ) -> tuple[Message, object]:
        self._check_running()
        supervisor = self._supervisor_of(server_id)
        instances = supervisor.instances
        if place is not None and place not in [(each, each.generation) for each in instances]:
            raise RpcError(INVALID_PARAMS, "the session that has the rest of the list is gone", server_id=server_id)
        if len(instances) == 1:
            # With one instance, the compiled path can take the call.
            reply = await self.call(server_id, method, params, timeout=timeout)
            return reply, (instances[0], instances[0].generation)
        where = Where(place[0].backend) if isinstance(place, tuple) else ANYWHERE
        now_ns = _CLOCK()
        deadline_ns = now_ns + (supervisor.request_timeout_ns if timeout is None else arguments.timeout_in_ns(timeout))
        outgoing = Request(encode_method(method), None if params is None else encode_params(params))
        call = Call(supervisor, method, outgoing, now_ns, deadline_ns, where=where)
        reply, instance = await self._dispatcher.call_on(call)
        return reply, (instance, instance.generation)

    # Handlers of its own

    def _elicitation_complete(self, server_id: str, params: Any) -> Any:
        self._url_elicitations.completed(server_id, params)
        return None if self._on_elicitation_complete is None else self._on_elicitation_complete(server_id, params)

    # The parts

    def _judge(self) -> Judge:
        if self._phase is Phase.INHERITED:
            raise not_running(self._phase)
        return self._monitor.state if self._is_here() else self._monitor.shown

    def _idle_servers(self) -> Collection[str]:
        return self._config.servers if self._phase is Phase.NEW else self._past_servers

    def _next_progress_token(self) -> str:
        # A bridge may show one client's notifications to all, so that no two clients may use the same token. And whoever
        # could guess the token of another call could have reports delivered to it.
        return token_hex(16)

    def _supervisor_of(self, server_id: str) -> Supervisor:
        return self._fleet.supervisor_of(server_id)

    def _removed(self, supervisor: Supervisor) -> None:
        # Another server may have the id before this one has ended.
        server_id = supervisor.server_id
        self._telemetry.removed(supervisor)
        self._url_elicitations.forget(server_id)
        self._dispatcher.forget_callers(server_id)

    def _ended(self, supervisor: Supervisor, is_gone: bool) -> None:
        self._telemetry.ended(supervisor)
        if not is_gone:
            return
        server_id = supervisor.server_id
        self._tools.forget(server_id)
        self._dispatcher.forget(server_id)
        self._affinity.forget(server_id)
        self._call_log.forget(server_id)
        self._http.clients.forget(server_id)
