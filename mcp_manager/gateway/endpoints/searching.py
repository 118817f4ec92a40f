"""How an endpoint answers the tools that find and describe its own, which are too many to be listed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.built_list import BuiltList
from mcp_manager.gateway.endpoints.catalogue import Catalogue, Place
from mcp_manager.gateway.endpoints.introducing import server_line
from mcp_manager.gateway.endpoints.kinds import TOOLS, Kind
from mcp_manager.gateway.endpoints.listings import Entry
from mcp_manager.gateway.endpoints.name_patterns import NamePatterns
from mcp_manager.gateway.endpoints.not_found import quoted
from mcp_manager.gateway.endpoints.request_params import text_in
from mcp_manager.gateway.endpoints.selection import Selection
from mcp_manager.gateway.tool_search import results
from mcp_manager.gateway.tool_search.meta_tools import (
    CALL,
    DEFAULT_LIMIT,
    META_TOOLS,
    MOST_DESCRIBED,
    MOST_FOUND,
    SEARCH,
)
from mcp_manager.gateway.tool_search.tool_index import IndexedTool
from mcp_manager.gateway.tool_search.tool_indexes import ToolIndexes
from mcp_manager.gateway.tool_search.wrapped_calls import unwrapped
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.handshake import ServerIdentity

__all__ = ["Searched", "Searching"]

_OWN: Final = {"source": "gateway"}
_DIGEST_BYTES: Final = 16
_NEAR: Final = 3
# Reading more definitions takes milliseconds.
_MUCH: Final = 256 * 1024
_MOST_SERVERS: Final = 200
_LONGEST_NAME: Final = 256

_limit_decoder = msgspec.json.Decoder(int | None, strict=False)


class _SearchArguments(msgspec.Struct):
    query: str | None = ""
    limit: msgspec.Raw = msgspec.Raw(b"null")


class _DescribeArguments(msgspec.Struct):
    names: list[str] | str


class _Params(msgspec.Struct):
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    task: Any = None


_params_decoder = msgspec.json.Decoder(_Params)
_search_decoder = msgspec.json.Decoder(_SearchArguments)
_describe_decoder = msgspec.json.Decoder(_DescribeArguments)


class Searched(Protocol):
    """An endpoint whose tools are found by a search."""

    async def listed(self, kind: Kind) -> BuiltList:
        """Return a merged list as it is now."""

    async def introductions(self, server_ids: list[str], wait_s: float) -> dict[str, ServerIdentity | None]:
        """Return what servers say about themselves, as far as it is shown."""

    async def route(self, message: Message, client: Client) -> object:
        """Find the server of a request; raises :class:`RpcError`."""


class Searching:
    """Find and describe the tools of endpoints.

    Parameters
    ----------
    indexes
        The indexes of their tools.
    """

    def __init__(self, indexes: ToolIndexes) -> None:
        self._indexes = indexes
        # Identifies what was listed first, or when lists_others was called last.
        self._listed: bytes | None = None

    def listed(self, catalogue: Catalogue, selection: Selection) -> Catalogue:
        """Return what is listed of a catalogue of tools: those that find others, and those that always are."""
        hot = selection.hot
        listed = catalogue if hot is None else _few_of(catalogue, hot)
        if self._listed is None:
            self._listed = listed.digest
        return listed

    def forget(self) -> None:
        """Forget what was listed: the endpoint shows something else from now on."""
        self._listed = None

    async def lists_others(self, endpoint: Searched) -> bool:
        """Return whether other tools are listed than when this was called last, or at first than were listed first."""
        digest = (await endpoint.listed(TOOLS)).pages.digest
        before, self._listed = self._listed, digest
        return digest != before

    async def own_result(self, message: Message, client: Client, endpoint: Searched) -> bytes | None:
        """Return the result of a ``tools/call`` that needs no server; ``None`` for all others.

        Parameters
        ----------
        message
            The request.
        client
            Who asks.
        endpoint
            Has the tools. What its routes refuse becomes a result that a model can learn from.

        Raises
        ------
        RpcError
            The request asks for a task, which these calls never become.
        """
        found = text_in(message, b"name")
        if found is None or found[1] not in META_TOOLS:
            return None
        message, name = found[:2]
        try:
            if name == CALL:
                message = unwrapped(message)
                inner = text_in(message, b"name")
                name = "" if inner is None else inner[1]
                if name == CALL:
                    return results.refused(
                        f"{CALL} cannot call itself: give it the name of a tool that {SEARCH} found."
                    )
                if name not in META_TOOLS:
                    await endpoint.route(message, client)
                    return None
            return await self._answer(name, message, endpoint)
        except RpcError as refusal:
            if refusal.code != INVALID_PARAMS:
                raise
            return results.refused(await self._explained(refusal, name, endpoint))

    async def _answer(self, name: str, message: Message, endpoint: Searched) -> bytes:
        try:
            params = _params_decoder.decode(message.params or b"{}")
            if params.task is not None:
                raise RpcError(METHOD_NOT_FOUND, f"{name} cannot become a task", _OWN)
            if name == SEARCH:
                return await self._search(_search_decoder.decode(params.arguments), endpoint)
            return await self._describe(_describe_decoder.decode(params.arguments), endpoint)
        except (msgspec.DecodeError, RecursionError):
            form = '{"query": a string, "limit": a number}' if name == SEARCH else '{"names": a list of strings}'
            raise RpcError(INVALID_PARAMS, f"{name} takes {form}", _OWN) from None

    async def _search(self, arguments: _SearchArguments, endpoint: Searched) -> bytes:
        limit = _limit_decoder.decode(arguments.limit)
        limit = DEFAULT_LIMIT if limit is None else min(max(limit, 1), MOST_FOUND)
        query = (arguments.query or "").strip()
        built = await endpoint.listed(TOOLS)
        catalogue, missing = built.catalogue, list(built.lists.missing)
        if not query:
            return await self._servers(catalogue, missing, endpoint)
        found = await self._found(catalogue, query, limit)
        return await _made([each.raw for each in found], partial(results.found, found, len(catalogue.places), missing))

    async def _servers(self, catalogue: Catalogue, missing: list[str], endpoint: Searched) -> bytes:
        counts: dict[str, int] = {}
        for place in catalogue.places.values():
            counts[place.server_id] = counts.get(place.server_id, 0) + 1
        shown = sorted(counts)[:_MOST_SERVERS]
        identities = await endpoint.introductions(shown, 0.0)
        lines = [results.ServerLine(each, server_line(identities[each]), counts[each]) for each in shown]
        return results.servers(lines, len(catalogue.places), missing)

    async def _describe(self, arguments: _DescribeArguments, endpoint: Searched) -> bytes:
        names = [arguments.names] if isinstance(arguments.names, str) else arguments.names
        names = list(dict.fromkeys(names))
        catalogue = (await endpoint.listed(TOOLS)).catalogue
        definitions = dict(zip(catalogue.places, catalogue.rendered, strict=True)) | META_TOOLS
        chosen = names[:MOST_DESCRIBED]
        unknown = {
            quoted(each): [near.name for near in await self._near(catalogue, each)]
            for each in chosen
            if each not in definitions
        }
        known = [definitions[each] for each in chosen if each in definitions]
        return await _made(known, partial(results.described, known, unknown, len(names) - len(chosen)))

    async def _explained(self, refusal: RpcError, name: str, endpoint: Searched) -> str:
        """Return what a model is told of a call that was refused."""
        if name == CALL or not refusal.message.startswith("Unknown tool"):
            return refusal.message
        hint = refusal.data.get("hint") if isinstance(refusal.data, dict) else None
        if not hint:
            catalogue = (await endpoint.listed(TOOLS)).catalogue
            near = " or ".join(each.name for each in await self._near(catalogue, name))
            hint = f"did you mean {near}?" if near else f"find tools with {SEARCH}"
        return f"{refusal.message}; {hint}"

    async def _near(self, catalogue: Catalogue, name: str) -> list[IndexedTool]:
        """Return the tools whose names share words with one that no tool has."""
        return await self._found(catalogue, name[:_LONGEST_NAME], _NEAR)

    async def _found(self, catalogue: Catalogue, query: str, limit: int) -> list[IndexedTool]:
        return await self._indexes.search(catalogue.digest, partial(_indexed, catalogue), query, limit)


async def _made(definitions: Iterable[bytes], make: Callable[[], bytes]) -> bytes:
    """Make a result of definitions; in a thread if they are large."""
    return make() if sum(map(len, definitions)) <= _MUCH else await asyncio.to_thread(make)


def _indexed(catalogue: Catalogue) -> list[IndexedTool]:
    entries = zip(catalogue.places.items(), catalogue.rendered, strict=True)
    return [IndexedTool(name, place.server_id, raw) for (name, place), raw in entries]


def _few_of(catalogue: Catalogue, hot: NamePatterns) -> Catalogue:
    entries: dict[str, tuple[Place, bytes]] = {
        name: (Place("", name, b"", Entry(name, raw, 0, 0)), raw) for name, raw in META_TOOLS.items()
    }
    for (name, place), raw in zip(catalogue.places.items(), catalogue.rendered, strict=True):
        if hot and hot.match(place.server_id, place.own):
            entries[name] = place, raw
    entries = dict(sorted(entries.items()))
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for _, raw in entries.values():
        digest.update(b"%d:%b" % (len(raw), raw))
    places = {name: place for name, (place, _) in entries.items()}
    return Catalogue(TOOLS, places, {}, [raw for _, raw in entries.values()], digest.digest())
