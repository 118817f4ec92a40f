# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta
from collections.abc import Mapping
from typing import Any, overload

from mcp_manager.bindings.mirrors.calls import VerbsMirror
from mcp_manager.results import CallToolResult, Tool
from mcp_manager.session import ProgressCallback
from mcp_manager.types import Selector
from mcp_manager.verbs.tool_arguments import ToolArguments
from mcp_manager.verbs.tools import DataT

class ToolVerbsMirror(VerbsMirror, metaclass=ABCMeta):
    """The public methods of :class:`ToolVerbs`, for callers on any thread and loop."""

    def list_tools(self, server_id: str, *, timeout: float | None = None) -> list[Tool]:
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

    async def list_tools_async(self, server_id: str, *, timeout: float | None = None) -> list[Tool]:
        """Return the tools of a server, from all pages; see :meth:`list_tools`."""

    @overload
    def call_tool(
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
    ) -> CallToolResult[DataT]:
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

    @overload
    def call_tool(
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
    @overload
    async def call_tool_async(
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
    ) -> CallToolResult[DataT]:
        """Call a tool and return its result; if the tool itself fails, the result has ``is_error``. See :meth:`call_tool`."""

    @overload
    async def call_tool_async(
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
