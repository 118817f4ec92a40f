"""An endpoint that merges several servers: the whole fleet, or a view of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.splicing import with_range
from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.asking import first_that_answers
from mcp_manager.gateway.endpoints.base import Description, KnownRoutes, LooksAgain, Route
from mcp_manager.gateway.endpoints.built_list import BuiltList
from mcp_manager.gateway.endpoints.catalogue import Pages, Place, made_catalogue, names_of
from mcp_manager.gateway.endpoints.foreign_methods import ForeignMethods, resembles_known
from mcp_manager.gateway.endpoints.introducing import merged_description
from mcp_manager.gateway.endpoints.kinds import KINDS, PROMPTS, RESOURCES, TEMPLATES, TOOLS, Kind
from mcp_manager.gateway.endpoints.linked_resources import with_client_uris
from mcp_manager.gateway.endpoints.listings import Listing, Lists, input_schema_of
from mcp_manager.gateway.endpoints.not_found import blocked, hint_for, no_resource, quoted
from mcp_manager.gateway.endpoints.owned_tasks import EndpointTasks, is_of_tasks
from mcp_manager.gateway.endpoints.parts import Parts
from mcp_manager.gateway.endpoints.request_params import Reference, cursor_in, plain_text_in, text_in
from mcp_manager.gateway.endpoints.resource_owners import SeenUris, best_owner
from mcp_manager.gateway.endpoints.searching import Searching
from mcp_manager.gateway.endpoints.selection import ALIAS_SCHEME, Selection, alias_of, in_alias
from mcp_manager.gateway.tool_search.meta_tools import CALL
from mcp_manager.gateway.tool_search.wrapped_calls import unwrapped
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.methods import CALL_TOOL

__all__ = ["MergedEndpoint"]

_OWN: Final = {"source": "gateway"}
# How long a list of names is used before it is checked whether sessions and configurations are still the same.
_LOOK_AGAIN_S: Final = 1.0
# How long a request waits for servers whose lists may have the name that it gives, and a description for servers.
_LOOK_S: Final = 2.0
_MOST_ADAPTING: Final = 10_000
_MOST_FEW: Final = 1_000
_NAMED: Final[dict[str, tuple[Kind, str]]] = {CALL_TOOL: (TOOLS, "tool"), "prompts/get": (PROMPTS, "prompt")}
_BY_URI: Final = frozenset({"resources/read", "resources/subscribe", "resources/unsubscribe"})
_COMPLETE: Final = "completion/complete"


class MergedEndpoint(KnownRoutes):
    """Show several servers as one; see :class:`~mcp_manager.gateway.endpoints.base.Endpoint`.

    Parameters
    ----------
    parts
        What endpoints share.
    selection
        What is shown, and under which names.
    name
        The name of the endpoint, as in :class:`~mcp_manager.gateway.endpoints.base.Endpoint`.
    page_size
        The most entries of a page.
    """

    is_merged: bool = True
    is_personal: bool = False
    may_lead_back: bool = True

    def __init__(self, parts: Parts, selection: Selection, name: str = "fleet", page_size: int = 1_000) -> None:
        self._manager = parts.manager
        self._listings = parts.listings
        self._introductions = parts.introductions
        self._sealer = parts.sealer
        self._selection = selection
        self.page_size: int = page_size
        self.name: str = name
        self.key: str = name
        self._built: dict[Kind, BuiltList] = {}
        self._building: dict[Kind, asyncio.Lock] = {kind: asyncio.Lock() for kind in KINDS.values()}
        self._few: dict[tuple[Kind, tuple[str, ...]], tuple[Mapping[str, Listing], dict[str, Place]]] = {}
        self._seen = SeenUris()
        self.tasks: EndpointTasks = parts.tasks.at(name, is_merged=True)
        self._foreign = ForeignMethods(parts.introductions, self.tasks, self.adapter)
        self._searching = Searching(parts.listings.indexes)
        self._adapting: dict[str, Callable[[bytes], bytes]] = {}
        self._resources_due = self._described_until = 0.0
        self._description: Description | None = None

    def show(self, selection: Selection) -> None:
        """Show something else from now on, to all who have this endpoint."""
        self._selection = selection
        self._built.clear()
        self._searching.forget()
        self._few.clear()
        self._resources_due, self._description = 0.0, None
        self._forget_routes()

    @property
    def selection(self) -> Selection:
        """What it shows."""
        return self._selection

    def servers(self) -> list[str]:
        """Return the ids of the servers that it shows, those with the highest priority first."""
        shown = [each for each in self._listings.servers() if self._selection.shows(each)]
        return sorted(shown, key=self._prefer)

    def shows(self, server_id: str) -> bool:
        """Return whether it shows a server, or would show it if it were deployed."""
        return self._selection.shows(server_id)

    def allows(self, method: str) -> bool:
        """Return whether requests with a method may be sent at all."""
        return self._selection.allows(method)

    def shows_resource(self, method: str, server_id: str, uri: str) -> bool:
        """Return whether a request with a method may concern a resource, by the URI that its server knows."""
        return self.shows(server_id) and self._selection.permits(method, RESOURCES, server_id, uri)

    async def describe(self, client: Client) -> Description:
        """Return what all servers can do, and what they tell models.

        It waits two seconds for servers that are not connected. The instructions say which ones are missing.
        """
        loop = asyncio.get_running_loop()
        if self._description is not None and loop.time() < self._described_until:
            return self._description
        selection = self._selection
        identities = await self.introductions(self.servers(), _LOOK_S)
        description = merged_description(
            identities,
            selection.instructions,
            is_prefixed=selection.is_prefixed,
            hides_tools=selection.chooses_tools,
            is_searched=selection.hot is not None,
        )
        if selection is self._selection:
            self._description = description
            self._described_until = loop.time() + _LOOK_AGAIN_S
        return description

    async def introductions(self, server_ids: list[str], wait_s: float) -> dict[str, ServerIdentity | None]:
        """Return what servers say about themselves, as far as it is shown; ``None`` for one that is not connected."""
        introduced = self._selection.introduced
        said = await self._introductions.of(server_ids, wait_s)
        return {each: None if identity is None else introduced(each, identity) for each, identity in said.items()}

    async def tool_schema(self, name: str, client: Client) -> bytes | None:
        """Return the input schema of a tool, by the name that clients know; ``None`` if it is not known."""
        place = await self._find(TOOLS, name)
        return None if place is None else input_schema_of(place.entry)

    async def own_result(self, message: Message, client: Client) -> bytes | None:
        """Return a page of a merged list, or what a search of tools finds; ``None`` for other requests."""
        kind = KINDS.get(message.method or "")
        if kind is not None:
            return (await self.listed(kind)).pages.page(cursor_in(message))
        if self._selection.hot is None or message.method != CALL_TOOL or self.known_route(message, client) is not None:
            return None
        return await self._searching.own_result(message, client, self)

    async def listed(self, kind: Kind) -> BuiltList:
        """Return a merged list as it is now."""
        built = self._built.get(kind)
        return built if built is not None and self._is_current(built) else await self._refreshed(kind)

    @property
    def lists_others(self) -> LooksAgain | None:
        """Tell whether other tools are listed than when that was asked last; ``None`` if all are listed."""
        return None if self._selection.hot is None else partial(self._searching.lists_others, self)

    def _is_current(self, built: BuiltList) -> bool:
        return self._is_new(built) and built.servers == self._listings.servers()

    def _is_new(self, built: BuiltList) -> bool:
        return built.version == self._listings.version and asyncio.get_running_loop().time() < built.look_at

    async def _refreshed(self, kind: Kind, patience_s: float | None = None) -> BuiltList:
        """Return the merged list as it is now; servers that do not answer in time are missing in it."""
        selection, servers = self._selection, self._listings.servers()
        lists = await self._listings.of(self.servers(), kind, patience_s)
        # What arrives from now on is not in these lists.
        version = self._listings.version
        look_at = asyncio.get_running_loop().time() + _LOOK_AGAIN_S
        async with self._building[kind]:
            built = self._built.get(kind)
            if built is None or not built.is_made_of(lists):
                if built is not None and built.version > version:
                    # Somebody who asked later has made it already.
                    return built
                built = await self._build(kind, lists)
                if selection is self._selection:
                    self._built[kind] = built
                    self._forget_routes()
            # Whoever has more patience may get more.
            is_whole = patience_s is None or not lists.missing
            built.servers, built.version, built.look_at = servers, version, look_at if is_whole else 0.0
        return built if selection is self._selection else await self._refreshed(kind, patience_s)

    async def _build(self, kind: Kind, lists: Lists) -> BuiltList:
        # Read here: a thread must not look at servers.
        order = {server_id: self._prefer(server_id) for server_id in lists.found}
        catalogue = await made_catalogue(kind, lists.found, self._selection, order.__getitem__)
        before = self._built.get(kind)
        if before is not None and before.catalogue.digest == catalogue.digest and before.lists.missing == lists.missing:
            # The same content: cursors and pages stay as they are, and nothing is kept twice.
            same = msgspec.structs.replace(catalogue, rendered=before.catalogue.rendered)
            return BuiltList(same, before.pages, lists)
        shown = self._searching.listed(catalogue, self._selection) if kind is TOOLS else catalogue
        return BuiltList(catalogue, Pages(shown, lists.missing, self._sealer, self._cursors_of, self.page_size), lists)

    @property
    def _cursors_of(self) -> str:
        """What its cursors are for: they are worthless anywhere else."""
        return self.name

    def _prefer(self, server_id: str) -> tuple[int, str]:
        return -self._listings.priority(server_id), server_id

    async def route(self, message: Message, client: Client) -> Route:
        """Return the server that has what a request names, and the request with the name that this server knows.

        Raises
        ------
        RpcError
            No server that is shown has it.
        """
        method = message.method or ""
        if not self._selection.allows(method):
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {quoted(method)}", _OWN)
        named = _NAMED.get(method)
        if named is not None:
            return await self._by_name(message, client, *named)
        if method in _BY_URI:
            return await self._by_uri(message, client)
        if method == _COMPLETE:
            return await self._by_reference(message, client)
        if resembles_known(method):
            raise RpcError(METHOD_NOT_FOUND, "Method not found", _OWN)
        self.tasks.check_method(method, client)
        if not is_of_tasks(method) and text_in(message, b"uri") is not None:
            return await self._by_uri(message, client)
        open_to = self._selection.open_to(method, self.servers())
        return await self._foreign.route(message, client, open_to, self._selection.hides_tools_of)

    def known_route(self, message: Message, client: Client) -> Route | None:
        """Return the route of a call of a tool, or for a prompt, that is in a list of the endpoint."""
        named = _NAMED.get(message.method or "")
        built = None if named is None else self._built.get(named[0])
        found = None if built is None else plain_text_in(message, b"name")
        if found is not None and self._selection.hot is not None and found[0] == CALL and named == _NAMED[CALL_TOOL]:
            try:
                message = unwrapped(message)
            except RpcError:
                return None
            found = plain_text_in(message, b"name")
        place = None if built is None or found is None else built.catalogue.places.get(found[0])
        if found is None or built is None or place is None or not self._is_there(place, built):
            return None
        if asyncio.get_running_loop().time() >= self._resources_due:
            return None
        _, start, end = found
        return self._renamed(message, client, place.server_id, with_range(message, start, end, place.own_json))

    def _renamed(self, message: Message, client: Client, server_id: str, request: Message) -> Route:
        adapt = self.tasks.creating(message, client, server_id, self.adapter(server_id))
        return Route(server_id, request, adapt, self.tasks)

    async def _by_name(self, message: Message, client: Client, kind: Kind, what: str) -> Route:
        found = text_in(message, b"name")
        if found is None:
            raise RpcError(INVALID_PARAMS, f"Invalid params: the name of the {what} must be a string", _OWN)
        if kind is TOOLS and self._selection.hot is not None and found[1] == CALL:
            found = text_in(unwrapped(found[0]), b"name") or found
        message, name, start, end = found
        if asyncio.get_running_loop().time() >= self._resources_due:
            await self._look_for_resources()
        place = await self._find(kind, name)
        if place is not None:
            request = with_range(message, start, end, place.own_json)
            server_id = place.server_id
        else:
            server_id, own = await self._unlisted(kind, what, name)
            request = with_range(message, start, end, msgspec.json.encode(own))
        return self._renamed(message, client, server_id, request)

    async def _look_for_resources(self) -> None:
        """Let the lists be read that say whose the resources are that results name; waits for no server."""
        self._resources_due = asyncio.get_running_loop().time() + _LOOK_AGAIN_S
        self._know_routes(0.0 if self._listings.pins.blocks else _LOOK_AGAIN_S)
        for kind in (RESOURCES, TEMPLATES):
            built = self._built.get(kind)
            if built is None or built.lists.missing:
                await self._refreshed(kind, 0.0)

    def _knows_resources(self, server_id: str) -> bool:
        """Return whether the resources and templates of a server have been listed."""
        found = [self._built.get(kind) for kind in (RESOURCES, TEMPLATES)]
        return all(built is not None and server_id in built.lists.found for built in found)

    async def _unlisted(self, kind: Kind, what: str, name: str) -> tuple[str, str]:
        """Return what a name means that is in no list, if the list of its server is not known: the server will tell.

        Raises
        ------
        RpcError
            Nothing has this name.
        """
        owners = self._selection.possible_servers(kind, name, self.servers())
        pair = self._selection.unlisted(kind, name, owners)
        if (
            pair is None
            or self._listings.pins.blocks
            or owners[0] in (await self._listings.of(owners, kind, 0.0)).found
        ):
            raise await self._unknown(kind, what, name)
        return pair

    async def _find(self, kind: Kind, name: str) -> Place | None:
        """Return where something is, after one look at the servers that may have it."""
        built = self._built.get(kind)
        if built is not None:
            place = built.catalogue.places.get(name)
            if self._is_current(built) or (place is not None and self._is_there(place, built)):
                return place
        owners = self._selection.possible_servers(kind, name, self.servers())
        if built is not None or len(owners) == len(self.servers()):
            return (await self._refreshed(kind, _LOOK_S)).catalogue.places.get(name)
        return (await self._places_of(kind, owners)).get(name)

    def _is_there(self, place: Place, built: BuiltList) -> bool:
        """Return whether something in a list can be used; if pins block, the list must be as new as can be known."""
        is_usable = not self._listings.pins.blocks or self._is_new(built)
        return is_usable and self._listings.is_deployed(place.server_id)

    async def _places_of(self, kind: Kind, server_ids: list[str]) -> dict[str, Place]:
        """Return where everything of a few servers is: nobody waits for others only to make a call."""
        lists = await self._listings.of(server_ids, kind, _LOOK_S)
        key = kind, tuple(server_ids)
        known = self._few.get(key)
        if known is None or any(listing is not known[0].get(each) for each, listing in lists.found.items()):
            if len(self._few) >= _MOST_FEW:
                self._few.clear()
            known = self._few[key] = lists.found, names_of(kind, lists.found, self._selection, self._prefer)
        return known[1]

    async def _unknown(self, kind: Kind, what: str, name: str) -> RpcError:
        """Return the error for a name that nothing has; near names come only from the server that it names."""
        data: dict[str, Any] = dict(_OWN)
        owners = self._selection.possible_servers(kind, name, self.servers())
        if self._listings.pins.blocks and name in self._blocked_names(kind, owners):
            return blocked(what, name)
        if len(owners) == 1:
            places = await self._places_of(kind, owners)
            is_missing = bool((await self._listings.of(owners, kind, 0.0)).missing)
            by_own = None if is_missing else {place.own: shown for shown, place in places.items()}
            personal = self._listings.is_personal
            is_personal = personal is not None and personal(owners[0])
            data |= hint_for(name, owners[0], by_own, is_personal=is_personal)
        return RpcError(INVALID_PARAMS, f"Unknown {what}: {quoted(name)}", data)

    def _blocked_names(self, kind: Kind, server_ids: list[str]) -> Collection[str]:
        """Return the names of what these servers list, and pins hide."""
        shows, hidden = self._selection.shows_entry, self._listings.pins.hidden
        pairs = [(each, key) for each in server_ids for key in hidden(each, kind) if shows(kind, each, key)]
        return self._selection.names(kind, pairs, self._prefer).values()

    async def _by_uri(self, message: Message, client: Client) -> Route:
        param = text_in(message, b"uri")
        if param is None:
            raise RpcError(INVALID_PARAMS, "Invalid params: uri must be a string", _OWN)
        message, uri, start, end = param
        method = message.method or ""
        server_id, own = await self.route_uri(uri, client, method)
        if method not in _BY_URI and not self._selection.open_to(method, [server_id]):
            raise no_resource(uri, client)
        adapt = self.adapter(server_id)
        if own == uri:
            return Route(server_id, message, adapt)
        return Route(server_id, with_range(message, start, end, msgspec.json.encode(own)), adapt)

    def adapter(self, server_id: str) -> Callable[[bytes], bytes]:
        """Return what puts the URIs in a server's responses into the terms of clients."""
        adapt = self._adapting.get(server_id)
        if adapt is None:
            if len(self._adapting) > _MOST_ADAPTING:
                self._adapting.clear()
            adapt = self._adapting[server_id] = partial(with_client_uris, rename=partial(self.uri_from, server_id))
        return adapt

    async def route_uri(self, uri: str, client: Client, method: str = "resources/read") -> tuple[str, str]:
        """Return the server that a resource belongs to, and the URI that this server knows.

        It is, in this order: the server that lists the URI; the one that a URI of the gateway's own names; the one whose
        template matches it best; the one that named it first in a result; the first one that can read it.

        Raises
        ------
        RpcError
            No server that is shown has it.
        """
        found = await self._owner(uri)
        if found is None or not self._selection.permits(method, RESOURCES, *found):
            raise no_resource(uri, client)
        return found

    async def _owner(self, uri: str) -> tuple[str, str] | None:
        found = await self._listed(uri)
        if found is not None:
            return found
        alias = in_alias(uri)
        if alias is not None:
            return alias if alias[0] in self.servers() else None
        built = self._built.get(TEMPLATES)
        if built is None or not self._is_current(built):
            await self._refreshed(TEMPLATES, _LOOK_S)
        server_id = self._owner_by_template(uri)
        if server_id is not None:
            return server_id, uri
        server_id = self._seen.get(uri)
        if server_id is not None and server_id in self.servers():
            return server_id, uri
        server_id = await self._by_asking(uri)
        return None if server_id is None else (self._seen.note(uri, server_id), uri)

    def uri_from(self, server_id: str, uri: str) -> str:
        """Return the URI that clients know a server's resource by."""
        built = self._built.get(RESOURCES)
        if built is not None:
            shown = built.catalogue.shown.get((server_id, uri))
            if shown is not None:
                return shown
            place = built.catalogue.places.get(uri)
            if place is not None and place.server_id != server_id:
                return alias_of(server_id, uri)
        if not self._knows_resources(server_id):
            # Another server may have it: this one certainly does.
            return alias_of(server_id, uri)
        owner = self._owner_by_template(uri)
        if owner is not None:
            return uri if owner == server_id and not uri.startswith(ALIAS_SCHEME) else alias_of(server_id, uri)
        if uri.startswith(ALIAS_SCHEME) or self._seen.note(uri, server_id) != server_id:
            return alias_of(server_id, uri)
        return uri

    async def _listed(self, uri: str) -> tuple[str, str] | None:
        built = self._built.get(RESOURCES)
        place = None if built is None else built.catalogue.places.get(uri)
        is_there = place is not None and self._listings.is_deployed(place.server_id)
        if not is_there and (built is None or not self._is_current(built)):
            built = await self._refreshed(RESOURCES, _LOOK_S)
            place = built.catalogue.places.get(uri)
        return None if place is None else (place.server_id, place.own)

    def _owner_by_template(self, uri: str) -> str | None:
        """Return the server whose template matches a URI best; of several, the one with the highest priority."""
        built = self._built.get(TEMPLATES)
        places = () if built is None else built.catalogue.places.values()
        return best_owner(uri, ((place.own, place.server_id) for place in places), self._listings.priority)

    async def _by_asking(self, uri: str) -> str | None:
        may_have = [each for each in self.servers() if self._selection.shows_entry(RESOURCES, each, uri)]
        identities = await self._introductions.of(may_have, 0.0)
        able = [each for each, said in identities.items() if said is not None and "resources" in said.capabilities]
        if len(able) == 1:
            return able[0]
        read = b'{"method":"resources/read","params":{"uri":%b}}' % msgspec.json.encode(uri)
        return await first_that_answers(self._manager, able, read)

    async def _by_reference(self, message: Message, client: Client) -> Route:
        """Return the route of a completion, which refers to a prompt or to a template (2025-11-25, completion)."""
        reference = Reference(message)
        kind, given = reference.kind, reference.given
        if kind == "ref/resource":
            place = await self._find(TEMPLATES, given)
            found = await self._owner(given) if place is None else (place.server_id, place.own)
            if found is None or not self._selection.permits(_COMPLETE, TEMPLATES, *found):
                raise no_resource(given, client)
            server_id, own = found
        elif kind == "ref/prompt":
            place = await self._find(PROMPTS, given)
            found = None if place is None else (place.server_id, place.own)
            server_id, own = await self._unlisted(PROMPTS, "prompt", given) if found is None else found
            if not self._selection.permits(_COMPLETE, PROMPTS, server_id, own):
                raise await self._unknown(PROMPTS, "prompt", given)
        else:
            raise await self._unknown(PROMPTS, "prompt", given)
        return Route(server_id, message if own == given else reference.renamed(own))
