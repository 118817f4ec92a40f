"""The typed methods of MCP for tools, resources, prompts and completions."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.config.arguments import as_object, as_text, check_server_id, end_of
from mcp_manager.errors import DeadlineExceededError, McpManagerError, ProtocolError
from mcp_manager.protocol.json_reading import DEFAULT_LIMITS, DecodingLimits
from mcp_manager.protocol.request import Operation
from mcp_manager.protocol.rpc_error import rpc_error
from mcp_manager.results import (
    CallToolResult,
    CompleteResult,
    DiscoverResult,
    GetPromptResult,
    Prompt,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    Tool,
    drain_pages,
    promises_of,
)
from mcp_manager.results.large_results import limits_for, read_result
from mcp_manager.results.reading import FaultTaker
from mcp_manager.session import ProgressCallback, SessionTemplate
from mcp_manager.session.knowledge.output_schemas import OutputSchemas
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.types import Selector

__all__ = ["Verbs"]

# More tools than this are evaluated in a thread: it takes milliseconds.
_FEW_TOOLS: Final = 2_000

T = TypeVar("T")


class Verbs(ABC):
    """Provide the methods of MCP with typed results; subclasses provide :meth:`call`.

    The parameters ``server_id``, ``timeout``, ``key`` and ``on_progress``, and the errors that all methods raise, are
    documented at :meth:`request`.
    """

    @abstractmethod
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
        """Send a request and return the reply as received, an error included; otherwise as :meth:`request`."""

    @abstractmethod
    async def _routed(
        self,
        selector: Selector,
        operation: Operation,
        timeout: float | None,
        attempt: Callable[[str, float | None], Awaitable[T]],
    ) -> T:
        """Make an attempt on a matching server, and on others if it fails; see ``Routing.carry``."""

    @abstractmethod
    async def _page(
        self, server_id: str, method: str, params: object, place: object | None, timeout: float | None
    ) -> tuple[Message, object]:
        """Request one page of a list; return the reply and the session that it came from (``place`` of the next page).

        A cursor is valid only in the session that returned it (2025-11-25, server/utilities/pagination), so ``place``
        is that of the previous page, ``None`` for the first one.

        Raises
        ------
        RpcError
            The session of ``place`` is gone; the error is that of an invalid cursor.
        """

    @abstractmethod
    def _template_of(self, server_id: str) -> SessionTemplate | None:
        """Return the session settings of a server, ``None`` if it was removed."""

    @abstractmethod
    def _outputs(self, server_id: str) -> OutputSchemas | None:
        """Return the output schemas of a server's tools, ``None`` if its results are not validated."""

    @abstractmethod
    def _hints(self, server_id: str) -> ToolHints | None:
        """Return the hints of a server's tools, ``None`` if its configuration does not trust them."""

    @abstractmethod
    def _stamp(self, server_id: str) -> tuple[object, ...]:
        """Return a value that changes when the lists of a server may have changed: its settings and its sessions."""

    async def request(
        self,
        server_id: str | Selector,
        method: str,
        params: object = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Any:
        """Send a request of any method and return its decoded result.

        Parameters
        ----------
        server_id
            The id of the server, or a :class:`Selector` for any server that matches.
        method
            The name of the method, such as ``tools/list``.
        params
            A JSON object or array as Python data, or ``None``.
        timeout
            Seconds, from 0, for everything together: waiting, connecting and all attempts. Default: the server's
            ``request_timeout_s``.
        key
            Calls with the same key stay on one instance, as ``balancing`` of the server's configuration says. ``None``:
            no affinity.
        on_progress
            Called as ``on_progress(progress, total, message)`` for each progress notification of this request, in
            order. It may be async; then it runs alongside the call, which returns once all reports are delivered, or at
            its timeout. At most 256 reports wait; the oldest are dropped. Exceptions that it raises are logged. With
            ``PyMcpManager`` it is called where the caller waits: a blocking method calls it on its own thread, which it
            may block, and an ``_async`` method on the loop that awaits it.

        Raises
        ------
        RpcError
            The server answered with a JSON-RPC error.
        ProtocolError
            The result does not have the form that the specification requires, or is larger than the server's
            ``max_response_values`` allows.
        CallError
            There was no answer; ``delivery`` says whether the request may have been executed.
        InvalidRequestError
            An argument is invalid; nothing was sent.
        ServerNotFoundError
            No server has this id, or none matches the selector.
        NotRunningError
            The manager does not run, or runs on another event loop.
        """
        if isinstance(server_id, Selector):
            return await self._routed(
                server_id,
                Operation(method, params.get("name") if isinstance(params, dict) else None, key),
                timeout,
                lambda chosen, left: self.request(
                    chosen, method, params, timeout=left, key=key, on_progress=on_progress
                ),
            )
        reply = await self.call(server_id, method, params, timeout=timeout, key=key, on_progress=on_progress)
        return await self._decoded(server_id, reply, Any)

    async def ping(self, server_id: str, *, timeout: float | None = None) -> None:
        """Check that a server answers; parameters and errors as for :meth:`request`."""
        self._result_of(server_id, await self.call(server_id, "ping", timeout=timeout))

    async def discover(self, server_id: str, *, timeout: float | None = None) -> DiscoverResult:
        """Return the protocol revisions and capabilities of a server (2026-07-28); see :meth:`request`.

        Raises
        ------
        RpcError
            The server answered with an error: servers of earlier revisions do not know this method.
        """
        reply = await self.call(server_id, "server/discover", timeout=timeout)
        return await self._decoded(server_id, reply, DiscoverResult)

    async def list_tools(self, server_id: str, *, timeout: float | None = None) -> list[Tool]:
        """Return the tools of a server, from all pages.

        The list also tells the manager which output schemas to check and, with ``retry.trust_annotations``, which tools
        are safe to repeat.

        Parameters
        ----------
        server_id
            The id of the server.
        timeout
            Seconds for all pages together; default: the server's ``request_timeout_s`` for each page.

        Raises
        ------
        ProtocolError
            A page is malformed, or the list has more than 10,000 pages, 1,000,000 entries, or four times the values or
            bytes that the server's limits allow one result.
        RpcError, CallError, ServerNotFoundError
            As for :meth:`request`.
        """
        check_server_id(server_id)
        outputs, stamp = self._outputs(server_id), self._stamp(server_id)
        epoch = outputs.epoch if outputs is not None else 0
        hints = self._hints(server_id)
        hints_epoch = hints.epoch if hints is not None else 0
        tools = await self._list(server_id, "tools/list", "tools", Tool, timeout)
        if len(tools) <= _FEW_TOOLS:
            repeatable, schemas = promises_of(tools)
        else:
            repeatable, schemas = await asyncio.to_thread(promises_of, tools)
        if hints is not None:
            hints.learn(repeatable, hints_epoch)
        if outputs is not None:
            outputs.learn(schemas, stamp, epoch)
        return tools

    async def call_tool(
        self,
        server_id: str | Selector,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult:
        """Call a tool and return its result; if the tool itself fails, the result has ``is_error``.

        Once the server's tools have been listed, the structured content is checked against the tool's output schema
        (2025-06-18, server/tools, output schema), unless the server's ``validate_output`` is false.

        Parameters
        ----------
        name
            The name of the tool.
        arguments
            Its arguments by name; ``None`` for none.
        meta
            Members of ``_meta``, in addition to those that the manager sets.
        server_id, timeout, key, on_progress
            See :meth:`request`.

        Raises
        ------
        ProtocolError
            The result is malformed, or breaks the output schema of the tool. The tool has been executed.
        RpcError, CallError, InvalidRequestError, ServerNotFoundError
            As for :meth:`request`.
        """
        if isinstance(server_id, Selector):
            return await self._routed(
                server_id,
                Operation("tools/call", name, key),
                timeout,
                lambda chosen, left: self.call_tool(
                    chosen, name, arguments, meta=meta, timeout=left, key=key, on_progress=on_progress
                ),
            )
        check_server_id(server_id)
        end = end_of(timeout)
        params: dict[str, Any] = {"name": as_text(name, "name"), "arguments": as_object(arguments, "arguments")}
        if meta is not None:
            params["_meta"] = as_object(meta, "meta")
        outputs = self._outputs(server_id)
        reply = await self.call(server_id, "tools/call", params, timeout=timeout, key=key, on_progress=on_progress)
        result = await self._decoded(server_id, reply, CallToolResult)
        if outputs is not None and outputs.knows(name) and not result.is_error:
            await self._check_output(server_id, outputs, name, result, end)
        return result

    async def list_resources(self, server_id: str, *, timeout: float | None = None) -> list[Resource]:
        """Return the resources of a server, from all pages; parameters and errors as for :meth:`list_tools`."""
        return await self._list(server_id, "resources/list", "resources", Resource, timeout)

    async def list_resource_templates(self, server_id: str, *, timeout: float | None = None) -> list[ResourceTemplate]:
        """Return the resource templates of a server, from all pages; see :meth:`list_tools`."""
        return await self._list(server_id, "resources/templates/list", "resource_templates", ResourceTemplate, timeout)

    async def read_resource(
        self, server_id: str | Selector, uri: str, *, timeout: float | None = None, key: str | None = None
    ) -> ReadResourceResult:
        """Read the resource with a URI; other parameters and errors as for :meth:`request`."""
        if isinstance(server_id, Selector):
            return await self._routed(
                server_id,
                Operation("resources/read", None, key),
                timeout,
                lambda chosen, left: self.read_resource(chosen, uri, timeout=left, key=key),
            )
        params = {"uri": as_text(uri, "uri")}
        reply = await self.call(server_id, "resources/read", params, timeout=timeout, key=key)
        return await self._decoded(server_id, reply, ReadResourceResult)

    async def subscribe(self, server_id: str, uri: str, *, timeout: float | None = None) -> None:
        """Subscribe to the updates of a resource; each is passed to the handler ``on_resource_updated``.

        The manager keeps the subscription until :meth:`unsubscribe`, across new sessions, broken connections and
        restarts. A resource that may have been updated in between is reported as updated. The manager uses
        ``subscriptions/listen`` with servers of 2026-07-28 and ``resources/subscribe`` with earlier ones.

        Parameters
        ----------
        uri
            The URI of the resource.
        server_id, timeout
            See :meth:`request`, whose errors it raises.
        """
        self._result_of(
            server_id, await self.call(server_id, "resources/subscribe", {"uri": as_text(uri, "uri")}, timeout=timeout)
        )

    async def unsubscribe(self, server_id: str, uri: str, *, timeout: float | None = None) -> None:
        """End the subscription to a resource; parameters and errors as for :meth:`subscribe`."""
        self._result_of(
            server_id,
            await self.call(server_id, "resources/unsubscribe", {"uri": as_text(uri, "uri")}, timeout=timeout),
        )

    async def list_prompts(self, server_id: str, *, timeout: float | None = None) -> list[Prompt]:
        """Return the prompts of a server, from all pages; parameters and errors as for :meth:`list_tools`."""
        return await self._list(server_id, "prompts/list", "prompts", Prompt, timeout)

    async def get_prompt(
        self,
        server_id: str | Selector,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
    ) -> GetPromptResult:
        """Return the messages of a prompt.

        Parameters
        ----------
        name
            The name of the prompt.
        arguments
            Its arguments by name; ``None`` for none.
        server_id, timeout, key
            See :meth:`request`, whose errors it raises.
        """
        if isinstance(server_id, Selector):
            return await self._routed(
                server_id,
                Operation("prompts/get", None, key),
                timeout,
                lambda chosen, left: self.get_prompt(chosen, name, arguments, timeout=left, key=key),
            )
        params = {"name": as_text(name, "name"), "arguments": as_object(arguments, "arguments")}
        reply = await self.call(server_id, "prompts/get", params, timeout=timeout, key=key)
        return await self._decoded(server_id, reply, GetPromptResult)

    async def complete(
        self,
        server_id: str | Selector,
        reference: Mapping[str, Any],
        argument: str,
        value: str,
        *,
        context: Mapping[str, str] | None = None,
        timeout: float | None = None,
        key: str | None = None,
    ) -> CompleteResult:
        """Return completions for an argument of a prompt or of a resource template.

        Parameters
        ----------
        reference
            ``{"type": "ref/prompt", "name": …}`` or ``{"type": "ref/resource", "uri": …}``.
        argument
            The name of the argument.
        value
            What the user has entered so far.
        context
            The arguments that are already set, by name.
        server_id, timeout, key
            See :meth:`request`, whose errors it raises.
        """
        if isinstance(server_id, Selector):
            return await self._routed(
                server_id,
                Operation("completion/complete", None, key),
                timeout,
                lambda chosen, left: self.complete(
                    chosen, reference, argument, value, context=context, timeout=left, key=key
                ),
            )
        params: dict[str, Any] = {
            "ref": as_object(reference, "reference"),
            "argument": {"name": as_text(argument, "argument"), "value": as_text(value, "value")},
        }
        if context is not None:
            params["context"] = {"arguments": as_object(context, "context")}
        reply = await self.call(server_id, "completion/complete", params, timeout=timeout, key=key)
        return await self._decoded(server_id, reply, CompleteResult)

    async def _decoded(self, server_id: str, reply: Message, kind: type[T]) -> T:
        """Decode the result of a reply; raises :class:`RpcError` if it is an error."""
        try:
            return await read_result(
                server_id,
                self._result_of(server_id, reply),
                kind,
                self._fault_taker(server_id),
                self._limits(server_id),
            )
        finally:
            reply.recycle()

    async def _check_output(
        self, server_id: str, outputs: OutputSchemas, tool: str, result: CallToolResult, end: float | None
    ) -> None:
        """Raise :class:`ProtocolError` if the result of a tool breaks its output schema."""
        if result.result_type not in (None, "complete"):
            return
        fault = await outputs.find_fault(tool, result.structured_content)
        if fault is not None and not outputs.is_current(self._stamp(server_id)):
            # The schema may be outdated: list the tools again before the result is refused.
            try:
                await self.list_tools(server_id, timeout=None if end is None else max(0.0, end - time.monotonic()))
            except McpManagerError:
                return
            fault = await outputs.find_fault(tool, result.structured_content)
        if fault is not None:
            raise ProtocolError(
                f"the result of tool {tool!r} does not match its output schema: {fault}",
                server_id=server_id,
                delivery="answered",
                hint="validate_output = false turns this check off",
            )

    async def _list(self, server_id: str, method: str, member: str, kind: type[T], timeout: float | None) -> list[T]:
        check_server_id(server_id)
        end = end_of(timeout)
        place: object | None = None

        async def fetch(cursor: str | None) -> bytes | memoryview:
            nonlocal place
            params = None if cursor is None else {"cursor": cursor}
            left = timeout
            if cursor is not None and end is not None:
                left = end - time.monotonic()
                if left <= 0:
                    # Checked here too, because a call that is answered at once ignores a deadline that has passed.
                    raise DeadlineExceededError(
                        "the timeout passed before all pages of the list had arrived",
                        server_id=server_id,
                        delivery="answered",
                    )
            reply, place = await self._page(server_id, method, params, None if cursor is None else place, left)
            return self._result_of(server_id, reply)

        return await drain_pages(server_id, member, kind, fetch, self._fault_taker(server_id), self._limits(server_id))

    def _fault_taker(self, server_id: str) -> FaultTaker | None:
        template = self._template_of(server_id)
        return None if template is None else template.knowledge.faults.count

    def _limits(self, server_id: str) -> DecodingLimits:
        template = self._template_of(server_id)
        if template is None:
            return DEFAULT_LIMITS
        return limits_for(template.config.max_response_bytes, template.config.max_response_values)

    def _result_of(self, server_id: str, reply: Message) -> bytes | memoryview:
        """Return the result of a reply as JSON; raises :class:`RpcError` if the reply is an error."""
        if reply.kind == ERROR:
            template = self._template_of(server_id)
            raise rpc_error(server_id, reply.error or b"", None if template is None else template.secrets)
        return reply.result_buffer or b"null"
