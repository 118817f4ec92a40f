# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta

from mcp_manager._core.jsonrpc import Message
from mcp_manager.bindings.mirrors.client_side import ClientSideMirror
from mcp_manager.bindings.mirrors.deployed_servers import DeployedServersMirror
from mcp_manager.bindings.mirrors.exchanges import ExchangesMirror
from mcp_manager.bindings.mirrors.fleet_tools import FleetToolsMirror
from mcp_manager.bindings.mirrors.management import FleetManagementMirror
from mcp_manager.bindings.mirrors.observation import ObservationMirror
from mcp_manager.bindings.mirrors.phase import LifetimeMirror
from mcp_manager.session import ProgressCallback
from mcp_manager.types import Selector

class McpManagerMirror(
    LifetimeMirror,
    DeployedServersMirror,
    ClientSideMirror,
    FleetManagementMirror,
    FleetToolsMirror,
    ObservationMirror,
    ExchangesMirror,
    metaclass=ABCMeta,
):
    """The public methods of :class:`McpManager`, for callers on any thread and loop."""

    def execute_raw(
        self, server_id: str | Selector, request: bytes, *, timeout: float | None = None, key: str | None = None
    ) -> bytes:
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

    async def execute_raw_async(
        self, server_id: str | Selector, request: bytes, *, timeout: float | None = None, key: str | None = None
    ) -> bytes:
        """Send one JSON-RPC request as bytes and return the whole JSON-RPC response as bytes; see :meth:`execute_raw`."""

    def execute_text(
        self, server_id: str | Selector, request: str, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send one JSON-RPC request as text and return the whole JSON-RPC response as text; see :meth:`execute_raw`."""

    async def execute_text_async(
        self, server_id: str | Selector, request: str, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send one JSON-RPC request as text and return the whole JSON-RPC response as text; see :meth:`execute_raw`."""

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
