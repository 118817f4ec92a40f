"""The catalogue of the tools of several servers, and the names that tools have in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Self

import msgspec

from mcp_manager.results import Tool
from mcp_manager.serialization import Serializable

__all__ = ["FleetTool", "ToolCatalog", "catalog_of", "fleet_names", "possible_owners"]

_SEPARATOR: Final = "__"
# The function-calling interfaces of language models accept names that match ^[a-zA-Z0-9_-]{1,64}$.
_LONGEST_NAME: Final = 64
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH_DIGITS: Final = 8
_HASHED: Final = re.compile(r"_[0-9a-f]{8,}$")
# Every name with a hash begins with that much of its server's id, however many digits the hash has.
_SURE_PREFIX: Final = 32


class FleetTool(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """A tool under its name in the fleet.

    Parameters
    ----------
    name
        The unique name in the fleet, for :meth:`call_fleet_tool`: 1 to 64 characters of ``A-Z a-z 0-9 _ -``.
    server_id
        The id of the server that has the tool.
    tool
        The tool as its server lists it, with the server's own name.
    """

    name: str
    server_id: str
    tool: Tool

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data; the tool has the names of the wire, and all that its server sent."""
        return {"name": self.name, "server_id": self.server_id, "tool": self.tool.to_dict()}

    def to_json(self) -> bytes:
        """Return what :meth:`to_dict` returns as JSON."""
        return msgspec.json.encode(
            {"name": self.name, "server_id": self.server_id, "tool": msgspec.Raw(self.tool.to_json())}
        )

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Make a record of what :meth:`to_dict` returned; raises ``ValueError`` if that has another shape."""
        read = msgspec.convert(value, _PlainTool)
        return cls(name=read.name, server_id=read.server_id, tool=Tool.from_dict(read.tool))


class ToolCatalog(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The tools of several servers.

    Parameters
    ----------
    tools
        The tools, sorted by their names in the fleet.
    missing
        Why a server's tools could not be listed, by server id.
    """

    tools: tuple[FleetTool, ...]
    missing: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data; the tools have the names of the wire, and all that their servers sent."""
        return {"tools": [each.to_dict() for each in self.tools], "missing": dict(self.missing)}

    def to_json(self) -> bytes:
        """Return what :meth:`to_dict` returns as JSON."""
        return msgspec.json.encode(
            {"tools": [msgspec.Raw(each.to_json()) for each in self.tools], "missing": self.missing}
        )

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """Make a record of what :meth:`to_dict` returned; raises ``ValueError`` if that has another shape."""
        read = msgspec.convert(value, _PlainCatalog)
        return cls(tools=tuple(map(FleetTool.from_dict, read.tools)), missing=read.missing)


class _PlainTool(msgspec.Struct):
    name: str
    server_id: str
    tool: dict[str, Any]


class _PlainCatalog(msgspec.Struct):
    tools: list[dict[str, Any]]
    missing: dict[str, str]


def catalog_of(listings: Mapping[str, list[Tool] | str]) -> ToolCatalog:
    """Make a catalogue from the lists of servers, or the reasons why they are missing, by server id."""
    missing: dict[str, str] = {}
    found: dict[tuple[str, str], Tool] = {}
    for server_id, listing in listings.items():
        if isinstance(listing, str):
            missing[server_id] = listing
            continue
        for tool in listing:
            # If a server lists a name twice, the first entry counts.
            found.setdefault((server_id, tool.name), tool)
    tools = [
        FleetTool(name=name, server_id=pair[0], tool=found[pair])
        for pair, name in sorted(fleet_names(found).items(), key=lambda item: item[1])
    ]
    return ToolCatalog(tools=tuple(tools), missing=missing)


def fleet_names(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Give every tool of a fleet a unique name of at most 64 characters of ``A-Z a-z 0-9 _ -``.

    The name is ``{server}__{tool}`` if that is valid and unambiguous. Otherwise it ends in a hash of the pair: if it
    contains another character or is too long, if the server id contains two underscores in a row or ends in one, or if
    the name itself ends like a hash. A name depends on other pairs only if two 32-bit hashes collide, so no server can
    take the name of another server's tool by the choice of its own names.

    Parameters
    ----------
    pairs
        The server id and tool name of each tool, every pair once, in any order.

    Returns
    -------
    The name of each pair.
    """
    names: dict[tuple[str, str], str] = {}
    doubtful: list[tuple[str, str]] = []
    for pair in pairs:
        plain = _plain_name(*pair)
        if plain is None:
            doubtful.append(pair)
        else:
            names[pair] = plain
    taken = set(names.values())
    digits = _HASH_DIGITS
    while doubtful:
        hashed = {pair: _hashed_name(*pair, digits) for pair in doubtful}
        counts: Mapping[str, int] = _count(hashed.values())
        doubtful = [pair for pair in doubtful if counts[hashed[pair]] > 1 or hashed[pair] in taken]
        named = {pair: name for pair, name in hashed.items() if pair not in doubtful}
        names.update(named)
        taken.update(named.values())
        digits += 2
    return names


def possible_owners(name: str, server_ids: Iterable[str]) -> list[str]:
    """Return the servers whose tools may have a name in the fleet: most often one or none.

    Which of them has the tool, if any, only their lists can tell.

    Parameters
    ----------
    name
        The name.
    server_ids
        All servers.
    """
    if _HASHED.search(name) is None:
        # A plain name: no server that has such names has the separator in its id.
        owner = name.partition(_SEPARATOR)[0]
        return [each for each in server_ids if each == owner]
    return [each for each in server_ids if name.startswith(_prefix(each))]


@lru_cache(maxsize=65_536)
def _prefix(server_id: str) -> str:
    return _FOREIGN.sub("_", f"{server_id}{_SEPARATOR}")[:_SURE_PREFIX]


def _plain_name(server_id: str, tool: str) -> str | None:
    name = f"{server_id}{_SEPARATOR}{tool}"
    ambiguous = _SEPARATOR in server_id or server_id.endswith("_") or _HASHED.search(name) is not None
    return None if ambiguous or not tool or len(name) > _LONGEST_NAME or _FOREIGN.search(name) else name


def _hashed_name(server_id: str, tool: str, digits: int) -> str:
    import hashlib  # noqa: PLC0415 - not needed to import the package

    pair = f"{len(server_id)}:{server_id}{tool}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(pair).hexdigest()[:digits]
    readable = _FOREIGN.sub("_", f"{server_id}{_SEPARATOR}{tool}")[: _LONGEST_NAME - 1 - digits]
    return f"{readable}_{digest}"


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
