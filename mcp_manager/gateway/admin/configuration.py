"""The configuration of the whole gateway: read, replaced, and read again from its file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec
from aiohttp import web

from mcp_manager.config import ManagerConfig, ServeConfig
from mcp_manager.config.changes import Effect, difference
from mcp_manager.config.gateway_tables import check_serve_with_servers, serve_config_of
from mcp_manager.config.load import FleetFile, load_fleet_mapping
from mcp_manager.fleet import Applied
from mcp_manager.gateway.admin.administered import Administered
from mcp_manager.gateway.admin.fleet_state import FleetState
from mcp_manager.gateway.admin.masks import restored, shown_server, whole_server
from mcp_manager.gateway.admin.problems import Problem, Refusal, refused
from mcp_manager.gateway.admin.requests import flag, json_response, read_object, take_query
from mcp_manager.gateway.admin.revisions import check_match
from mcp_manager.gateway.admin.sibling_acts import AdminSiblings
from mcp_manager.gateway.serve_changes import FOLLOWED

__all__ = ["ConfigurationChange", "Configurations", "ReloadResult"]

_NOT_IN_BODY: Final = "The table servers is missing: it names all servers of the fleet"
_TABLES: Final = frozenset({"manager", "defaults", "servers", "mcpServers", "serve", "views", "$schema"})

Reload = Callable[[], Awaitable[str | None]]
"""Reads the file again; returns what is wrong with it, ``None`` if it was applied."""


class ConfigurationChange(msgspec.Struct, frozen=True, kw_only=True):
    """What another configuration changes, or would change.

    Attributes
    ----------
    dry_run
        Whether nothing was changed.
    deployed, redeployed, updated, undeployed
        The servers that are added, replaced, changed in place, and removed; sorted.
    starting
        Those whose change goes on.
    failed
        Why the change of a server failed, by server id.
    unchanged
        How many servers are as they should be.
    followed
        The fields of ``serve`` that are in force now, and ``views`` if these have changed.
    restart
        What needs a new start of the gateway: fields of ``serve``, or ``manager``.
    """

    dry_run: bool
    deployed: tuple[str, ...] = ()
    redeployed: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    undeployed: tuple[str, ...] = ()
    starting: tuple[str, ...] = ()
    failed: dict[str, str] = {}
    unchanged: int = 0
    followed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


class ReloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the file.

    Attributes
    ----------
    problem
        Why it was not applied; ``None`` if it was.
    """

    problem: str | None


