"""Several workers as one to administrators: each server is administered by one of them, which tells the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from mcp_manager.errors import McpManagerError, ServerNotFoundError
from mcp_manager.gateway.admin import waiting
from mcp_manager.gateway.admin.administered import Administered
from mcp_manager.gateway.admin.events import AdminEvents
from mcp_manager.gateway.admin.fleet_state import ActOnServer, FleetState, StateOfWorker
from mcp_manager.gateway.admin.problems import NO_STORE, refused
from mcp_manager.gateway.workers.ownership import owner_of
from mcp_manager.gateway.workers.worker import Worker
from mcp_manager.runtime.background import background_task

__all__ = ["ROOT", "AdminSiblings"]

_log = logging.getLogger(__name__)

ROOT: Final = "/siblings/admin"
"""Where workers find each other's admin API."""
_API: Final = "/api/v1"
_PASSED: Final = ("Content-Type", "If-Match", "If-None-Match")
_RETURNED: Final = ("Content-Type", "ETag", "Location", "Allow", "Retry-After", "Accept", "Workers-Missed")
_FIRST: Final = 0
_OF_THE_FIRST: Final = frozenset({("GET", "/config"), ("HEAD", "/config"), ("PUT", "/config"), ("POST", "/reload")})
_READ_S: Final = 5.0
_AGAIN_S: Final = 1.0
_act_decoder = msgspec.json.Decoder(ActOnServer)
_state_decoder = msgspec.json.Decoder(StateOfWorker)


