# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta
from collections.abc import Collection

from mcp_manager._core.jsonrpc import Message
from mcp_manager.auth.caller import Caller
from mcp_manager.bindings.mirrors.tasks import TaskVerbsMirror
from mcp_manager.session import ProgressCallback
from mcp_manager.types import Selector
from mcp_manager.verbs.tool_catalog import ToolCatalog

class CallsForCallersMirror(TaskVerbsMirror, metaclass=ABCMeta):
    """The public methods of :class:`CallsForCallers`, for callers on any thread and loop."""

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

    async def end_caller_async(self, caller: Caller, server_ids: Collection[str]) -> None:
        """End the sessions that servers keep for a caller, each with the last of its calls under way; see :meth:`end_caller`."""

class ForCallerMirror(TaskVerbsMirror, metaclass=ABCMeta):
    """The public methods of :class:`ForCaller`, for callers on any thread and loop."""

    def list_all_tools(self, server_ids: Collection[str] | None = None, *, timeout: float | None = None) -> ToolCatalog:
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

    async def list_all_tools_async(
        self, server_ids: Collection[str] | None = None, *, timeout: float | None = None
    ) -> ToolCatalog:
        """Return the tools that servers list for this caller, with the names of :meth:`McpManager.list_all_tools`; see :meth:`list_all_tools`."""

    def execute_raw(
        self, server_id: str | Selector, request: bytes, *, timeout: float | None = None, key: str | None = None
    ) -> bytes:
        """Send one JSON-RPC request as bytes and return the response as bytes; see :meth:`McpManager.execute_raw`."""

    async def execute_raw_async(
        self, server_id: str | Selector, request: bytes, *, timeout: float | None = None, key: str | None = None
    ) -> bytes:
        """Send one JSON-RPC request as bytes and return the response as bytes; see :meth:`McpManager.execute_raw`."""

    def execute_text(
        self, server_id: str | Selector, request: str, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send one JSON-RPC request as text and return the response as text; see :meth:`McpManager.execute_raw`."""

    async def execute_text_async(
        self, server_id: str | Selector, request: str, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send one JSON-RPC request as text and return the response as text; see :meth:`McpManager.execute_raw`."""

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
        """Send a request and return the reply as received: the seam under :meth:`request` and the typed verbs."""

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
        """Send a request and return the reply as received: the seam under :meth:`request` and the typed verbs; see :meth:`call`."""
