"""The servers of the fleet, as the admin API shows them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from mcp_manager.errors import ServerNotFoundError
from mcp_manager.gateway.admin.current import FROM_SIBLING
from mcp_manager.gateway.admin.masks import shown_server
from mcp_manager.gateway.admin.pages import MOST_ON_A_PAGE, page_after, place
from mcp_manager.gateway.admin.problems import NO_STORE
from mcp_manager.gateway.admin.requests import count, json_response, take_query
from mcp_manager.gateway.admin.revisions import Revisions
from mcp_manager.gateway.admin.sibling_acts import AdminSiblings
from mcp_manager.manager import McpManager

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
        query = take_query(request, limit=partial(count, most=MOST_ON_A_PAGE), cursor=place)
        limit = query.get("limit", MOST_ON_A_PAGE)
        ids, cursor = page_after(self._manager._servers, query.get("cursor", ""), limit)
        others = await self._seen_by_others(f"/servers?{urlencode({**request.query, 'limit': limit})}")
        found = []
        for number, server_id in enumerate(ids, 1):
            # Each server is shown as the worker sees it that administers it.
            if entry := others.get(server_id) or self._entry(server_id):
                found.append(entry)
            if not number % _AT_ONCE:
                await asyncio.sleep(0)
        return json_response({"servers": found, "next": cursor})

    async def _seen_by_others(self, path: str) -> dict[str, dict[str, Any]]:
        """Return the servers of a page that other workers administer, as these show them, by id."""
        siblings = self._siblings
        if siblings is None or FROM_SIBLING.get():
            return {}
        pages = (await siblings.read(path)).items()
        return {
            each["id"]: each
            for number, page in pages
            for each in page["servers"]
            if siblings.owner(each["id"]) == number
        }

    def _entry(self, server_id: str) -> dict[str, Any] | None:
        """Return a server as lists show it; ``None`` if it was removed meanwhile."""
        try:
            view = self._manager.server(server_id)
            return {**view, "revision": self._revisions.of_view(self._manager, view)}
        except ServerNotFoundError:
            return None

    async def _one(self, request: web.Request) -> web.Response:
        take_query(request)
        response = self.response(request.match_info["id"])
        known = {each.value for each in request.if_none_match or ()}
        etag = response.headers["ETag"]
        if known & {etag.strip('"'), "*"}:
            return web.Response(status=304, headers={**NO_STORE, "ETag": etag})
        return response
