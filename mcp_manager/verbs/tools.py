"""The typed methods of MCP for tools."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final, TypeVar, overload

from mcp_manager.config.arguments import as_object, check_server_id, end_of
from mcp_manager.config.redaction import printable
from mcp_manager.errors import McpManagerError, ProtocolError
from mcp_manager.protocol.request import Operation
from mcp_manager.results import CallToolResult, Tool, promises_of
from mcp_manager.results.targets import Misfit, Target, target_of
from mcp_manager.results.tools import ToolCall
from mcp_manager.session import ProgressCallback
from mcp_manager.session.knowledge.output_schemas import OutputSchemas
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.types import Selector
from mcp_manager.verbs.calls import Verbs
from mcp_manager.verbs.tool_arguments import ToolArguments, as_tool_arguments, as_tool_name

__all__ = ["ToolVerbs"]

DataT = TypeVar("DataT")

# More tools than this are evaluated in a thread: it takes milliseconds.
_FEW_TOOLS: Final = 2_000
# Up to this size, a result takes a few milliseconds to be decoded into a type, by pydantic too.
_LARGE_BYTES: Final = 256 * 1024
# What an error quotes of a result that is not of the wanted type, in characters.
_LONGEST_REASON: Final = 500
_LONGEST_PLACE: Final = 200


class ToolVerbs(Verbs):
    """List and call the tools of single servers."""

    @abstractmethod
    def _outputs(self, server_id: str) -> OutputSchemas | None:
        """Return the output schemas of a server's tools, ``None`` if its results are not validated."""

    @abstractmethod
    def _hints(self, server_id: str) -> ToolHints | None:
        """Return the hints of a server's tools, ``None`` if its configuration does not trust them."""

    @abstractmethod
    def _stamp(self, server_id: str) -> tuple[object, ...]:
        """Return a value that changes when the lists of a server may have changed: its settings and its sessions."""

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

    @overload
    async def call_tool(
        self,
        server_id: str | Selector,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        into: type[DataT],
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult[DataT]: ...

    @overload
    async def call_tool(
        self,
        server_id: str | Selector,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        into: object = None,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult: ...

    async def call_tool(
        self,
        server_id: str | Selector,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        into: Any = None,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult[Any]:
        """Call a tool and return its result; if the tool itself fails, the result has ``is_error``.

        Once the server's tools have been listed, the structured content is checked against the tool's output schema
        (2025-06-18, server/tools, output schema), unless the server's ``validate_output`` is false.

        Parameters
        ----------
        name
            The name of the tool.
        arguments
            Its arguments by name, or a dataclass, or an object of msgspec, attrs or pydantic with these fields;
            ``None`` for none.
        meta
            Members of ``_meta``, in addition to those that the manager sets.
        into
            The type of the result's :attr:`~mcp_manager.CallToolResult.data`: a dataclass, a TypedDict, a type of
            msgspec, attrs or pydantic, a builtin type such as ``list[str]``, or a union of them. Default: any.
        server_id, timeout, key, on_progress
            See :meth:`request`.

        Raises
        ------
        ProtocolError
            The result is malformed, breaks the output schema of the tool, or is not of the type ``into``; the message
            names the place. The tool has been executed.
        InvalidRequestError
            Nothing can be decoded into the type ``into``, or another argument is invalid; nothing was sent.
        RpcError, CallError, ServerNotFoundError
            As for :meth:`request`.
        """
        target = None if into is None else target_of(into)
        if isinstance(server_id, Selector):
            return await self._routed(
                server_id,
                Operation("tools/call", name, key),
                timeout,
                lambda chosen, left: self.call_tool(
                    chosen, name, arguments, meta=meta, into=into, timeout=left, key=key, on_progress=on_progress
                ),
            )
        check_server_id(server_id)
        end = end_of(timeout)
        params: dict[str, Any] = {"name": as_tool_name(name), "arguments": as_tool_arguments(arguments)}
        if meta is not None:
            params["_meta"] = as_object(meta, "meta")
        outputs = self._outputs(server_id)
        reply = await self.call(server_id, "tools/call", params, timeout=timeout, key=key, on_progress=on_progress)
        # Counted before it is decoded, which frees it.
        size = 0 if target is None else len(reply.result_buffer or b"")
        result = await self._decoded(server_id, reply, CallToolResult)
        is_wrapped = False
        if outputs is not None and outputs.knows(name) and not result.is_error:
            await self._check_output(server_id, outputs, name, result, end)
            is_wrapped = outputs.wraps(name)
        if target is not None or is_wrapped or result.is_error:
            await self._complete(result, ToolCall(server_id, name, None, into, is_wrapped), target, size)
        return result

    async def _complete(self, result: CallToolResult[Any], call: ToolCall, target: Target | None, size: int) -> None:
        """Tell a result of its call, and decode its data into the type that is wanted; ``size`` is its size in bytes."""
        if result.is_error:
            # Without the type, which would keep the error from being pickled if it is a local one.
            call = call._replace(failure=self._masked(call, result.text), into=None)
        try:
            if size > _LARGE_BYTES:
                await asyncio.to_thread(result._came_of, call, target)
            else:
                result._came_of(call, target)
        except Misfit as misfit:
            wanted = "" if target is None else target.name
            raise ProtocolError(
                f"the result of tool {call.tool!r} is not of type {wanted}: "
                f"{self._quoted(call, misfit.reason, _LONGEST_REASON)} - at "
                f"`{self._quoted(call, misfit.place, _LONGEST_PLACE)}`",
                server_id=call.server_id,
                delivery="answered",
                hint="without into=, the call returns it as it is",
            ) from None
        except ProtocolError as error:
            error.server_id = call.server_id
            raise

    def _quoted(self, call: ToolCall, text: str, longest: int) -> str:
        """Return the beginning of a text that may contain what the server sent, without control characters."""
        shown = printable(self._masked(call, text))
        return shown if len(shown) <= longest else f"{shown[:longest]}…"

    def _masked(self, call: ToolCall, text: str) -> str:
        template = self._template_of(call.server_id or "")
        return text if template is None else template.secrets.masked(text)

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
