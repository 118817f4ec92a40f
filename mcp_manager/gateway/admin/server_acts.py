"""The requests that change servers, or take them in and out of traffic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import msgspec
from aiohttp import web

from mcp_manager.config import ServerConfig
from mcp_manager.gateway.admin import waiting
from mcp_manager.gateway.admin.acts import Acts
from mcp_manager.gateway.admin.bodies import NewServer, Replacement, Scale, read
from mcp_manager.gateway.admin.current import MISSED, SERVER
from mcp_manager.gateway.admin.fleet_state import ActOnServer, plain_config
from mcp_manager.gateway.admin.given_servers import merged, server_of
from mcp_manager.gateway.admin.masks import shown_server
from mcp_manager.gateway.admin.problems import NO_STORE
from mcp_manager.gateway.admin.requests import one_of, read_object, seconds, take_query
from mcp_manager.gateway.admin.revisions import Revisions
from mcp_manager.gateway.admin.servers import Servers
from mcp_manager.gateway.admin.sibling_acts import AdminSiblings
from mcp_manager.manager import McpManager

__all__ = ["ServerActs"]

_PATCHES: Final = ("application/merge-patch+json", "application/json")
_WAIT_S: Final = 30.0
_DRAIN_S: Final = 10.0


class ServerActs:
    """Answer requests that act on servers.

    Each answers with the server as it is then: 200, 201 if it is new, or 202 if what was asked for goes on.

    Parameters
    ----------
    manager
        The fleet.
    servers
        Shows servers.
    revisions
        Tells their revisions.
    siblings
        The other workers; ``None`` without any.
    """

    def __init__(
        self, manager: McpManager, servers: Servers, revisions: Revisions, siblings: AdminSiblings | None
    ) -> None:
        self._siblings = siblings
        self._manager = manager
        self._servers = servers
        self._revisions = revisions
        self._acts = Acts(manager)

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        await self._acts.aclose()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, below the root of the API."""
        return [
            web.post("/servers", self._deploy),
            web.put("/servers/{id}", self._replace),
            web.patch("/servers/{id}", self._patch),
            web.delete("/servers/{id}", self._undeploy),
            web.post("/servers/{id}/scale", self._scale),
            web.post("/servers/{id}/redeploy", self._redeploy),
            web.post("/servers/{id}/suspend", self._suspend),
            web.post("/servers/{id}/resume", self._resume),
            web.post("/servers/{id}/drain", self._drain),
        ]

    async def _deploy(self, request: web.Request) -> web.Response:
        wait = _wait(request)
        body = await read(request, NewServer)
        SERVER.get()[0] = body.id
        config = server_of(body.id, body.config, path="config")
        await self._acts.deploy(body.id, config)
        await self._tell("deploy", body.id)
        status = 201 if await self._is_ready(body.id, wait) else 202
        location = f"/api/v1/servers/{quote(body.id, safe='')}"
        return self._response(body.id, status, Location=location)

    async def _replace(self, request: web.Request) -> web.Response:
        return await self._update(request, await read_object(request), is_patch=False)

    async def _patch(self, request: web.Request) -> web.Response:
        return await self._update(request, await read_object(request, _PATCHES), is_patch=True)

    async def _update(self, request: web.Request, body: dict[str, Any], *, is_patch: bool) -> web.Response:
        wait, server_id = _wait(request), request.match_info["id"]

        def wanted() -> ServerConfig:
            before = self._checked(request)
            given = merged(shown_server(before), body) if is_patch else body
            return server_of(server_id, given, before)

        is_in_force = await self._acts.update(server_id, wanted)
        await self._tell("update", server_id)
        is_ready = await self._is_ready(server_id, wait)
        return self._response(server_id, 200 if is_in_force and is_ready else 202)

    async def _undeploy(self, request: web.Request) -> web.Response:
        timeout_s = take_query(request, drain_timeout_s=seconds).get("drain_timeout_s")

        def check() -> None:
            self._checked(request)

        server_id = request.match_info["id"]
        default_s = self._manager.server_config(server_id).drain_timeout_s
        await self._acts.undeploy(server_id, check, timeout_s)
        if self._siblings is not None:
            left_s = default_s if timeout_s is None else timeout_s
            await self._siblings.tell(ActOnServer(act="undeploy", server_id=server_id, timeout_s=left_s))
        return web.Response(status=204, headers=NO_STORE)

    async def _scale(self, request: web.Request) -> web.Response:
        instances = (await read(request, Scale)).instances
        return await self._act(request, "scale", partial(self._acts.scale, instances=instances))

    async def _redeploy(self, request: web.Request) -> web.Response:
        wait, server_id = _wait(request), request.match_info["id"]
        how = await read(request, Replacement)
        self._checked(request)
        task = await self._acts.redeploy(server_id, how)
        await self._tell("redeploy", server_id, how=msgspec.structs.asdict(how))
        if wait is None:
            return self._response(server_id, 202)
        began = time.monotonic()
        await asyncio.wait({task}, timeout=wait)
        if task.done():
            task.result()
        left_s = max(wait - (time.monotonic() - began), 0.0)
        is_over = task.done() and await self._is_ready(server_id, left_s)
        return self._response(server_id, 200 if is_over else 202)

    async def _suspend(self, request: web.Request) -> web.Response:
        take_query(request)
        server_id = request.match_info["id"]
        self._checked(request)
        await self._acts.suspend(server_id)
        await self._tell("scale", server_id, instances=0)
        is_over = not self._manager.server(server_id).draining
        return self._response(server_id, 200 if is_over else 202)

    async def _resume(self, request: web.Request) -> web.Response:
        return await self._act(request, "resume", self._acts.resume)

    async def _drain(self, request: web.Request) -> web.Response:
        timeout_s = take_query(request, timeout_s=seconds).get("timeout_s", _DRAIN_S)
        server_id = request.match_info["id"]
        self._checked(request)
        told = self._tell("drain", server_id, timeout_s=timeout_s)
        is_over, _ = await asyncio.gather(self._acts.drain(server_id, timeout_s), told)
        return self._response(server_id, 200 if is_over else 202)

    async def _act(self, request: web.Request, name: str, act: Callable[[str], Any]) -> web.Response:
        """Do what takes effect at once, and wait for instances if that is asked for."""
        wait, server_id = _wait(request), request.match_info["id"]
        self._checked(request)
        await act(server_id)
        await self._tell(name, server_id, instances=self._manager.server(server_id).desired)
        return self._response(server_id, 200 if await self._is_ready(server_id, wait) else 202)

    async def _tell(self, act: str, server_id: str, **more: Any) -> None:
        """Tell the other workers of an act; the header field of the response names those that did not do it."""
        if self._siblings is not None:
            config = plain_config(self._manager.server_config(server_id))
            missed = await self._siblings.tell(ActOnServer(act=act, server_id=server_id, config=config, **more))
            MISSED.set(tuple(missed))

    def _response(self, server_id: str, status: int, **headers: str) -> web.Response:
        missed = MISSED.get()
        if missed:
            headers["Workers-Missed"] = ", ".join(map(str, missed))
        return self._servers.response(server_id, 202 if missed and status < 202 else status, **headers)

    def _checked(self, request: web.Request) -> ServerConfig:
        """Return the configuration of the server that a request is about, if it has the revision that is meant."""
        server_id = request.match_info["id"]
        config = self._manager.server_config(server_id)
        self._revisions.check(self._manager, server_id, request)
        return config

    async def _is_ready(self, server_id: str, wait: float | None) -> bool:
        return wait is None or await waiting.ready(self._manager, server_id, wait)


def _wait(request: web.Request) -> float | None:
    """Return how many seconds the client wants to wait for the server to be ready; ``None`` for not at all."""
    query = take_query(request, wait=one_of("ready"), timeout_s=seconds)
    timeout_s: float = query.get("timeout_s", _WAIT_S)
    return timeout_s if "wait" in query else None
