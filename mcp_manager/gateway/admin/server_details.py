"""What a server offers and has done lately: its tools, its calls, and what its programs wrote."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec
from aiohttp import web

from mcp_manager.gateway.admin.current import FROM_SIBLING
from mcp_manager.gateway.admin.problems import refused
from mcp_manager.gateway.admin.requests import count, json_response, take_query
from mcp_manager.gateway.admin.sibling_acts import AdminSiblings
from mcp_manager.gateway.endpoints.kinds import TOOLS
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.manager import McpManager

__all__ = ["ServerDetails", "ShownTool"]

_SHOWN: Final = 100
_LIST_S: Final = 10.0
_MOST_PAGES: Final = 1_000


class ShownTool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool of a server.

    Parameters
    ----------
    name, title, description
        As the server lists it.
    input_schema
        The schema of its arguments.
    annotations
        What the server claims about it; ``None`` without.
    pin
        ``pinned``, if its definition is the pinned one; ``different``, if not; ``off``, if nothing is compared.
    difference
        What differs.
    blocked
        Whether clients neither see nor call it.
    """

    name: str
    title: str | None
    description: str | None
    input_schema: Any
    annotations: Any
    pin: Literal["off", "pinned", "different"]
    difference: str
    blocked: bool


class ServerDetails:
    """Answer requests for details of servers.

    Parameters
    ----------
    manager
        The fleet.
    pins
        The definitions that were approved of.
    siblings
        The other workers; ``None`` without any.
    """

    def __init__(self, manager: McpManager, pins: Pins, siblings: AdminSiblings | None) -> None:
        self._siblings = siblings
        self._manager = manager
        self._pins = pins

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, below the root of the API."""
        return [
            web.get("/servers/{id}/tools", self._tools),
            web.get("/servers/{id}/flights", self._flights),
            web.get("/servers/{id}/stderr", self._stderr),
        ]

    async def _tools(self, request: web.Request) -> web.Response:
        take_query(request)
        server_id = request.match_info["id"]
        try:
            async with asyncio.timeout(_LIST_S):
                listed = await self._listed(server_id)
        except TimeoutError:
            raise refused(504, f"The server did not list its tools within {_LIST_S:g} s") from None
        different: dict[str, str] = {}
        if self._pins.is_on:
            entries = [(_text(each.get("name")) or "", msgspec.json.encode(each)) for each in listed]
            different = self._pins.compare(server_id, TOOLS, entries)
        return json_response({"tools": [self._shown(each, different) for each in listed]})

    async def _listed(self, server_id: str) -> list[dict[str, Any]]:
        """Return the entries that a server lists, as it writes them."""
        found: list[dict[str, Any]] = []
        cursor: Any = None
        for _ in range(_MOST_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            page = await self._manager.request(server_id, TOOLS.method, params, timeout=_LIST_S)
            entries = page.get("tools") if isinstance(page, dict) else None
            found += [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
            cursor = page.get("nextCursor") if isinstance(page, dict) else None
            if cursor is None:
                break
        return found

    def _shown(self, tool: dict[str, Any], different: dict[str, str]) -> ShownTool:
        pins, name = self._pins, _text(tool.get("name")) or ""
        why = different.get(name, "")
        return ShownTool(
            name=name,
            title=_text(tool.get("title")),
            description=_text(tool.get("description")),
            input_schema=tool.get("inputSchema"),
            annotations=tool.get("annotations"),
            pin="off" if not pins.is_on else "different" if why else "pinned",
            difference=why,
            blocked=bool(why) and pins.blocks,
        )

    async def _flights(self, request: web.Request) -> web.Response:
        limit = take_query(request, limit=count).get("limit", _SHOWN)
        server_id = request.match_info["id"]
        self._manager.server_state(server_id)
        found = [each.to_dict() for each in self._manager.flight_records() if each.server_id == server_id]
        found = found[: -limit - 1 : -1]
        if (
            self._siblings is not None
            and not FROM_SIBLING.get()
            and self._manager.server(server_id).transport != "stdio"
        ):
            # Every worker calls a server over HTTP by itself.
            for body in (
                await self._siblings.read(f"/servers/{quote(server_id, safe='')}/flights?limit={limit}")
            ).values():
                found += body["flights"]
            found = sorted(found, key=lambda each: str(each["started_at"]), reverse=True)[:limit]
        return json_response({"flights": found})

    async def _stderr(self, request: web.Request) -> web.Response:
        limit = take_query(request, limit=count).get("limit", _SHOWN)
        last = deque([each async for each in self._manager.stderr_lines(request.match_info["id"])], maxlen=limit)
        return json_response({"lines": list(last)})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
