"""What every endpoint offers to the two eras of clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.gateway.client import Client

__all__ = ["Description", "Endpoint", "Route"]


class Description(msgspec.Struct, frozen=True):
    """How an endpoint introduces itself to clients, in ``initialize`` and in ``server/discover``.

    Parameters
    ----------
    capabilities
        The server capabilities.
    server_info
        ``name``, ``version`` and what else an implementation says of itself.
    instructions
        A text for the model, or ``None``.
    """

    capabilities: dict[str, Any]
    server_info: dict[str, Any]
    instructions: str | None = None


class Route(msgspec.Struct, frozen=True):
    """Where a request of a client goes.

    Parameters
    ----------
    server_id
        The server.
    request
        The request, with the names that this server knows; bytes if they differ from those of the client.
    adapt
        Puts the response into the terms of the client; ``None`` if it is passed on as it is.
    """

    server_id: str
    request: Message | bytes
    adapt: Callable[[bytes], bytes] | None = None


class Endpoint(Protocol):
    """What clients see at one path.

    ``name`` is unique among endpoints: ``fleet``, ``view/{name}`` or ``server/{id}``.
    ``is_merged`` says whether its lists are made of those of several servers.
    """

    name: str
    is_merged: bool

    @property
    def may_lead_back(self) -> bool:
        """Whether one of its servers may be this gateway, as those that have a URL."""

    def servers(self) -> list[str]:
        """Return the ids of the servers that it shows, in a stable order."""

    def shows(self, server_id: str) -> bool:
        """Return whether it shows a server, or would show it if it were deployed."""

    async def describe(self, client: Client) -> Description:
        """Return how the endpoint introduces itself; waits for servers that are not connected yet, but not for long."""

    async def tool_schema(self, name: str, client: Client) -> bytes | None:
        """Return the input schema of a tool as its server wrote it, by the name that clients know; ``None`` if unknown.

        It may wait a few seconds for servers whose tools are not known yet.
        """

    async def own_result(self, message: Message, client: Client) -> bytes | None:
        """Return the result of a request that the endpoint answers itself, such as a merged list, as JSON.

        Lists have no members that only one era knows: the era adds them.

        Returns
        -------
        ``None`` if the request belongs to one server: see :meth:`route`.

        Raises
        ------
        RpcError
            The request is wrong, such as a cursor that the endpoint has not made.
        """

    async def route(self, message: Message, client: Client) -> Route:
        """Return which server a request or notification belongs to.

        Raises
        ------
        RpcError
            No server of this endpoint has what the request names.
        """

    def known_route(self, message: Message, client: Client) -> Route | None:
        """Return what :meth:`route` would, if that is known without asking a server; else ``None``.

        There is a route only if :meth:`own_result` has no result.
        """

    async def route_uri(self, uri: str, client: Client) -> tuple[str, str]:
        """Return the server that a resource belongs to, and the URI that this server knows.

        Raises
        ------
        RpcError
            No server of this endpoint has it.
        """

    def adapter(self, server_id: str) -> Callable[[bytes], bytes] | None:
        """Return what puts a server's responses into the terms of clients; ``None`` if they are passed on as they are."""
