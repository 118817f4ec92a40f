"""The endpoint of one server: its names, lists and results are passed on as they are."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import McpManagerError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Description, PersonalServers, Route
from mcp_manager.gateway.endpoints.introductions import Introductions
from mcp_manager.gateway.endpoints.kinds import TOOLS
from mcp_manager.gateway.endpoints.listings import Listing, Listings, input_schema_of
from mcp_manager.gateway.endpoints.owned_tasks import LIST_TASKS, EndpointTasks, OwnedTasks, is_of_tasks
from mcp_manager.gateway.endpoints.request_params import check_clear, is_clear
from mcp_manager.gateway.security.credential_errors import LoginRequiredError
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.manager import McpManager
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.methods import CALL_TOOL

__all__ = ["ASSUMED_CAPABILITIES", "SingleServer", "description_of"]

_WAIT_S: Final = 5.0

ASSUMED_CAPABILITIES: Final[dict[str, Any]] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}
"""What is declared for a server that could not be asked: a client that finds less here never asks for it again."""


class SingleServer:
    """Show one server under ``/servers/{id}/mcp``; see :class:`~mcp_manager.gateway.endpoints.base.Endpoint`.

    Parameters
    ----------
    manager
        The fleet.
    server_id
        The server.
    introductions, listings
        What servers have said about themselves, and their lists; ``None`` makes them.
    wait_s
        Seconds that :meth:`describe` waits for a server that is not connected yet.
    personal
        The servers that get something of each client; ``None``: none do.
    tasks
        Whose tasks there are; ``None``: each client that does not authenticate may use all.
    """

    # Routes never change: see KnownRoutes.
    routing: object = object()
    known_until_ns: int = 1 << 62

    def __init__(
        self,
        manager: McpManager,
        server_id: str,
        introductions: Introductions | None = None,
        listings: Listings | None = None,
        wait_s: float = _WAIT_S,
        personal: PersonalServers | None = None,
        tasks: OwnedTasks | None = None,
    ) -> None:
        self._manager = manager
        self._introductions = Introductions(manager) if introductions is None else introductions
        self._listings = Listings(manager) if listings is None else listings
        self._schemas: tuple[Listing, dict[str, bytes]] = ((), {})
        self._server_id = server_id
        self._wait_s = wait_s
        self._personal = personal
        self.name: str = f"server/{server_id}"
        self.key: str = self.name
        self.is_merged: bool = False
        self.lists_others: None = None
        self.tasks: EndpointTasks = (OwnedTasks(Sealer()) if tasks is None else tasks).at(self.name, is_merged=False)

    def servers(self) -> list[str]:
        """Return the id of the server."""
        return [self._server_id]

    def shows(self, server_id: str) -> bool:
        """Return whether it is this server."""
        return server_id == self._server_id

    def allows(self, method: str) -> bool:
        """Return ``True``."""
        return True

    def shows_resource(self, method: str, server_id: str, uri: str) -> bool:
        """Return whether it is this server."""
        return server_id == self._server_id

    @property
    def may_lead_back(self) -> bool:
        """Whether the server has a URL: a program or a server in memory is never this gateway."""
        return self._manager.server(self._server_id).transport in ("http", "sse")

    @property
    def is_personal(self) -> bool:
        """Whether the server gets something of each client."""
        return self._personal is not None and self._personal.is_personal(self._server_id)

    async def describe(self, client: Client) -> Description:
        """Return how the server introduces itself.

        If it is not connected within a few seconds, all capabilities are assumed, and the instructions say so.
        """
        server_id = self._server_id
        if self._personal is None or not self.is_personal:
            return self.describes((await self._introductions.of([server_id], self._wait_s))[server_id])
        identity, way_out = None, ""
        try:
            async with asyncio.timeout(self._wait_s):
                identity = await self._personal.identity_for(server_id, client)
        except LoginRequiredError as refusal:
            way_out = refusal.way_out
        except (McpManagerError, TimeoutError):
            pass
        found = self.describes(identity)
        return msgspec.structs.replace(found, instructions=f"{found.instructions} {way_out}") if way_out else found

    def describes(self, identity: ServerIdentity | None) -> Description:
        """Return how the server introduces itself; see :func:`description_of`."""
        return description_of(self._server_id, identity)

    async def tool_schema(self, name: str, client: Client) -> bytes | None:
        """Return the input schema of a tool; ``None`` if it is not known."""
        lists = await self._listings.of([self._server_id], TOOLS)
        listing = lists.found.get(self._server_id, ())
        if self._schemas[0] is not listing:
            self._schemas = listing, {entry.key: schema for entry in listing if (schema := input_schema_of(entry))}
        return self._schemas[1].get(name)

    async def own_result(self, message: Message, client: Client) -> bytes | None:
        """Answer nothing: the server does."""
        return None

    async def route(self, message: Message, client: Client) -> Route:
        """Return the server, and the request as it is; if clients authenticate, a task is there for its owner alone."""
        if not self._is_of_tasks(message, client):
            check_clear(message)
            return self._as_it_is(message, client)
        method, server_id, tasks = message.method or "", self._server_id, self.tasks
        tasks.check_method(method, client)
        if method == LIST_TASKS:
            return Route(server_id, message, tasks.listing(client, server_id, None), tasks)
        found, client_id, request = tasks.find(message, client)
        if found != server_id:
            raise tasks.unknown(client_id)
        return Route(server_id, request, tasks.answering(client_id, None), tasks)

    def known_route(self, message: Message, client: Client) -> Route | None:
        """Return the server, and the request as it is, unless it is about tasks."""
        if self._is_of_tasks(message, client) or not is_clear(message):
            return None
        return self._as_it_is(message, client)

    def _as_it_is(self, message: Message, client: Client) -> Route:
        adapt = self.tasks.creating(message, client, self._server_id, None)
        return Route(self._server_id, message, adapt, self.tasks)

    def _is_of_tasks(self, message: Message, client: Client) -> bool:
        method = message.method or ""
        return method != CALL_TOOL and self.tasks.seals(client) and is_of_tasks(method)

    async def route_uri(self, uri: str, client: Client, method: str = "resources/read") -> tuple[str, str]:
        """Return the server, and the URI as it is."""
        return self._server_id, uri

    def adapter(self, server_id: str) -> None:
        """Return nothing: responses are passed on as they are."""


def description_of(server_id: str, identity: ServerIdentity | None) -> Description:
    """Return how a server introduces itself; ``None`` if it cannot be reached: then all capabilities are assumed."""
    if identity is None:
        text = f"The server {server_id!r} cannot be reached at present, so what it offers is not known yet."
        return Description(ASSUMED_CAPABILITIES, {"name": server_id, "version": "unknown"}, text)
    info = identity.info or {"name": identity.name or server_id, "version": identity.version}
    return Description(identity.capabilities, info, identity.instructions)
