"""What an endpoint shows of the fleet, and the names that it gives: everything, or what a view chooses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from mcp_manager._core.splicing import UnclearMemberError, member_range
from mcp_manager.config.serve import ServeConfig, ViewConfig
from mcp_manager.gateway.endpoints.kinds import PROMPTS, TOOLS, Kind
from mcp_manager.gateway.endpoints.listings import Entry
from mcp_manager.gateway.endpoints.name_patterns import NamePatterns
from mcp_manager.gateway.tool_search.meta_tools import META_TOOLS
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.verbs.tool_catalog import fleet_names, possible_owners

__all__ = ["ALIAS_SCHEME", "NoSelection", "Pair", "Selection", "ViewSelection", "alias_of", "hot_tools", "in_alias"]

ALIAS_SCHEME: Final = "mcp-manager:"
"""Begins the URIs of resources whose own URI belongs to another server: ``mcp-manager:{server}/{uri}``."""

_SEPARATOR: Final = "__"

Pair = tuple[str, str]
"""A server id, and what that server calls something."""

Prefer = Callable[[str], tuple[int, str]]
"""Returns what servers are sorted by if they have the same URI: the first one keeps it."""

_members_decoder: JsonDecoder[dict[str, msgspec.Raw]] = JsonDecoder(dict[str, msgspec.Raw])


def alias_of(server_id: str, uri: str) -> str:
    """Return the URI of the gateway's own for a resource or template of a server."""
    return f"{ALIAS_SCHEME}{quote(server_id, safe='')}/{uri}"


def in_alias(uri: str) -> Pair | None:
    """Return the server and the URI that a URI of the gateway's own stands for; ``None`` for any other URI."""
    if not uri.startswith(ALIAS_SCHEME):
        return None
    server_id, slash, own = uri[len(ALIAS_SCHEME) :].partition("/")
    return (unquote(server_id), own) if slash else None


class Selection:
    """Show the whole fleet: tools and prompts as ``{server}__{name}``, resources under their own URIs.

    Parameters
    ----------
    hot
        The tools that are listed although the others are found by a search; ``None`` if all are listed.
    """

    hot: NamePatterns | None = None
    instructions: str | None = None
    chooses_tools: bool = False
    is_prefixed: bool = True

    def __init__(self, hot: NamePatterns | None = None) -> None:
        self.hot = hot

    def shows(self, server_id: str) -> bool:
        """Return whether a server is shown, if it is deployed."""
        return True

    def shows_entry(self, kind: Kind, server_id: str, key: str) -> bool:
        """Return whether an entry of a server that is shown is in the list."""
        return True

    def allows(self, method: str) -> bool:
        """Return whether requests with a method may be sent at all."""
        return True

    def permits(self, method: str, kind: Kind, server_id: str, key: str) -> bool:
        """Return whether a request with a method may concern an entry, listed or not, of a server that is shown."""
        return True

    def open_to(self, method: str, server_ids: list[str]) -> list[str]:
        """Return the servers that may get a request with a method of an extension."""
        return server_ids

    def hides_tools_of(self, server_id: str) -> bool:
        """Return whether some tools of a server may be hidden."""
        return self.chooses_tools

    def introduced(self, server_id: str, identity: ServerIdentity) -> ServerIdentity:
        """Return what a server says about itself, as far as it is shown."""
        return identity

    def names(self, kind: Kind, pairs: Iterable[Pair], prefer: Prefer) -> dict[Pair, str]:
        """Return what clients call the entries of one kind: every name once.

        A URI that several servers have belongs to the one that ``prefer`` sorts first. The others are shown under a URI
        of the gateway's own. So are those that look like one, because nobody may take the URI of another server.
        """
        if kind in (TOOLS, PROMPTS):
            return self._names_of_tools(kind, list(pairs))
        names: dict[Pair, str] = {}
        taken: set[str] = set()
        for server_id, uri in sorted(pairs, key=lambda pair: (prefer(pair[0]), pair[1])):
            is_own = uri not in taken and not uri.startswith(ALIAS_SCHEME)
            names[server_id, uri] = uri if is_own else alias_of(server_id, uri)
            taken.add(uri)
        return names

    def possible_servers(self, kind: Kind, name: str, server_ids: list[str]) -> list[str]:
        """Return the servers that may have what clients know by a name, from all that are shown."""
        return possible_owners(name, server_ids) if kind in (TOOLS, PROMPTS) else server_ids

    def unlisted(self, kind: Kind, name: str, server_ids: list[str]) -> Pair | None:
        """Return what a name means whatever its server lists; ``None`` if only that list can tell.

        Parameters
        ----------
        kind
            ``TOOLS`` or ``PROMPTS``.
        name
            The name that a client gives.
        server_ids
            The servers that may have it.
        """
        if len(server_ids) != 1:
            return None
        pair = server_ids[0], name.removeprefix(f"{server_ids[0]}{_SEPARATOR}")
        if not pair[1] or pair[1] == name or not self.shows_entry(kind, *pair):
            return None
        return pair if self.names(kind, [pair], lambda server_id: (0, server_id))[pair] == name else None

    def rendered(self, kind: Kind, pair: Pair, entry: Entry, name: str) -> bytes:
        """Return an entry as clients get it."""
        return entry.renamed(name)

    def _names_of_tools(self, kind: Kind, pairs: list[Pair]) -> dict[Pair, str]:
        return fleet_names(pairs)


def hot_tools(config: ServeConfig | ViewConfig) -> NamePatterns | None:
    """Return the tools that are always listed; ``None`` if all are, because tools are not found by a search."""
    return NamePatterns(config.hot) if config.discovery == "search" else None


