"""The servers of the fleet, as the admin API shows them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from mcp_manager.errors import ServerNotFoundError
from mcp_manager.gateway.admin.current import FROM_SIBLING
from mcp_manager.gateway.admin.masks import shown_server
from mcp_manager.gateway.admin.problems import NO_STORE
from mcp_manager.gateway.admin.requests import json_response, take_query
from mcp_manager.gateway.admin.revisions import Revisions
from mcp_manager.gateway.admin.sibling_acts import AdminSiblings
from mcp_manager.manager import McpManager
from mcp_manager.observe.views import ServerView

__all__ = ["Servers"]

# The loop turns in between, for a large fleet.
_AT_ONCE: Final = 100


class Servers:
    """Answer requests that read servers.

    Parameters
    ----------
    manager
        The fleet.
    revisions
        Tells their revisions.
    siblings
        The other workers; ``None`` without any.
    """

    def __init__(self, manager: McpManager, revisions: Revisions, siblings: AdminSiblings | None) -> None:
        self._siblings = siblings
        self._manager = manager
        self._revisions = revisions

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, below the root of the API."""
        return [
            web.get("/servers", self._all),
            web.get("/servers/{id}", self._one),
        ]

    def shown(self, server_id: str) -> tuple[dict[str, Any], str]:
        """Return a server with its configuration, without secrets, and its revision."""
        view = self._manager.server(server_id)
        revision = self._revisions.of(self._manager, server_id)
        config = shown_server(self._manager.server_config(server_id))
        return {**view.to_dict(), "revision": revision, "config": config}, revision

    def response(self, server_id: str, status: int = 200, **headers: str) -> web.Response:
        """Return a response that shows a server."""
        shown, revision = self.shown(server_id)
        return json_response(shown, status, {"ETag": f'"{revision}"', **headers})

    async def _all(self, request: web.Request) -> web.Response:
        take_query(request)
        found = []
        for number, view in enumerate(self._manager.servers(), 1):
            found.append(self._entry(view))
            if not number % _AT_ONCE:
                await asyncio.sleep(0)
        if self._siblings is not None and not FROM_SIBLING.get():
            # Each server is shown as the worker sees it that administers it.
            others = await self._siblings.read("/servers")
            by_id = {number: {each["id"]: each for each in body["servers"]} for number, body in others.items()}
            found = [by_id.get(self._siblings.owner(each["id"]), {}).get(each["id"], each) for each in found]
        return json_response({"servers": found})

    def _entry(self, view: ServerView) -> dict[str, Any]:
        try:
            revision = self._revisions.of_view(self._manager, view)
        except ServerNotFoundError:
            # It was removed meanwhile.
            revision = ""
        return {**view, "revision": revision}

    async def _one(self, request: web.Request) -> web.Response:
        take_query(request)
        response = self.response(request.match_info["id"])
        known = {each.value for each in request.if_none_match or ()}
        etag = response.headers["ETag"]
        if known & {etag.strip('"'), "*"}:
            return web.Response(status=304, headers={**NO_STORE, "ETag": etag})
        return response
