"""Requests and results of the stateless revisions where nothing about them is unusual (2026-07-28, basic)."""

from typing import Any, Self, final

from mcp_manager._core.http_message import Exchange, Request
from mcp_manager._core.jsonrpc import Message

__pyx_capi__: dict[str, object]

@final
class StatelessFrame:
    """Frame requests that name what they ask for, as the dialect in Python does, byte for byte.

    Parameters
    ----------
    opening
        JSON of the params up to the end of their ``_meta``, the bracket of the object included.
    methods
        For each method, as JSON, its header line and the member of the params that goes into ``Mcp-Name``.
    mirrored
        Has the names of the tools whose arguments go into headers too; may change.
    """

    def __new__(cls, opening: bytes, methods: dict[bytes, tuple[bytes, bytes]], mirrored: dict[str, Any]) -> Self: ...
    def open_with(self, opening: bytes) -> None:
        """Begin params like this from now on."""

    def exchange(self, request: Message | Request, request_id: int, deadline_ns: int) -> Exchange | None:
        """Make the exchange of a request, ``None`` for one that has anything unusual and may even be wrong."""

def says_complete(reply: Message) -> bool:
    """Tell whether a result shows at a glance to be the end of its call; ``False`` means that it has to be read."""
