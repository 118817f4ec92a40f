"""The typed methods of MCP for resources, prompts and completions, and what those for tools stand on, too."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.config.arguments import as_object, as_text, check_server_id, end_of
from mcp_manager.errors import DeadlineExceededError
from mcp_manager.protocol.json_reading import DEFAULT_LIMITS, DecodingLimits
from mcp_manager.protocol.request import Operation
from mcp_manager.protocol.rpc_error import rpc_error
from mcp_manager.results import (
    CompleteResult,
    DiscoverResult,
    GetPromptResult,
    Prompt,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    drain_pages,
)
from mcp_manager.results.large_results import limits_for, read_result
from mcp_manager.results.reading import FaultTaker
from mcp_manager.session import ProgressCallback, SessionTemplate
from mcp_manager.types import Selector

__all__ = ["Verbs"]

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

    async def list_resources(self, server_id: str, *, timeout: float | None = None) -> list[Resource]:
        """Return the resources of a server, from all pages; parameters and errors as for ``list_tools``."""
        return await self._list(server_id, "resources/list", "resources", Resource, timeout)

    async def list_resource_templates(self, server_id: str, *, timeout: float | None = None) -> list[ResourceTemplate]:
        """Return the resource templates of a server, from all pages; see ``list_tools``."""
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
        """Return the prompts of a server, from all pages; parameters and errors as for ``list_tools``."""
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
                        f"not all pages of the list had arrived within the timeout of {timeout:g} s",
                        server_id=server_id,
                        delivery="answered",
                        hint="pass a longer timeout=",
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
