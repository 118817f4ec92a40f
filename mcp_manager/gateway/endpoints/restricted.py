"""One server that gets something of each client, as rules and pins allow it: what it lists to a client is filtered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import count
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.errors import RpcError
from mcp_manager.gateway import messages
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Description, PersonalServers, Route
from mcp_manager.gateway.endpoints.foreign_methods import resembles_known
from mcp_manager.gateway.endpoints.granted import GrantedSelection, OwnNames, with_list_changes
from mcp_manager.gateway.endpoints.kinds import KINDS, PROMPTS, RESOURCES, TEMPLATES, TOOLS, Kind
from mcp_manager.gateway.endpoints.listings import Entry, Listing, read_entries
from mcp_manager.gateway.endpoints.not_found import blocked, no_resource, quoted
from mcp_manager.gateway.endpoints.parts import Parts
from mcp_manager.gateway.endpoints.request_params import Reference, cursor_in, text_in
from mcp_manager.gateway.endpoints.single import SingleServer, description_of
from mcp_manager.gateway.security.accounting import note_refusal
from mcp_manager.gateway.security.definitions import PINNED
from mcp_manager.gateway.security.grants import Grant
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.methods import CALL_TOOL

__all__ = ["RestrictedServer"]

_OWN: Final = {"source": "gateway"}
_NAMED: Final[dict[str, tuple[Kind, str]]] = {CALL_TOOL: (TOOLS, "tool"), "prompts/get": (PROMPTS, "prompt")}
_BY_URI: Final = frozenset({"resources/read", "resources/subscribe", "resources/unsubscribe"})
_COMPLETE: Final = "completion/complete"
# How long a list is used for calls; the server may say before that it has changed.
_FRESH_S: Final = 60.0
# How often a list that changes while it is read is read again at once.
_AT_ONCE: Final = 2
_MOST_LISTS: Final = 500
_MOST_PAGES: Final = 1_000
# What comes after so many cannot be called.
_MOST_ENTRIES: Final = 10_000

_Named = tuple[Kind, str, str]
"""The kind of an entry, what people call it, and its name."""

_numbers = count(1)


class _Page(msgspec.Struct):
    result: dict[str, msgspec.Raw] = {}
    error: dict[str, Any] | None = None


class _Known(msgspec.Struct, frozen=True):
    """A list of one client: the names in it, those that pins hide, and until when and with which pins it is used."""

    names: frozenset[str]
    hidden: frozenset[str]
    until: float
    version: int


class _Kept:
    """What is known of one list of one client, which one request at a time reads."""

    __slots__ = ("known", "turn")

    def __init__(self) -> None:
        self.known: _Known | None = None
        self.turn = asyncio.Lock()


_page_decoder = msgspec.json.Decoder(_Page)
_entries_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str | None)


class RestrictedServer(SingleServer):
    """Show a server that gets something of each client, as far as it is allowed.

    Each client sees of the list that the server shows to it what the rules allow and the pins do not hide. Rules need no
    lists for calls: they go by names. If pins hide what differs, a call is sent only if the newest list of this client
    has the pinned definition.

    Parameters
    ----------
    parts
        What endpoints share.
    server_id
        The server.
    personal
        Asks it for clients.
    grant
        What is allowed at this endpoint.
    """

    def __init__(self, parts: Parts, server_id: str, personal: PersonalServers, grant: Grant) -> None:
        super().__init__(
            parts.manager, server_id, parts.introductions, parts.listings, personal=personal, tasks=parts.tasks
        )
        self.key: str = f"{self.name}#of-client-{next(_numbers)}"
        self.grant: Grant = grant
        self._asked = personal
        self._selection = GrantedSelection(OwnNames(server_id), grant)
        # By what the server takes the client for; the one that was not used for longest comes first.
        self._lists: OrderedDict[tuple[str, Kind], _Kept] = OrderedDict()
        # How often the server has said that some have changed.
        self._changes = 0

    def changed(self, method: str) -> None:
        """Read the lists again that a notification says have changed."""
        self._changes += 1
        for (_, kind), kept in self._lists.items():
            if kind.change == method:
                kept.known = None

    def allows(self, method: str) -> bool:
        """Return whether a rule is for a method."""
        return self._selection.allows(method)

    def shows_resource(self, method: str, server_id: str, uri: str) -> bool:
        """Return whether a request with a method may concern a resource."""
        return self.shows(server_id) and self._selection.permits(method, RESOURCES, server_id, uri)

    def describes(self, identity: ServerIdentity | None) -> Description:
        """Return how the server introduces itself, as far as it is allowed."""
        shown = None if identity is None else self._selection.introduced(self._server_id, identity)
        return with_list_changes(description_of(self._server_id, shown))

    async def own_result(self, message: Message, client: Client) -> bytes | None:
        """Return a page of a list, as far as it is allowed; ``None`` for other requests."""
        kind = KINDS.get(message.method or "")
        if kind is None:
            return None
        listing, cursor = await self._page(client, kind, cursor_in(message))
        hidden = self._hidden(kind, listing)
        shown = b",".join(
            each.raw
            for each in listing
            if each.key not in hidden and self._selection.shows_entry(kind, self._server_id, each.key)
        )
        more = b"" if cursor is None else b',"nextCursor":%b' % msgspec.json.encode(cursor)
        return b'{"%b":[%b]%b}' % (kind.member.encode(), shown, more)

    def known_route(self, message: Message, client: Client) -> Route | None:
        """Return nothing: whether a request is allowed may depend on what the server lists."""
        return None

    async def route(self, message: Message, client: Client) -> Route:
        """Return the server, if the request is allowed.

        Raises
        ------
        RpcError
            It is not, or pins hide what it names.
        """
        message, named = self._permitted(message, client)
        if named is not None and self._listings.pins.blocks:
            kind, what, name = named
            known = await self._list_of(client, kind)
            if name in known.hidden:
                raise blocked(what, name)
            if name not in known.names:
                raise _unknown(what, name)
        return await super().route(message, client)

    async def route_uri(self, uri: str, client: Client, method: str = "resources/read") -> tuple[str, str]:
        """Return the server, and the URI as it is; raises :class:`RpcError` if no rule allows it."""
        if not self._selection.permits(method, RESOURCES, self._server_id, uri):
            raise _forbidden(no_resource(uri, client))
        return self._server_id, uri

    def _permitted(self, message: Message, client: Client) -> tuple[Message, _Named | None]:
        """Return a request as all readers understand it, with what it names that may be pinned.

        Raises
        ------
        RpcError
            No rule allows it, or it is malformed.
        """
        method, server_id, selection = message.method or "", self._server_id, self._selection
        if not selection.allows(method):
            raise _forbidden(_no_method(method))
        if method in _NAMED:
            kind, what = _NAMED[method]
            name = text_in(message, b"name")
            if name is None:
                raise RpcError(INVALID_PARAMS, f"Invalid params: the name of the {what} must be a string", _OWN)
            if not selection.shows_entry(kind, server_id, name[1]):
                raise _forbidden(_unknown(what, name[1]))
            return name[0], (kind, what, name[1])
        if method in _BY_URI:
            uri = text_in(message, b"uri")
            if uri is None:
                raise RpcError(INVALID_PARAMS, "Invalid params: uri must be a string", _OWN)
            if not selection.permits(method, RESOURCES, server_id, uri[1]):
                raise _forbidden(no_resource(uri[1], client))
            return uri[0], None
        if method == _COMPLETE:
            reference = Reference(message)
            is_prompt = reference.kind != "ref/resource"
            if not selection.permits(method, PROMPTS if is_prompt else TEMPLATES, server_id, reference.given):
                raise _forbidden(_unknown("reference", reference.given))
            named = (PROMPTS, "prompt", reference.given) if is_prompt else None
            return reference.renamed(reference.given), named
        if resembles_known(method):
            raise _no_method(method)
        if not selection.open_to(method, [server_id]):
            raise _forbidden(_no_method(method))
        return message, None

    async def _list_of(self, client: Client, kind: Kind) -> _Known:
        """Return what is in the whole list that the server shows to a client, as of a minute ago at most."""
        key = await self._asked.party_for(self._server_id, client), kind
        kept = self._lists.get(key)
        if kept is None:
            kept = self._lists[key] = _Kept()
            if len(self._lists) > _MOST_LISTS:
                self._lists.popitem(last=False)
        else:
            self._lists.move_to_end(key)
        pins, loop = self._listings.pins, asyncio.get_running_loop()
        async with kept.turn:
            known = kept.known
            if known is not None and known.until > loop.time() and known.version == pins.version:
                return known
            changes = -1
            for _ in range(_AT_ONCE):
                if changes != self._changes:
                    changes = self._changes
                    whole = await self._whole(client, kind)
            names = frozenset(each.key for each in whole)
            known = _Known(names, self._hidden(kind, whole), loop.time() + _FRESH_S, pins.version)
            # One that changes all the time is used this once.
            kept.known = known if changes == self._changes else None
            return known

    async def _whole(self, client: Client, kind: Kind) -> Listing:
        entries: dict[str, Entry] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            listing, cursor = await self._page(client, kind, cursor)
            for each in listing:
                entries.setdefault(each.key, each)
            if cursor is None or len(entries) > _MOST_ENTRIES:
                break
        return tuple(entries.values())

    async def _page(self, client: Client, kind: Kind, cursor: str | None) -> tuple[Listing, str | None]:
        """Return a page of a list that the server shows to a client, and the cursor of the next one."""
        params = b"{}" if cursor is None else msgspec.json.encode({"cursor": cursor})
        request = scan(messages.request(b"0", kind.method, params))
        response = await self._asked.ask(self._server_id, client, request)
        try:
            page = _page_decoder.decode(response)
            if page.error is not None:
                raise RpcError(page.error.get("code", 0), str(page.error.get("message", "")), page.error.get("data"))
            entries = _entries_decoder.decode(page.result[kind.member])
            following = _text_decoder.decode(page.result.get("nextCursor", b"null"))
        except (KeyError, msgspec.DecodeError, RecursionError):
            text = f"Server {self._server_id!r:.200} gave an answer that the protocol does not allow"
            raise RpcError(-32009, text, {**_OWN, "server": self._server_id}) from None
        return read_entries(entries, kind), following

    def _hidden(self, kind: Kind, listing: Listing) -> frozenset[str]:
        """Return the names in a list that pins hide, and tell of what is not as pinned."""
        pins = self._listings.pins
        if not pins.is_on or kind not in PINNED:
            return frozenset()
        different = pins.compare(self._server_id, kind, ((each.key, each.raw) for each in listing))
        return pins.note_of_client(self._server_id, kind, different)


def _forbidden(refusal: RpcError) -> RpcError:
    """Return the error for what no rule allows, and take note of that."""
    note_refusal("rule")
    return refusal


def _no_method(method: str) -> RpcError:
    return RpcError(METHOD_NOT_FOUND, f"Method not found: {quoted(method)}", dict(_OWN))


def _unknown(what: str, name: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"Unknown {what}: {quoted(name)}", dict(_OWN))
