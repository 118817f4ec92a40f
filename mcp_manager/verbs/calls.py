"""The typed verbs of MCP, each decoded once from the bytes of its reply."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
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

# Of so many, what they promise is read in some milliseconds.
_FEW_TOOLS: Final = 2_000

T = TypeVar("T")


class Verbs:
    """MCP's methods with typed results, over one ``call``.

    Every verb takes ``timeout`` in seconds for all that it does (default: the server's ``request_timeout_s`` for every
    request) and raises :class:`RpcError`
    when the server answers with an error, :class:`ProtocolError` when the result has not the shape of the
    specification, and :class:`CallError` when no answer came.
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
        """Send a request and return the reply as received."""

    @abstractmethod
    async def _routed(
        self,
        selector: Selector,
        operation: Operation,
        timeout: float | None,
        attempt: Callable[[str, float | None], Awaitable[T]],
    ) -> T:
        """Make an attempt on a server that matches, and on others as long as that does no harm."""

    @abstractmethod
    async def _page(
        self, server_id: str, method: str, params: object, place: object | None, timeout: float | None
    ) -> tuple[Message, object]:
        """Send a request for a page of a list where the page before came from, and return the reply and where that is.

        A cursor is not for another session (2025-11-25, server/utilities/pagination). For ``None``, anywhere will do;
        raises :class:`RpcError` for an invalid cursor if the place is gone.
        """

    @abstractmethod
    def _template_of(self, server_id: str) -> SessionTemplate | None:
        """Return what a server's sessions are made from, ``None`` for one that is gone: its faults and its secrets."""

    @abstractmethod
    def _outputs(self, server_id: str) -> OutputSchemas | None:
        """Return what is known of a server's output schemas, ``None`` if its results are not checked."""

    @abstractmethod
    def _hints(self, server_id: str) -> ToolHints | None:
        """Return what is known of a server's tool annotations, ``None`` if nobody asks for it."""

    @abstractmethod
    def _stamp(self, server_id: str) -> tuple[object, ...]:
        """Tell what a server's lists would be read from now."""

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
            The server, or a :class:`Selector` for any that matches.
        params
            A JSON object or array as Python data, or ``None``.
        key
            Calls with the same one stay together, as ``balancing`` of the server's configuration says.
        on_progress
            Called as ``on_progress(progress, total, message)`` for every progress notification of this request, in their
            order. It may be async: then it is awaited beside the call, which returns once every report is delivered, at
            its timeout at the latest; of more than 256 reports that wait, the oldest are dropped. What it raises is
            logged.
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
        """Ask the server for a sign of life."""
        self._result_of(server_id, await self.call(server_id, "ping", timeout=timeout))

    async def discover(self, server_id: str, *, timeout: float | None = None) -> DiscoverResult:
        """Ask the server what it speaks and can do; servers of before 2026-07-28 know no such method."""
        reply = await self.call(server_id, "server/discover", timeout=timeout)
        return await self._decoded(server_id, reply, DiscoverResult)

    async def list_tools(self, server_id: str, *, timeout: float | None = None) -> list[Tool]:
        """List all tools, every page."""
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
        """Call a tool. A tool's own failure is a result with ``is_error``, not an exception.

        Parameters
        ----------
        meta
            Members of ``_meta``, beside those that the manager sets.
        server_id, key, on_progress
            See :meth:`request`.

        Once the server's tools have been listed, what a tool returns is checked against its output schema (2025-06-18,
        server/tools, output schema), unless the server is configured with ``validate_output = False``.

        Raises
        ------
        ProtocolError
            The structured content breaks the schema, or is missing although there is one; the tool has been called.
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
        """List all resources, every page."""
        return await self._list(server_id, "resources/list", "resources", Resource, timeout)

    async def list_resource_templates(self, server_id: str, *, timeout: float | None = None) -> list[ResourceTemplate]:
        """List all resource templates, every page."""
        return await self._list(server_id, "resources/templates/list", "resource_templates", ResourceTemplate, timeout)

    async def read_resource(
        self, server_id: str | Selector, uri: str, *, timeout: float | None = None, key: str | None = None
    ) -> ReadResourceResult:
        """Read a resource; for ``server_id`` and ``key`` see :meth:`request`."""
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
        """Ask for ``notifications/resources/updated`` of a resource; they go to the manager's handlers.

        The subscription is the manager's: it holds until :meth:`unsubscribe`, whatever becomes of sessions, connections
        and processes. What may have been missed meanwhile is told as updated. Servers of 2026-07-28 are listened to by
        ``subscriptions/listen``, earlier ones asked by ``resources/subscribe``.
        """
        self._result_of(
            server_id, await self.call(server_id, "resources/subscribe", {"uri": as_text(uri, "uri")}, timeout=timeout)
        )

    async def unsubscribe(self, server_id: str, uri: str, *, timeout: float | None = None) -> None:
        """End a subscription."""
        self._result_of(
            server_id,
            await self.call(server_id, "resources/unsubscribe", {"uri": as_text(uri, "uri")}, timeout=timeout),
        )

    async def list_prompts(self, server_id: str, *, timeout: float | None = None) -> list[Prompt]:
        """List all prompts, every page."""
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
        """Fill in a prompt; for ``server_id`` and ``key`` see :meth:`request`."""
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
        """Ask for completions of an argument of a prompt (``{"type": "ref/prompt", "name": …}``) or a template.

        ``context`` holds the arguments that are settled already, by name; for ``server_id`` and ``key`` see
        :meth:`request`.
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
        """Raise :class:`ProtocolError` if a tool did not return what it promises."""
        if result.result_type not in (None, "complete"):
            return
        fault = await outputs.find_fault(tool, result.structured_content)
        if fault is not None and not outputs.is_current(self._stamp(server_id)):
            # The tool may have changed since it was listed; no good result is refused for an old promise.
            try:
                await self.list_tools(server_id, timeout=None if end is None else max(0.0, end - time.monotonic()))
            except McpManagerError:
                return
            fault = await outputs.find_fault(tool, result.structured_content)
        if fault is not None:
            raise ProtocolError(
                f"tool {tool!r} returned something else than it promises: {fault}",
                server_id=server_id,
                delivery="answered",
                hint="validate_output = false takes its results as they are",
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
                    # A reply that comes at once would be taken even so: deadlines end waits.
                    raise DeadlineExceededError(
                        "the list has more pages than came within the timeout", server_id=server_id, delivery="answered"
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
        """Return the result of a reply as it was written; raises :class:`RpcError` if it is an error."""
        if reply.kind == ERROR:
            template = self._template_of(server_id)
            raise rpc_error(server_id, reply.error or b"", None if template is None else template.secrets)
        return reply.result_buffer or b"null"
