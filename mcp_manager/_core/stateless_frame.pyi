"""Frames ordinary requests of the stateless revisions, and recognizes their complete results (2026-07-28, basic)."""

from typing import Any, Self, final

from mcp_manager._core.http_message import Exchange, Request
from mcp_manager._core.jsonrpc import Message

__pyx_capi__: dict[str, object]

@final
class StatelessFrame:
    """Frame requests for something that has a name, byte for byte as the dialect in Python does.

    Parameters
    ----------
    opening
        The params as JSON, from the opening bracket to the end of their ``_meta``.
    methods
        By method, as JSON: its header line, and the member of the params that goes into ``Mcp-Name``.
    mirrored
        Contains the names of the tools whose arguments go into headers, too; may change later.
    """

    def __new__(cls, opening: bytes, methods: dict[bytes, tuple[bytes, bytes]], mirrored: dict[str, Any]) -> Self: ...
    def open_with(self, opening: bytes) -> None:
        """Use another ``opening`` from now on."""

    def exchange(self, request: Message | Request, request_id: int, deadline_ns: int) -> Exchange | None:
        """Return the exchange of a request; ``None`` if anything in it is unusual or may be wrong."""

def says_complete(reply: Message) -> bool:
    """Return whether a result is evidently the end of its call; ``False`` means that it must be decoded to know."""