class NoSelection(Selection):
    """Show nothing."""

    def shows(self, server_id: str) -> bool:
        """Return ``False``."""
        return False


class ViewSelection(Selection):
    """Show what a view chooses.

    The patterns of ``tools`` are :class:`~mcp_manager.gateway.endpoints.name_patterns.NamePatterns`. Without
    ``servers``, the view has the servers that the patterns match. Of its servers, it shows all prompts and resources.

    Parameters
    ----------
    config
        The configuration of the view.
    """

    def __init__(self, config: ViewConfig) -> None:
        super().__init__(hot_tools(config))
        self._servers = frozenset(config.servers)
        self._is_short = config.names == "short"
        self._rename = dict(config.rename)
        self._descriptions = dict(config.descriptions)
        self._patterns = NamePatterns(config.tools)
        self._tools = config.tools
        self.instructions: str | None = config.instructions
        self.chooses_tools: bool = bool(config.tools)
        self.is_prefixed: bool = not self._is_short

    def shows(self, server_id: str) -> bool:
        """Return whether a server is in ``servers``, or without that, whether a pattern matches it."""
        if self._servers:
            return server_id in self._servers
        return not self.chooses_tools or self._patterns.match_server(server_id)

    def shows_entry(self, kind: Kind, server_id: str, key: str) -> bool:
        """Return whether a tool matches a pattern; entries of other kinds are all shown."""
        return kind is not TOOLS or not self.chooses_tools or self._patterns.match(server_id, key)

    def unlisted(self, kind: Kind, name: str, server_ids: list[str]) -> Pair | None:
        """Return what a name means, if the view gives no names of its own."""
        return None if self._is_short or self._rename else super().unlisted(kind, name, server_ids)

    def possible_servers(self, kind: Kind, name: str, server_ids: list[str]) -> list[str]:
        """Return all servers: any of them may have a short or another name."""
        if self._is_short or self._rename:
            return server_ids
        return super().possible_servers(kind, name, server_ids)

    def rendered(self, kind: Kind, pair: Pair, entry: Entry, name: str) -> bytes:
        """Return an entry as clients get it, with the description that the view gives it."""
        raw = entry.renamed(name)
        if kind is not TOOLS or not self._descriptions:
            return raw
        description = self._given(self._descriptions, pair)
        return raw if description is None else _with_description(raw, description)

    def without_effect(
        self, tools: Mapping[str, Collection[str]], unlisted: Collection[str]
    ) -> Iterator[tuple[str, str]]:
        """Yield the field and the entry of what stands for no tool.

        Parameters
        ----------
        tools
            The names of the tools of each server that has told them.
        unlisted
            The servers that have not: what may stand for one of their tools is not yielded.
        """
        of_view = {server_id: names for server_id, names in tools.items() if self.shows(server_id)}
        for pattern in dict.fromkeys(self._tools):
            alone = ViewSelection(ViewConfig(servers=tuple(self._servers), tools=(pattern,)))
            if any(alone.shows(server_id) for server_id in unlisted):
                continue
            if not any(
                alone.shows_entry(TOOLS, server_id, name) for server_id, names in of_view.items() for name in names
            ):
                yield "tools", pattern
        if any(self.shows(server_id) for server_id in unlisted):
            return
        shown = [
            (each, name) for each, names in of_view.items() for name in names if self.shows_entry(TOOLS, each, name)
        ]
        for field, by_tool in (("rename", self._rename), ("descriptions", self._descriptions)):
            for tool, text in by_tool.items():
                if all(self._given({tool: text}, pair) is None for pair in shown):
                    yield field, tool

    def _names_of_tools(self, kind: Kind, pairs: list[Pair]) -> dict[Pair, str]:
        full = fleet_names(pairs)
        owners = {name: pair for pair, name in full.items()}
        renamed = {pair: self._given(self._rename, pair, full[pair]) for pair in pairs} if kind is TOOLS else {}
        wanted = {pair: name for pair, name in renamed.items() if name}
        if self._is_short:
            # A name that the view gives is not taken away by a tool that has it by itself.
            given = set(wanted.values())
            wanted.update((pair, pair[1]) for pair in pairs if pair not in wanted and pair[1] not in given)
        if kind is TOOLS and self.hot is not None:
            # These names are taken.
            wanted = {pair: name for pair, name in wanted.items() if name not in META_TOOLS}
        counts: dict[str, int] = {}
        for name in wanted.values():
            counts[name] = counts.get(name, 0) + 1
        names: dict[Pair, str] = {}
        for pair in pairs:
            name = wanted.get(pair, "")
            is_free = name != "" and counts[name] == 1 and owners.get(name, pair) == pair
            names[pair] = name if is_free else full[pair]
        return names

    def _given(self, by_tool: Mapping[str, str], pair: Pair, full: str | None = None) -> str | None:
        """Return what the configuration gives a tool, by its plain name or by its name in the fleet."""
        if _SEPARATOR not in pair[0] and not pair[0].endswith("_"):
            found = by_tool.get(f"{pair[0]}{_SEPARATOR}{pair[1]}")
            if found is not None:
                return found
        return by_tool.get(fleet_names([pair])[pair] if full is None else full)


def _with_description(raw: bytes, description: str) -> bytes:
    value = msgspec.json.encode(description)
    try:
        place = member_range(raw, b"description")
    except UnclearMemberError:
        members = _members_decoder.decode(raw)
        members["description"] = msgspec.Raw(value)
        return msgspec.json.encode(members)
    if place is None:
        start = raw.index(b"{") + 1
        return raw[:start] + b'"description":%b,' % value + raw[start:]
    return raw[: place[0]] + value + raw[place[1] :]