class AdminSiblings:
    """The other workers, as the admin API of one sees them.

    Parameters
    ----------
    worker
        This process.
    gateway
        The gateway.
    state
        The fleet as administrators have changed it.
    """

    def __init__(self, worker: Worker, gateway: Administered, state: FleetState) -> None:
        self._worker = worker
        self._siblings = worker.siblings
        self._gateway = gateway
        self._state = state
        self._tasks: set[asyncio.Task[Any]] = set()
        self.reload: Callable[[], Awaitable[str | None]] | None = None
        """Reads the file of this worker again."""
        self.replace: Callable[[dict[str, Any]], Awaitable[object]] | None = None
        """Applies a configuration in place of the file."""

    def owner(self, server_id: str) -> int:
        """Return the number of the worker that administers a server: the one that runs its program, if it is one."""
        return owner_of(server_id, self._siblings.count)

    def is_own(self, server_id: str | None) -> bool:
        """Tell whether this worker tells of a server; of what concerns no server, the first one does."""
        return (_FIRST if server_id is None else self.owner(server_id)) == self._siblings.number

    async def relay(self, request: web.Request) -> web.Response | None:
        """Let the worker answer a request that it belongs to; ``None`` if that is this one."""
        server_id, path = request.match_info.get("id"), request.path.removeprefix(_API)
        if server_id is None:
            if (request.method, path) == ("POST", "/servers"):
                server_id = _named(await request.read())
            if server_id is None and (request.method, path) not in _OF_THE_FIRST:
                return None
        if self.is_own(server_id):
            return None
        owner = _FIRST if server_id is None else self.owner(server_id)
        fields = {name: request.headers[name] for name in _PASSED if name in request.headers}
        where = ROOT + request.raw_path.removeprefix(_API)
        answer = await self._siblings.ask(owner, request.method, where, await request.read(), fields)
        if answer is None:
            text = f"Worker {owner} does not answer: it may have executed the request"
            raise refused(503, text, hint="GET the server before you send the request again", Retry_After="1")
        kept = CIMultiDict({name: answer.headers[name] for name in _RETURNED if name in answer.headers})
        return web.Response(status=answer.status, body=answer.body, headers=CIMultiDict({**NO_STORE, **kept}))

    async def tell(self, act: ActOnServer) -> list[int]:
        """Tell all siblings of an act of this worker; return the numbers of those that did not do it."""
        self._state.took(act)
        return await self._told("/told", msgspec.json.encode(act))

    async def tell_of_file(self, file: dict[str, Any]) -> list[int]:
        """Let all siblings apply a configuration in place of the file; return the numbers of those that did not."""
        self._state.replaced(file)
        return await self._told("/replaced", msgspec.json.encode(file))

    async def tell_to_reload(self) -> list[int]:
        """Let all siblings read the file again; return the numbers of those that could not apply it."""
        return await self._told("/reloaded", b"")

    async def _told(self, path: str, body: bytes) -> list[int]:
        others = self._siblings.others
        answers = await asyncio.gather(*(self._siblings.ask(each, "POST", ROOT + path, body) for each in others))
        missed = [
            number for number, answer in zip(others, answers, strict=True) if answer is None or answer.status >= 400
        ]
        if missed:
            shown = ", ".join(map(str, missed))
            _log.warning("workers %s did not do what an administrator asked for", shown, extra={"event": "act_missed"})
        return missed

    async def read(self, path: str) -> dict[int, Any]:
        """Return what the siblings show at a path, by their numbers."""
        answers = await self._siblings.get(ROOT + path, _READ_S)
        return {number: msgspec.json.decode(body) for number, body in answers.items()}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for siblings, below :data:`ROOT`."""
        return [
            web.post("/told", self._take),
            web.post("/replaced", self._take_file),
            web.post("/reloaded", self._take_reload),
            web.get("/state", self._show_state),
        ]

    def follow(self, events: AdminEvents) -> None:
        """Take over what siblings were told before this worker began, and follow their events."""
        background_task(self._take_over(), "take over what administrators have changed", among=self._tasks)
        for number in self._siblings.others:
            background_task(self._follow(number, events), f"follow the events of worker {number}", among=self._tasks)

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    # For siblings

    async def _take(self, request: web.Request) -> web.Response:
        act = _act_decoder.decode(await request.read())
        self._state.took(act)
        await self._do(act)
        return web.Response(status=204)

    async def _do(self, act: ActOnServer) -> None:
        manager, server_id = self._gateway.manager, act.server_id
        is_elsewhere = self._state.is_elsewhere(server_id)
        if act.act == "deploy":
            part = self._state.part_of(server_id)
            background_task(_quietly(manager.deploy(server_id, part)), f"deploy {server_id}", among=self._tasks)
        elif act.act == "update":
            applied = await manager.update(server_id, self._state.part_of(server_id))
            if applied.failed:
                raise refused(409, applied.failed[server_id])
        elif act.act == "undeploy":
            await manager.set_maintenance(server_id, True)
            await waiting.idle(manager, server_id, act.timeout_s or 0.0)
            await manager.undeploy(server_id)
        elif act.act == "drain":
            await manager.set_maintenance(server_id, True)
            await waiting.idle(manager, server_id, act.timeout_s or 0.0)
        elif act.act == "redeploy" and not is_elsewhere:
            work = manager.redeploy(server_id, self._state.part_of(server_id), **act.how)
            background_task(_quietly(work), f"redeploy {server_id}", among=self._tasks)
        if act.act == "resume":
            await manager.set_maintenance(server_id, False)
        if act.instances is not None and act.act in ("scale", "resume") and not is_elsewhere:
            background_task(_quietly(manager.scale(server_id, act.instances)), "scale", among=self._tasks)

    async def _take_file(self, request: web.Request) -> web.Response:
        file = msgspec.json.decode(await request.read())
        if self.replace is not None:
            await self.replace(file)
        self._state.replaced(file)
        return web.Response(status=204)

    async def _take_reload(self, request: web.Request) -> web.Response:
        problem = None if self.reload is None else await self.reload()
        return web.Response(status=204 if problem is None else 422)

    async def _show_state(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._state.told()), content_type="application/json")

    # At the start

    async def _take_over(self) -> None:
        answers = await self._siblings.get(ROOT + "/state", _READ_S)
        told = next((state for body in answers.values() if (state := _state_decoder.decode(body)).is_changed), None)
        if told is None:
            return
        manager = self._gateway.manager
        try:
            if told.file is not None and self.replace is not None:
                await self.replace(told.file)
            await self._gateway.apply(self._state.take_over(told))
            self._state.take_over(told)
            for server_id, number in told.desired.items():
                if not self._state.is_elsewhere(server_id):
                    background_task(_quietly(manager.scale(server_id, number)), "scale", among=self._tasks)
            for server_id in told.drained:
                await manager.set_maintenance(server_id, True)
        except McpManagerError as error:
            _log.error("this worker could not take over the changes of administrators: %s", error)

    async def _follow(self, number: int, events: AdminEvents) -> None:
        last_id = ""
        while True:
            async for block in self._siblings.events(number, ROOT + "/events", last_id):
                fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
                if b"event" in fields:
                    events.take(fields[b"event"].decode(), fields[b"data"])
                last_id = fields.get(b"id", last_id.encode()).decode()
            await asyncio.sleep(_AGAIN_S)


async def _quietly(work: Any) -> None:
    """Await what nobody waits for: servers are retried, and states tell of them."""
    try:
        await work
    except ServerNotFoundError:
        return
    except McpManagerError as error:
        _log.warning("a change by an administrator failed: %s", error, extra={"event": "act_failed"})


def _named(body: bytes) -> str | None:
    """Return the id in the body of a request that deploys a server; ``None`` if there is none."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
