"""Endpoints as some rules allow them: what they do not allow is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Description, Route
from mcp_manager.gateway.endpoints.kinds import PROMPTS, RESOURCES, TOOLS, Kind
from mcp_manager.gateway.endpoints.listings import Entry
from mcp_manager.gateway.endpoints.merged import MergedEndpoint
from mcp_manager.gateway.endpoints.parts import Parts
from mcp_manager.gateway.endpoints.request_params import text_in
from mcp_manager.gateway.endpoints.selection import Pair, Prefer, Selection, in_alias
from mcp_manager.gateway.endpoints.single import description_of
from mcp_manager.gateway.security.accounting import note_refusal
from mcp_manager.gateway.security.grants import SERVER_PREFIX, Grant
from mcp_manager.protocol.capabilities import TASKS_EXTENSION
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.methods import CALL_TOOL, SET_LOG_LEVEL, SUBSCRIBE

__all__ = ["GrantedEndpoint", "GrantedSelection", "GrantedServer", "OwnNames", "with_list_changes"]

_TASKS: Final = "tasks/"
_NAMED: Final[dict[str, Kind]] = {CALL_TOOL: TOOLS, "prompts/get": PROMPTS}
_LISTED: Final = {"tools": TOOLS, "prompts": PROMPTS}
_LISTS: Final = (*_LISTED, "resources")
_METHODS: Final = {"completions": "completion/complete", "logging": SET_LOG_LEVEL, "tasks": "tasks/get"}
"""The methods that capabilities stand for."""
_WAIT_S: Final = 5.0

_numbers = count(1)


class OwnNames(Selection):
    """Show one server under its own names and URIs.

    Parameters
    ----------
    server_id
        The server.
    """

    is_prefixed: bool = False

    def __init__(self, server_id: str) -> None:
        super().__init__()
        self._server_id = server_id

    def shows(self, server_id: str) -> bool:
        """Return whether it is this server."""
        return server_id == self._server_id

    def names(self, kind: Kind, pairs: Iterable[Pair], prefer: Prefer) -> dict[Pair, str]:
        """Return the names and URIs that the server gives."""
        return {pair: pair[1] for pair in pairs}

    def possible_servers(self, kind: Kind, name: str, server_ids: list[str]) -> list[str]:
        """Return the server."""
        return server_ids

    def unlisted(self, kind: Kind, name: str, server_ids: list[str]) -> Pair | None:
        """Return what a name means: the server knows."""
        return (self._server_id, name) if name and self._server_id in server_ids else None


class GrantedSelection(Selection):
    """Show of another selection what a grant allows.

    Parameters
    ----------
    selection
        What is shown without any rules.
    grant
        What is allowed at the endpoint.
    """

    def __init__(self, selection: Selection, grant: Grant) -> None:
        super().__init__(selection.hot)
        self._selection = selection
        self._grant = grant
        self.instructions: str | None = selection.instructions
        self.chooses_tools: bool = selection.chooses_tools
        self.is_prefixed: bool = selection.is_prefixed

    def shows(self, server_id: str) -> bool:
        """Return whether both show something of a server."""
        return self._selection.shows(server_id) and self._grant.shows(server_id)

    def shows_entry(self, kind: Kind, server_id: str, key: str) -> bool:
        """Return whether both show an entry."""
        shown = self._selection.shows_entry(kind, server_id, key)
        return shown and self._grant.shows_entry(kind, server_id, key)

    def allows(self, method: str) -> bool:
        """Return whether a rule is for a method."""
        return self._grant.allows(method)

    def permits(self, method: str, kind: Kind, server_id: str, key: str) -> bool:
        """Return whether a request with a method may concern an entry."""
        allowed = self._grant.permits(method, kind, server_id, key)
        return allowed and self._selection.permits(method, kind, server_id, key)

    def open_to(self, method: str, server_ids: list[str]) -> list[str]:
        """Return the servers of which everything may be used with a method; for tasks, of which anything may be used.

        What an extension offers has no names that rules could choose.
        """
        is_open = self._grant.allows_of if method.startswith(_TASKS) else self._grant.allows_all_of
        return [each for each in self._selection.open_to(method, server_ids) if is_open(method, each)]

    def hides_tools_of(self, server_id: str) -> bool:
        """Return whether one of both hides tools of a server."""
        return self._selection.hides_tools_of(server_id) or not self._grant.shows_whole(server_id)

    def introduced(self, server_id: str, identity: ServerIdentity) -> ServerIdentity:
        """Return what a server says about itself, as far as it is allowed.

        The instructions are left out if only a part of the server may be used: they may tell of the rest.
        """
        grant = self._grant
        identity = self._selection.introduced(server_id, identity)
        if grant.shows_whole(server_id):
            return identity
        kept = {name: value for name, value in identity.capabilities.items() if self._has_capability(server_id, name)}
        if isinstance(kept.get("resources"), dict) and not grant.allows_of(SUBSCRIBE, server_id):
            kept["resources"] = {name: value for name, value in kept["resources"].items() if name != "subscribe"}
        if isinstance(kept.get("tasks"), dict):
            kept["tasks"] = {name: value for name, value in kept["tasks"].items() if name != "list"}
        if isinstance(kept.get("extensions"), dict) and not grant.covers_all(server_id):
            kept["extensions"] = {name: value for name, value in kept["extensions"].items() if name == TASKS_EXTENSION}
        instructions = identity.instructions if grant.covers_all(server_id) else None
        return msgspec.structs.replace(identity, capabilities=kept, instructions=instructions)

    def _has_capability(self, server_id: str, name: str) -> bool:
        grant = self._grant
        if name == "resources":
            return grant.shows_kind(RESOURCES, server_id)
        if name in _LISTED:
            return grant.shows_kind(_LISTED[name], server_id)
        if name in _METHODS:
            return grant.allows_of(_METHODS[name], server_id)
        return name == "extensions" or grant.covers_all(server_id)

    def names(self, kind: Kind, pairs: Iterable[Pair], prefer: Prefer) -> dict[Pair, str]:
        """Return what clients call the entries, which are those that are shown."""
        return self._selection.names(kind, pairs, prefer)

    def possible_servers(self, kind: Kind, name: str, server_ids: list[str]) -> list[str]:
        """Return the servers that may have what clients know by a name."""
        return self._selection.possible_servers(kind, name, server_ids)

    def unlisted(self, kind: Kind, name: str, server_ids: list[str]) -> Pair | None:
        """Return what a name means, if that is allowed."""
        pair = self._selection.unlisted(kind, name, server_ids)
        return pair if pair is not None and self._grant.shows_entry(kind, *pair) else None

    def rendered(self, kind: Kind, pair: Pair, entry: Entry, name: str) -> bytes:
        """Return an entry as clients get it."""
        return self._selection.rendered(kind, pair, entry, name)

    def forbids(self, kind: Kind, name: str, server_ids: list[str]) -> bool:
        """Return whether a name means something, whether it is there or not, that no rule allows."""
        shown = [each for each in server_ids if self._selection.shows(each)]
        pair = self._selection.unlisted(kind, name, self._selection.possible_servers(kind, name, shown))
        return pair is not None and not self._grant.shows_entry(kind, *pair)

    def forbids_resource(self, method: str, uri: str, server_ids: list[str]) -> bool:
        """Return whether no rule allows a resource with this URI of any server."""
        shown = [each for each in server_ids if self._selection.shows(each)]
        return bool(shown) and not any(self._grant.permits(method, RESOURCES, each, uri) for each in shown)


class GrantedEndpoint(MergedEndpoint):
    """An endpoint as a grant allows it.

    Parameters
    ----------
    parts
        As for :class:`MergedEndpoint`.
    selection
        What is shown without any rules.
    grant
        What is allowed at the endpoint.
    name, page_size
        As for :class:`MergedEndpoint`.
    """

    def __init__(
        self,
        parts: Parts,
        selection: Selection,
        grant: Grant,
        name: str,
        page_size: int,
    ) -> None:
        self.grant: Grant = grant
        self._granted = GrantedSelection(selection, grant)
        super().__init__(parts, self._granted, name, page_size)
        self.key: str = f"{name}#{next(_numbers)}"

    @property
    def _cursors_of(self) -> str:
        return f"{self.name}\0{self.grant.digest.hex()}"

    def show(self, selection: Selection) -> None:
        """Show what the grant allows of something else from now on."""
        self._granted = GrantedSelection(selection, self.grant)
        super().show(self._granted)

    async def route(self, message: Message, client: Client) -> Route:
        """Return what the endpoint of all does, as far as it is allowed; what is not is noted as refused by a rule."""
        try:
            return await super().route(message, client)
        except RpcError:
            if self._forbids(message):
                note_refusal("rule")
            raise

    def _forbids(self, message: Message) -> bool:
        method = message.method or ""
        if not self._granted.allows(method):
            return True
        found = text_in(message, b"name" if method in _NAMED else b"uri")
        if found is None:
            return False
        if method in _NAMED:
            return self._granted.forbids(_NAMED[method], found[1], self._listings.servers())
        alias = in_alias(found[1])
        servers, uri = (self._listings.servers(), found[1]) if alias is None else ([alias[0]], alias[1])
        return self._granted.forbids_resource(method, uri, servers)


class GrantedServer(GrantedEndpoint):
    """The endpoint of one server as a grant allows it, under the names of the server."""

    async def describe(self, client: Client) -> Description:
        """Return how the server introduces itself, as far as it is allowed."""
        server_id = self.name.removeprefix(SERVER_PREFIX)
        identity = (await self._introductions.of([server_id], _WAIT_S))[server_id]
        shown = None if identity is None else self._selection.introduced(server_id, identity)
        return with_list_changes(description_of(server_id, shown))

    def uri_from(self, server_id: str, uri: str) -> str:
        """Return the URI as it is."""
        return uri

    def adapter(self, server_id: str) -> Callable[[bytes], bytes]:
        """Return what leaves responses as they are."""
        return _as_it_is


def with_list_changes(said: Description) -> Description:
    """Return how a server introduces itself if what is allowed may change although the server stays as it is."""
    capabilities = dict(said.capabilities)
    for name in _LISTS:
        if isinstance(capabilities.get(name), dict):
            capabilities[name] = {**capabilities[name], "listChanged": True}
    return msgspec.structs.replace(said, capabilities=capabilities)


def _as_it_is(response: bytes) -> bytes:
    return response
