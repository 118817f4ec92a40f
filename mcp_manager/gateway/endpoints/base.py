"""What every endpoint offers to the two eras of clients."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.auth.caller import Caller
from mcp_manager.calls.exchange_listener import Answer, ServerMessage
from mcp_manager.gateway.client import Client
from mcp_manager.protocol.handshake import ServerIdentity

__all__ = ["Description", "Endpoint", "KnownRoutes", "LooksAgain", "PersonalServers", "Route", "Tasks"]

LooksAgain = Callable[[], Awaitable[bool]]
"""Returns whether an endpoint lists other tools than when this was called last."""


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


class Tasks(Protocol):
    """The tasks of an endpoint, of which each client has its own."""

    def told(self, client: Client, server_id: str, sent: ServerMessage) -> ServerMessage | None:
        """Return a message of a server as a client gets it; ``None`` if it is about a task of another principal."""

    def answer(self, client: Client, answer: Awaitable[Answer] | Answer) -> Awaitable[Answer] | Answer:
        """Return what a client answers to a server, as the server gets it."""


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
    tasks
        The tasks that messages of the server may be about; ``None`` if they are passed on as they are.
    """

    server_id: str
    request: Message | bytes
    adapt: Callable[[bytes], bytes] | None = None
    tasks: Tasks | None = None


class PersonalServers(Protocol):
    """The servers that get something of each client, so that nothing at them is shared among clients."""

    def is_personal(self, server_id: str) -> bool:
        """Return whether a server is one of them."""

    async def personal_caller(self, server_id: str, client: Client) -> Caller | None:
        """Return whom something is done for at one of them; ``None`` for other servers. Raises as the next one."""

    async def party_for(self, server_id: str, client: Client) -> str:
        """Return what names a client at one of them: the same for what is one party to it. Raises as :meth:`ask`."""

    async def ask(self, server_id: str, client: Client, request: Message) -> bytes:
        """Return the response of one of them to a request that is made for a client.

        Raises
        ------
        RpcError
            There is none: there are no credentials of the client for the server, or it does not answer.
        """

    async def identity_for(self, server_id: str, client: Client) -> ServerIdentity:
        """Return how one of them introduces itself to a client.

        Raises
        ------
        McpManagerError
            There are no credentials of the client for the server, or it does not answer.
        """


class Endpoint(Protocol):
    """What clients see at one path.

    ``name`` is unique among endpoints: ``fleet``, ``view/{name}`` or ``server/{id}``. Under one name, clients may see
    different things, as the rules allow them: what is kept of what clients see goes by ``key``.
    ``is_merged`` says whether the gateway makes its lists, of those of one or several servers.
    """

    name: str
    key: str
    is_merged: bool

    @property
    def tasks(self) -> Tasks:
        """The tasks of its clients."""

    @property
    def is_personal(self) -> bool:
        """Whether it may introduce itself to each client in another way."""

    @property
    def lists_others(self) -> LooksAgain | None:
        """Tells whether other tools are listed than before; ``None`` if all that it shows are listed."""

    @property
    def may_lead_back(self) -> bool:
        """Whether one of its servers may be this gateway, as those that have a URL."""

    def servers(self) -> list[str]:
        """Return the ids of the servers that it shows, in a stable order."""

    def shows(self, server_id: str) -> bool:
        """Return whether it shows a server, or would show it if it were deployed."""

    def allows(self, method: str) -> bool:
        """Return whether requests with a method may be sent at all."""

    def shows_resource(self, method: str, server_id: str, uri: str) -> bool:
        """Return whether a request with a method may concern a resource, by the URI that its server knows."""

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

    async def route_uri(self, uri: str, client: Client, method: str = "resources/read") -> tuple[str, str]:
        """Return the server that a resource belongs to, and the URI that this server knows.

        Parameters
        ----------
        uri
            The resource, as the client names it.
        client
            Who asks.
        method
            What the client asks for.

        Raises
        ------
        RpcError
            No server of this endpoint has it.
        """

    def adapter(self, server_id: str) -> Callable[[bytes], bytes] | None:
        """Return what puts a server's responses into the terms of clients; ``None`` if they are passed on as they are."""


class KnownRoutes:
    """An endpoint whose routes may change.

    Attributes
    ----------
    routing, known_until_ns
        A route that :meth:`Endpoint.known_route` has returned is the same as long as ``routing`` is the same object, and
        the monotonic clock shows less than ``known_until_ns``.
    """

    routing: object = object()
    known_until_ns: int = 0

    def _know_routes(self, for_s: float) -> None:
        """Let routes hold for some seconds; 0 if a list must be as new as can be known, as when pins block."""
        self.known_until_ns = time.monotonic_ns() + int(for_s * 1e9)

    def _forget_routes(self) -> None:
        """Let no route hold any more that was known before."""
        self.routing = object()
