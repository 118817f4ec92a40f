# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta

from mcp_manager._core.jsonrpc import Message
from mcp_manager.bindings.mirrors.tasks import TaskVerbsMirror
from mcp_manager.session import ProgressCallback
from mcp_manager.types import Selector

class CallsForCallersMirror(TaskVerbsMirror, metaclass=ABCMeta):
    """The public methods of :class:`CallsForCallers`, for callers on any thread and loop."""

class ForCallerMirror(TaskVerbsMirror, metaclass=ABCMeta):
    """The public methods of :class:`ForCaller`, for callers on any thread and loop."""

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
