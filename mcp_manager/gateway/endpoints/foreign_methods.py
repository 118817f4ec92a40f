"""Requests that name neither a tool, a prompt nor a resource: tasks, and the methods of extensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Route
from mcp_manager.gateway.endpoints.introductions import Introductions
from mcp_manager.gateway.endpoints.owned_tasks import LIST_TASKS, TASKS, EndpointTasks
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.methods import CLIENT_METHODS

__all__ = ["ForeignMethods", "resembles_known"]

_OWN: Final = {"source": "gateway"}
_LOOK_S: Final = 2.0

_plain_methods = {method.casefold(): method for method in CLIENT_METHODS}


class ForeignMethods:
    """Find the server that a request of an extension is for.

    Parameters
    ----------
    introductions
        What the servers have said about themselves.
    tasks
        The tasks of the endpoint.
    adapter
        Returns what puts a server's responses into the terms of clients.
    """

    def __init__(
        self, introductions: Introductions, tasks: EndpointTasks, adapter: Callable[[str], Callable[[bytes], bytes]]
    ) -> None:
        self._introductions = introductions
        self._tasks = tasks
        self._adapter = adapter

    async def route(
        self, message: Message, client: Client, server_ids: list[str], hides_tools: Callable[[str], bool]
    ) -> Route:
        """Return the route to the only server that can answer a request, or for a task, to the one that has it.

        Parameters
        ----------
        message
            The request.
        client
            Who asks.
        server_ids
            The servers that the endpoint shows, in the order of precedence.
        hides_tools
            Says of a server whether some of its tools are hidden. Then its tasks are not listed, because they may be
            those of hidden tools.

        Raises
        ------
        RpcError
            There is no such server, or there are several.
        """
        method = message.method or ""
        area = method.partition("/")[0]
        if area == TASKS and method != LIST_TASKS:
            server_id, client_id, request = self._tasks.find(message, client)
            if server_id not in server_ids:
                raise self._tasks.unknown(client_id)
            adapt = self._tasks.answering(client_id, self._adapter(server_id))
            return Route(server_id, request, adapt, self._tasks)
        identities = await self._introductions.of(server_ids, _LOOK_S)
        able = [each for each, said in identities.items() if said is not None and _can(said, area)]
        if method == LIST_TASKS and any(map(hides_tools, able)):
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}", _OWN)
        if len(able) != 1:
            hint = f"{len(able)} servers have it: use the endpoint of one of them" if able else "no server declares it"
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:100]}", {**_OWN, "hint": hint})
        server_id, adapt = able[0], self._adapter(able[0])
        if method == LIST_TASKS:
            adapt = self._tasks.listing(client, server_id, adapt)
        return Route(server_id, message, adapt, self._tasks)


def resembles_known(method: str) -> bool:
    """Return whether a method is one of MCP's that concerns no extension, or may be taken for one: ``Tools/Call``."""
    shown = "".join(char for char in method if char.isprintable() and not char.isspace())
    known = _plain_methods.get(shown.casefold())
    return known is not None and (known != method or not known.startswith(f"{TASKS}/"))


def _can(said: ServerIdentity, area: str) -> bool:
    if area in said.capabilities:
        return True
    extensions = said.capabilities.get("extensions")
    return isinstance(extensions, dict) and any(each.rpartition("/")[2] == area for each in extensions)
