# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta
from collections.abc import Mapping
from typing import Any

from mcp_manager._core.jsonrpc import Message
from mcp_manager.bindings.mirror import Mirror
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
)
from mcp_manager.session import ProgressCallback
from mcp_manager.types import Selector

class VerbsMirror(Mirror, metaclass=ABCMeta):
    """The public methods of :class:`Verbs`, for callers on any thread and loop."""

    def call(
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

    async def call_async(
        self,
        server_id: str,
        method: str,
        params: object = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Message:
        """Send a request and return the reply as received, an error included; otherwise as :meth:`request`. See :meth:`call`."""

    def request(
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

    async def request_async(
        self,
        server_id: str | Selector,
        method: str,
        params: object = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Any:
        """Send a request of any method and return its decoded result; see :meth:`request`."""

    def ping(self, server_id: str, *, timeout: float | None = None) -> None:
        """Check that a server answers; parameters and errors as for :meth:`request`."""

    async def ping_async(self, server_id: str, *, timeout: float | None = None) -> None:
        """Check that a server answers; parameters and errors as for :meth:`request`. See :meth:`ping`."""

    def discover(self, server_id: str, *, timeout: float | None = None) -> DiscoverResult:
        """Return the protocol revisions and capabilities of a server (2026-07-28); see :meth:`request`.

        Raises
        ------
        RpcError
            The server answered with an error: servers of earlier revisions do not know this method.
        """

    async def discover_async(self, server_id: str, *, timeout: float | None = None) -> DiscoverResult:
        """Return the protocol revisions and capabilities of a server (2026-07-28); see :meth:`request`."""

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

    def call_tool(
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

    async def call_tool_async(
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
        """Call a tool and return its result; if the tool itself fails, the result has ``is_error``. See :meth:`call_tool`."""

    def list_resources(self, server_id: str, *, timeout: float | None = None) -> list[Resource]:
        """Return the resources of a server, from all pages; parameters and errors as for :meth:`list_tools`."""

    async def list_resources_async(self, server_id: str, *, timeout: float | None = None) -> list[Resource]:
        """Return the resources of a server, from all pages; parameters and errors as for :meth:`list_tools`. See :meth:`list_resources`."""

    def list_resource_templates(self, server_id: str, *, timeout: float | None = None) -> list[ResourceTemplate]:
        """Return the resource templates of a server, from all pages; see :meth:`list_tools`."""

    async def list_resource_templates_async(
        self, server_id: str, *, timeout: float | None = None
    ) -> list[ResourceTemplate]:
        """Return the resource templates of a server, from all pages; see :meth:`list_tools`."""

    def read_resource(
        self, server_id: str | Selector, uri: str, *, timeout: float | None = None, key: str | None = None
    ) -> ReadResourceResult:
        """Read the resource with a URI; other parameters and errors as for :meth:`request`."""

    async def read_resource_async(
        self, server_id: str | Selector, uri: str, *, timeout: float | None = None, key: str | None = None
    ) -> ReadResourceResult:
        """Read the resource with a URI; other parameters and errors as for :meth:`request`. See :meth:`read_resource`."""

    def subscribe(self, server_id: str, uri: str, *, timeout: float | None = None) -> None:
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

    async def subscribe_async(self, server_id: str, uri: str, *, timeout: float | None = None) -> None:
        """Subscribe to the updates of a resource; each is passed to the handler ``on_resource_updated``. See :meth:`subscribe`."""

    def unsubscribe(self, server_id: str, uri: str, *, timeout: float | None = None) -> None:
        """End the subscription to a resource; parameters and errors as for :meth:`subscribe`."""

    async def unsubscribe_async(self, server_id: str, uri: str, *, timeout: float | None = None) -> None:
        """End the subscription to a resource; parameters and errors as for :meth:`subscribe`. See :meth:`unsubscribe`."""

    def list_prompts(self, server_id: str, *, timeout: float | None = None) -> list[Prompt]:
        """Return the prompts of a server, from all pages; parameters and errors as for :meth:`list_tools`."""

    async def list_prompts_async(self, server_id: str, *, timeout: float | None = None) -> list[Prompt]:
        """Return the prompts of a server, from all pages; parameters and errors as for :meth:`list_tools`. See :meth:`list_prompts`."""

    def get_prompt(
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

    async def get_prompt_async(
        self,
        server_id: str | Selector,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
    ) -> GetPromptResult:
        """Return the messages of a prompt; see :meth:`get_prompt`."""

    def complete(
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

    async def complete_async(
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
        """Return completions for an argument of a prompt or of a resource template; see :meth:`complete`."""
