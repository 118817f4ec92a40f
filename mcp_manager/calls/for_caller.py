"""Calls made for a :class:`Caller`: all of MCP's methods, on the sessions of that caller alone."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, TypeVar

from mcp_manager._core.jsonrpc import ERROR, FrameError, Message, scan
from mcp_manager.auth.caller import Caller, calling
from mcp_manager.calls.call import Call, Where
from mcp_manager.calls.dispatcher import Dispatcher
from mcp_manager.config import arguments
from mcp_manager.errors import InvalidRequestError, McpManagerError, NotRunningError, RpcError, ServerNotFoundError
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.methods import LIST_TOOLS, is_notification
from mcp_manager.protocol.request import (
    Operation,
    encode_method,
    encode_params,
    encode_text,
    invalid_request,
    with_progress_token,
)
from mcp_manager.protocol.safety import tool_of
from mcp_manager.results import Tool
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import ProgressCallback, ProgressReports, SessionTemplate
from mcp_manager.session.knowledge.output_schemas import OutputSchemas
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.transports.base import Request, Sendable
from mcp_manager.types import Selector
from mcp_manager.verbs.tasks import TaskVerbs
from mcp_manager.verbs.tool_catalog import ToolCatalog, catalog_of
from mcp_manager.verbs.url_elicitation import UrlElicitations

__all__ = ["CallsForCallers", "ForCaller", "check_caller", "where_for"]

T = TypeVar("T")

_CLOCK: Final = time.monotonic_ns
_LISTED_AT_ONCE: Final = 64


def check_caller(caller: Caller) -> Caller:
    """Return a caller unchanged; raises :class:`InvalidRequestError` for anything else."""
    if not isinstance(caller, Caller):
        raise InvalidRequestError(
            f"Invalid caller: it must be a Caller, not {type(caller).__name__}", hint='make one, as Caller("user-17")'
        )
    return caller


def where_for(caller: Caller, key: str | None) -> Where:
    """Return where the calls of a caller go.

    Without a key of its own, the principal is the key: its calls stay together where the server's balancing says so,
    and need fewer sessions.
    """
    return Where(key=f"{caller.principal}\0{key or ''}")


class CallsForCallers(TaskVerbs):
    """Bind calls to callers; subclasses provide the parts that the calls go through."""

    _dispatcher: Dispatcher
    _url_elicitations: UrlElicitations

    def for_caller(self, caller: Caller) -> ForCaller:
        """Return what makes calls for a caller, on sessions of its own and with its credentials.

        The returned object is cheap and holds no session: make one for each call, or keep it. A session with a server
        begins with the caller's first call; ``max_caller_sessions`` and ``caller_idle_s`` of the server say when it
        ends. Servers of 2026-07-28 have no sessions; their cached results are still kept apart.

        A program has one session for all callers: it takes calls of a caller without ``headers`` and ``auth``, and
        refuses others.

        Parameters
        ----------
        caller
            Whom the calls are made for.

        Raises
        ------
        InvalidRequestError
            It is no :class:`Caller`.
        """
        return ForCaller(self, check_caller(caller))

    def end_caller(self, caller: Caller, server_ids: Collection[str]) -> None:
        """End the sessions that servers keep for a caller, each with the last of its calls under way.

        Nothing happens to servers without one, or to those that are no longer deployed. A later call for the caller
        begins a new session.

        Parameters
        ----------
        caller
            Whom the sessions were made for: the principal, the kind of credentials and the capabilities must be equal.
        server_ids
            The servers that it called.

        Raises
        ------
        InvalidRequestError
            It is no :class:`Caller`, or ``server_ids`` is not a collection of ids.
        """
        check_caller(caller)
        for server_id in arguments.as_server_ids(server_ids):
            try:
                supervisor = self._supervisor_of(server_id)
            except ServerNotFoundError:
                continue
            self._dispatcher.callers_of(server_id).end(supervisor.template, caller)

    def _outgoing(
        self, method: str, params: object, on_progress: ProgressCallback | None, template: SessionTemplate
    ) -> tuple[Request, ProgressReports | None]:
        """Encode a request; return it with the receiver of its reports, ``None`` without one."""
        reports = None
        if on_progress is not None:
            if not callable(on_progress):
                raise InvalidRequestError(
                    f"Invalid request: on_progress must be a function, not {arguments.shown(on_progress)}"
                )
            token = self._next_progress_token()
            params = with_progress_token(params, token)
            reports = ProgressReports(on_progress, template.containment, token)
        return Request(encode_method(method), None if params is None else encode_params(params)), reports

    async def _finished(self, call: Call, template: SessionTemplate, reply: Message | None = None) -> Message:
        """Make a call and all that belongs to it; return its last reply.

        If the reply demands that the user visits URLs, the request is sent again afterwards. When this returns, all
        progress reports are delivered.

        Parameters
        ----------
        call
            The call.
        template
            That of the sessions it is made on.
        reply
            The first reply, ``None`` if the call was not made yet.
        """
        # The dispatcher may add a trace context to it, which belongs to one call only.
        request = call.request
        listener = call.listener
        try:
            if reply is None:
                reply = await self._dispatcher.make(call)
            is_visited = reply.kind == ERROR and await self._url_elicitations.satisfied(
                template.containment, reply, call.deadline_ns
            )
            if is_visited and not call.supervisor.is_over:
                reply = await self._dispatcher.make(call.again(request, _CLOCK()))
            if listener is not None:
                await listener.finish(call.deadline_ns)
            return reply
        finally:
            if listener is not None:
                await listener.aclose()

    @abstractmethod
    def _check_running(self) -> None:
        """Raise :class:`NotRunningError` unless the manager runs on this loop."""

    @abstractmethod
    def _supervisor_of(self, server_id: str) -> Supervisor:
        """Return the supervisor of a server; raises :class:`ServerNotFoundError`."""

    @abstractmethod
    def _deployed(self, server_ids: Collection[str] | None) -> list[str]:
        """Return these ids, or for ``None`` those of all servers; raises :class:`ServerNotFoundError`."""

    @abstractmethod
    def _next_progress_token(self) -> str:
        """Return a progress token that no other request has."""


class ForCaller(TaskVerbs):
    """Make calls for one caller: ``execute_raw``, ``execute_text``, ``request`` and the typed methods of MCP.

    They have the parameters, results and errors of those of :class:`~mcp_manager.McpManager`, with these differences: a
    call is never sent to a fallback server, hedged, or answered with a kept result; calls without a ``key`` have the
    caller's principal as their key; and a 401, 403 or 429 counts neither against the server nor against its circuit.

    Parameters
    ----------
    manager
        The manager whose servers are called.
    caller
        Whom the calls are made for.
    """

    def __init__(self, manager: CallsForCallers, caller: Caller) -> None:
        self._manager = manager
        self.caller = caller

    def __repr__(self) -> str:
        return f"<ForCaller {self.caller!r}>"

    async def list_all_tools(
        self, server_ids: Collection[str] | None = None, *, timeout: float | None = None
    ) -> ToolCatalog:
        """Return the tools that servers list for this caller, with the names of :meth:`McpManager.list_all_tools`.

        Every call asks the servers: their lists are not kept.

        Parameters
        ----------
        server_ids
            The servers to list; default: all. The result names those that cannot be listed in ``missing``.
        timeout
            Seconds for the list of each server; default: the server's ``request_timeout_s`` for each of its pages.

        Raises
        ------
        ServerNotFoundError, InvalidRequestError, NotRunningError
            As for :meth:`McpManager.list_all_tools`.
        """
        wanted = self._manager._deployed(server_ids)
        slots = asyncio.Semaphore(_LISTED_AT_ONCE)
        listings = await asyncio.gather(*(self._tools_or_reason(each, timeout, slots) for each in wanted))
        return catalog_of(dict(zip(wanted, listings, strict=True)))

    async def _tools_or_reason(
        self, server_id: str, timeout: float | None, slots: asyncio.Semaphore
    ) -> list[Tool] | str:
        async with slots:
            try:
                return await self.list_tools(server_id, timeout=timeout)
            except NotRunningError:
                raise
            except McpManagerError as error:
                has_none = isinstance(error, RpcError) and error.code == METHOD_NOT_FOUND
                return [] if has_none else str(error)

    async def execute_raw(
        self, server_id: str | Selector, request: bytes, *, timeout: float | None = None, key: str | None = None
    ) -> bytes:
        """Send one JSON-RPC request as bytes and return the response as bytes; see :meth:`McpManager.execute_raw`."""
        message, reply = await self._execute(server_id, request, timeout, key, False)
        return b"null" if reply is None else reply.take_frame(message.id_raw)

    async def execute_text(
        self, server_id: str | Selector, request: str, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send one JSON-RPC request as text and return the response as text; see :meth:`McpManager.execute_raw`."""
        message, reply = await self._execute(server_id, request, timeout, key, True)
        return "null" if reply is None else reply.take_text(message.id_raw)

    async def _execute(
        self, server_id: str | Selector, request: Any, timeout: float | None, key: str | None, as_text: bool
    ) -> tuple[Message, Message | None]:
        """Return the request, and the reply to it, ``None`` for a notification."""
        self._manager._check_running()
        try:
            message = scan(encode_text(request) if as_text else request)
        except FrameError as error:
            raise invalid_request(error) from None
        except TypeError:
            raise arguments.wrong_call(server_id, request) from None
        method = message.method
        if method is None:
            raise invalid_request(None)
        if isinstance(server_id, Selector):
            return await self._routed(
                server_id,
                Operation(method, tool_of(message.params), key),
                timeout,
                lambda chosen, left: self._execute(chosen, request, left, key, as_text),
            )
        call = self._call(server_id, method, message, timeout, key)
        with calling(self.caller):
            if message.id_raw is None and is_notification(method):
                await self._manager._dispatcher.notify(call)
                return message, None
            return message, await self._manager._dispatcher.make(call)

    def _call(
        self, server_id: str, method: str, request: Sendable, timeout: float | None, key: str | None = None
    ) -> Call:
        """Return the call of a request; raises if it cannot be made for this caller."""
        supervisor = self._manager._supervisor_of(server_id)
        # Refuses what the server cannot take, before anything is counted.
        self._template(supervisor)
        arguments.check_key(key)
        now_ns = _CLOCK()
        timeout_ns = supervisor.request_timeout_ns if timeout is None else arguments.timeout_in_ns(timeout)
        where = where_for(self.caller, key)
        return Call(supervisor, method, request, now_ns, now_ns + timeout_ns, where=where, caller=self.caller)

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
        manager = self._manager
        manager._check_running()
        template = self._template(manager._supervisor_of(server_id))
        outgoing, reports = manager._outgoing(method, params, on_progress, template)
        call = self._call(server_id, method, outgoing, timeout, key)
        call.listener = reports
        with calling(self.caller):
            return await manager._finished(call, template)

    async def _routed(
        self,
        selector: Selector,
        operation: Operation,
        timeout: float | None,
        attempt: Callable[[str, float | None], Awaitable[T]],
    ) -> T:
        return await self._manager._routed(selector, operation, timeout, attempt)

    async def _page(
        self, server_id: str, method: str, params: object, place: object | None, timeout: float | None
    ) -> tuple[Message, object]:
        manager = self._manager
        manager._check_running()
        supervisor = manager._supervisor_of(server_id)
        callers = manager._dispatcher.callers_of(server_id)
        outgoing = Request(encode_method(method), None if params is None else encode_params(params))
        call = self._call(server_id, method, outgoing, timeout)
        if place is not None:
            for instance in supervisor.instances:
                if callers.generation(instance, self.caller) == place:
                    call.where = Where(instance.backend)
                    break
            else:
                raise RpcError(INVALID_PARAMS, "the session that has the rest of the list is gone", server_id=server_id)
        with calling(self.caller):
            reply, used = await manager._dispatcher.call_on(call)
        return reply, callers.generation(used, self.caller)

    def _template(self, supervisor: Supervisor) -> SessionTemplate:
        callers = self._manager._dispatcher.callers_of(supervisor.server_id)
        return callers.template(supervisor.template, self.caller)

    def _template_of(self, server_id: str) -> SessionTemplate | None:
        own = self._manager._template_of(server_id)
        return None if own is None else self._manager._dispatcher.callers_of(server_id).template(own, self.caller)

    def _outputs(self, server_id: str) -> OutputSchemas | None:
        template = self._template_of(server_id)
        return template.knowledge.outputs if template is not None and template.config.validate_output else None

    def _hints(self, server_id: str) -> ToolHints | None:
        return None

    def _stamp(self, server_id: str) -> tuple[object, ...]:
        template = self._template_of(server_id)
        if template is None:
            return ()
        callers = self._manager._dispatcher.callers_of(server_id)
        instances = self._manager._supervisor_of(server_id).instances
        fresh_until = template.knowledge.cache.fresh_until(LIST_TOOLS)
        return template, fresh_until, *(callers.generation(each, self.caller) for each in instances)