class Configurations:
    """Answer requests about the configuration.

    Nothing is written to the file of the gateway: it counts again when it changes, or at the next start.

    Parameters
    ----------
    gateway
        The gateway.
    state
        The fleet as administrators have changed it.
    siblings
        The other workers; ``None`` without any.
    settings
        The settings of its manager.
    key
        The key of the revisions.
    """

    def __init__(
        self,
        gateway: Administered,
        state: FleetState,
        siblings: AdminSiblings | None,
        settings: ManagerConfig,
        key: bytes,
    ) -> None:
        self._state = state
        self._siblings = siblings
        self._gateway = gateway
        self._settings = msgspec.structs.replace(settings, servers={})
        self._key = blake2b(key, digest_size=32).digest()
        self._turn = asyncio.Lock()
        self.path: str | None = None
        """The file of the gateway."""
        self.reload: Reload | None = None
        """Reads it again; ``None`` without one."""
        self.problem: str | None = None
        """Why the file was not applied the last time; ``None`` if it was."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, below the root of the API."""
        return [
            web.get("/config", self._show),
            web.put("/config", self._replace),
            web.get("/views", self._views),
            web.post("/reload", self._reload),
        ]

    def shown(self) -> dict[str, Any]:
        """Return the configuration that is in force as a file has it, with ``***`` in place of secrets."""
        return self._written(reveal_secrets=False)

    def problem_of_file(self) -> str | None:
        """Return why the file was not applied the last time that it was read; ``None`` if it was."""
        watched = self._gateway.manager.watched
        return self.problem if watched is None else watched.problem or None

    def _written(self, *, reveal_secrets: bool) -> dict[str, Any]:
        gateway, write = self._gateway, whole_server if reveal_secrets else shown_server
        return {
            "manager": self._settings.to_dict(reveal_secrets=reveal_secrets),
            "servers": {server_id: write(config) for server_id, config in self._state.servers().items()},
            "serve": gateway.serve.to_dict(reveal_secrets=reveal_secrets),
            "views": {name: view.to_dict(reveal_secrets=reveal_secrets) for name, view in gateway.views.items()},
        }

    def revision(self) -> str:
        """Return the revision of the whole configuration."""
        written = msgspec.json.encode(self._written(reveal_secrets=True))
        return blake2b(written, key=self._key, digest_size=12).hexdigest()

    async def _show(self, request: web.Request) -> web.Response:
        take_query(request)
        body = {**self.shown(), "path": self.path, "problem": self.problem_of_file()}
        return json_response(body, headers={"ETag": f'"{self.revision()}"'})

    async def _views(self, request: web.Request) -> web.Response:
        take_query(request)
        return json_response({"views": {name: view.to_dict() for name, view in self._gateway.views.items()}})

    async def _reload(self, request: web.Request) -> web.Response:
        take_query(request)
        if self.reload is None:
            hint = "PUT /api/v1/config, or change single servers"
            raise refused(409, "This gateway was not started from a file", hint=hint)
        self.problem = await self.reload()
        if self.problem is None and self._siblings is not None and (missed := await self._siblings.tell_to_reload()):
            self.problem = f"workers {', '.join(map(str, missed))} did not apply it"
        if self.problem is not None:
            raise Refusal(Problem(title="Not applied", status=422, detail=self.problem))
        return json_response(ReloadResult(problem=None))

    async def _replace(self, request: web.Request) -> web.Response:
        is_dry = take_query(request, dry_run=flag).get("dry_run", False)
        body = await read_object(request)
        async with self._turn:
            check_match(request, self.revision, "configuration")
            meant = self._meant(body)
            file = self._read(meant)
            change, serve = self._planned(file, body)
            if is_dry:
                return json_response(change)
            applied = await self._apply(file, meant, serve)
            missed = [] if self._siblings is None else await self._siblings.tell_of_file(meant)
        shown = msgspec.structs.replace(
            change,
            dry_run=False,
            **{name: getattr(applied, name) for name in ("deployed", "redeployed", "updated", "undeployed")},
            starting=applied.starting,
            failed=applied.failed,
            unchanged=applied.unchanged,
        )
        headers = {
            "ETag": f'"{self.revision()}"',
            **({"Workers-Missed": ", ".join(map(str, missed))} if missed else {}),
        }
        return json_response(shown, 202 if shown.starting or missed else 200, headers)

    async def replace(self, meant: dict[str, Any]) -> None:
        """Apply a configuration that another worker was given, and has checked."""
        file = self._read(meant)
        _, serve = self._planned(file, meant)
        await self._apply(file, meant, serve)

    def _meant(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body with secrets in place of their masks."""
        given = {name: value for name, value in body.items() if name not in ("path", "problem")}
        for name in given:
            if name not in _TABLES:
                hint = f"the tables are {', '.join(sorted(_TABLES - {'$schema'}))}"
                raise refused(422, f"Unknown table {name[:64]!a}", hint=hint, field=name[:64])
        if not isinstance(given.get("servers", given.get("mcpServers")), dict):
            raise refused(422, _NOT_IN_BODY, hint='send {"servers": {}} to remove all servers', field="servers")
        shown, whole = self.shown(), self._written(reveal_secrets=True)
        meant: dict[str, Any] = restored(given, shown, whole)
        before = self._state.servers()
        for server_id, old in before.items():
            # A server in memory is shown by the name of its class.
            fields = meant.get("servers", {}).get(server_id)
            if (
                old.server is not None
                and isinstance(fields, dict)
                and fields.get("server") == type(old.server).__name__
            ):
                fields["server"] = old.server
        return meant

    def _read(self, meant: Mapping[str, Any]) -> FleetFile:
        """Return what such a body describes."""
        before = self._state.servers()
        file = load_fleet_mapping(meant)
        servers = dict(file.config.servers)
        for server_id, old in before.items():
            new = servers.get(server_id)
            if new is not None:
                hidden = tuple(dict.fromkeys((*old.hidden_texts, *new.hidden_texts)))
                servers[server_id] = msgspec.structs.replace(new, hidden_texts=hidden, extras=old.extras)
        return file._replace(config=msgspec.structs.replace(file.config, servers=servers))

    def _planned(self, file: FleetFile, body: Mapping[str, Any]) -> tuple[ConfigurationChange, ServeConfig]:
        before, gateway = self._state.servers(), self._gateway
        serve = serve_config_of(file.serve or ServeConfig()) if "serve" in body else gateway.serve
        check_serve_with_servers(serve, file.config.servers)
        effects: dict[Effect, list[str]] = {effect: [] for effect in Effect}
        added = []
        for server_id, config in sorted(file.config.servers.items()):
            old = before.get(server_id)
            if old is None:
                added.append(server_id)
            else:
                effects[difference(old, config).effect].append(server_id)
        changed = [name for name in serve.__struct_fields__ if getattr(serve, name) != getattr(gateway.serve, name)]
        settings = msgspec.structs.replace(file.config, servers={})
        is_other = "manager" in body and settings != self._settings
        has_views = "views" in body and dict(file.views) != gateway.views
        return ConfigurationChange(
            dry_run=True,
            deployed=tuple(added),
            redeployed=tuple(effects[Effect.REPLACE]),
            updated=tuple(sorted((*effects[Effect.SCALE], *effects[Effect.UPDATE]))),
            undeployed=tuple(sorted(before.keys() - file.config.servers.keys())),
            unchanged=len(effects[Effect.NOTHING]),
            followed=(*(name for name in changed if name in FOLLOWED), *(("views",) if has_views else ())),
            restart=(*(name for name in changed if name not in FOLLOWED), *(("manager",) if is_other else ())),
        ), serve

    async def _apply(self, file: FleetFile, body: Mapping[str, Any], serve: ServeConfig) -> Applied:
        gateway = self._gateway
        if "serve" in body:
            # First, because it may be refused.
            await gateway.replace_serve(serve)
        if "views" in body:
            gateway.replace_views(file.views)
        return await gateway.apply(file.config)
