"""The index of servers by tag, type and priority: the cost of a choice does not depend on the size of the fleet."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from mcp_manager.config import ServerConfig, ToolsConfig
from mcp_manager.protocol.tool_rules import rules_of

__all__ = ["Chooser", "FleetIndex", "Group", "Traits", "traits_of"]

_GROUPS_AT_MOST: Final = 256
_LOOKED_AT: Final = 2
_LOOKED_AT_IN_NEED: Final = 16
_DRAWS: Final = 8


class Traits(NamedTuple):
    """The part of a server's configuration that selectors, priorities and the choice of a server for a tool use."""

    tags: tuple[str, ...]
    server_type: str
    priority: int
    tools: ToolsConfig = ToolsConfig()


class Chooser(NamedTuple):
    """How to choose among matching servers.

    Parameters
    ----------
    is_ready
        ``is_ready(server_id)`` tells whether a server takes calls.
    cost
        ``cost(server_id)`` is the expected cost of a call; of two servers, the one with the lower cost is chosen.
    draw
        ``draw(n)`` returns a random integer from 0 to n - 1.
    """

    is_ready: Callable[[str], bool]
    cost: Callable[[str], float]
    draw: Callable[[int], int]


class _Level:
    """The servers of one priority in one list: first those assumed to be ready, then those found not to be.

    A server is checked only when it is about to be chosen. One that is not ready moves to the second part, and each
    choice checks a few servers of that part again. So recovered servers are found, and no choice checks many servers.
    """

    __slots__ = ("_cursor", "_places", "_ready", "_servers")

    def __init__(self) -> None:
        self._servers: list[str] = []
        self._places: dict[str, int] = {}
        self._ready = 0
        self._cursor = 0

    def __len__(self) -> int:
        return len(self._servers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._servers)

    def add(self, server_id: str) -> None:
        self._places[server_id] = len(self._servers)
        self._servers.append(server_id)
        self._revive(server_id)

    def remove(self, server_id: str) -> None:
        if self._places[server_id] < self._ready:
            self._put_aside(server_id)
        self._swap(self._places[server_id], len(self._servers) - 1)
        self._servers.pop()
        del self._places[server_id]

    def choose(self, chooser: Chooser, but: Collection[str]) -> str | None:
        """Return a ready server not in ``but``: of two drawn at random the cheaper one (power of two choices)."""
        self._look_again(chooser, _LOOKED_AT)
        first = self._drawn(chooser, but)
        if first is None:
            self._look_again(chooser, _LOOKED_AT_IN_NEED)
            first = self._drawn(chooser, but)
        if first is None or self._ready < 2:
            return first
        second = self._drawn(chooser, {first, *but})
        return first if second is None or chooser.cost(first) <= chooser.cost(second) else second

    def not_ready(self) -> list[str]:
        """Return some of the servers that are not ready."""
        return self._servers[self._ready : self._ready + _LOOKED_AT_IN_NEED]

    def _drawn(self, chooser: Chooser, but: Collection[str]) -> str | None:
        draws = 0
        while self._ready:
            place = chooser.draw(self._ready)
            if self._servers[place] in but:
                draws += 1
                if draws < _DRAWS:
                    continue
                # Almost all are excluded: take the next one that is not, and wrap around at the end.
                place = next(
                    (each for each in self._around(place) if self._servers[each] not in but), len(self._servers)
                )
                if place == len(self._servers):
                    return None
            server_id = self._servers[place]
            if chooser.is_ready(server_id):
                return server_id
            self._put_aside(server_id)
        return None

    def _around(self, place: int) -> Iterator[int]:
        yield from range(place + 1, self._ready)
        yield from range(place)

    def _look_again(self, chooser: Chooser, most: int) -> None:
        for _ in range(min(most, len(self._servers) - self._ready)):
            self._cursor += 1
            if not self._ready <= self._cursor < len(self._servers):
                self._cursor = self._ready
            server_id = self._servers[self._cursor]
            if chooser.is_ready(server_id):
                self._revive(server_id)

    def _revive(self, server_id: str) -> None:
        self._swap(self._places[server_id], self._ready)
        self._ready += 1

    def _put_aside(self, server_id: str) -> None:
        self._ready -= 1
        self._swap(self._places[server_id], self._ready)

    def _swap(self, one: int, other: int) -> None:
        servers, places = self._servers, self._places
        servers[one], servers[other] = servers[other], servers[one]
        places[servers[one]] = one
        places[servers[other]] = other


class Group:
    """The servers that have all given tags and, unless it is ``None``, the given type; the highest priority first."""

    def __init__(self, tags: tuple[str, ...], server_type: str | None) -> None:
        self.tags = tags
        self.server_type = server_type
        self._levels: dict[int, _Level] = {}
        # The negated priorities in ascending order, so the highest priority comes first.
        self._order: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def by_priority(self) -> dict[int, list[str]]:
        """Return all servers of the group by priority."""
        return {-number: list(self._levels[-number]) for number in self._order}

    def matches(self, traits: Traits) -> bool:
        """Tell whether a server with these traits belongs to the group."""
        if self.server_type is not None and traits.server_type != self.server_type:
            return False
        return all(tag in traits.tags for tag in self.tags)

    def add(self, server_id: str, traits: Traits) -> None:
        """Add a server if it belongs to the group."""
        if not self.matches(traits):
            return
        level = self._levels.get(traits.priority)
        if level is None:
            level = self._levels[traits.priority] = _Level()
            insort(self._order, -traits.priority)
        level.add(server_id)

    def remove(self, server_id: str, traits: Traits) -> None:
        """Remove a server if it is in the group; ``traits`` are those that it was added with."""
        if not self.matches(traits):
            return
        level = self._levels[traits.priority]
        level.remove(server_id)
        if not len(level):
            del self._levels[traits.priority]
            self._order.remove(-traits.priority)

    def choose(self, chooser: Chooser, but: Collection[str], below: int | None = None) -> str | None:
        """Choose a ready server of the highest priority that has one; ``None`` if no server is ready.

        Parameters
        ----------
        chooser
            How to choose.
        but
            Servers that must not be chosen.
        below
            Consider only priorities below this one; ``None`` for all.
        """
        for number in self._order:
            if below is not None and -number >= below:
                continue
            found = self._levels[-number].choose(chooser, but)
            if found is not None:
                return found
        return None

    def not_ready(self) -> list[str]:
        """Return some servers of the highest priority that are not ready; a call to one of them fails and says why."""
        return self._levels[-self._order[0]].not_ready() if self._order else []


class FleetIndex:
    """Keep groups of servers; each is made on its first use and then updated as the fleet changes.

    Parameters
    ----------
    deployed
        Returns all deployed servers with their traits; called once, for the first group.

    Attributes
    ----------
    version
        Increases with every change of the fleet.
    """

    def __init__(self, deployed: Callable[[], Iterable[tuple[str, Traits]]]) -> None:
        self._deployed = deployed
        self._traits: dict[str, Traits] | None = None
        self._groups: dict[tuple[tuple[str, ...], str | None], Group] = {}
        # Groups by their first tag, or by their type if they have no tag, or under None if they have neither.
        self._anchored: dict[tuple[str, str] | None, list[Group]] = {}
        # The parts of groups that permit a tool, each with the version it was made at.
        self._permitting: dict[tuple[Group, str], tuple[int, Group]] = {}
        # How many servers have rules for tools.
        self._with_rules = 0
        self.version: int = 0

    def put(self, server_id: str, traits: Traits) -> None:
        """Add a server that was deployed, or update one whose configuration was replaced."""
        if self._traits is None:
            # No group exists yet: a fleet without selectors pays nothing.
            return
        before = self._traits.get(server_id)
        if before == traits:
            return
        if before is not None:
            self.remove(server_id)
        self.version += 1
        self._traits[server_id] = traits
        self._count_rules(traits, 1)
        for group in self._candidates(traits):
            group.add(server_id, traits)

    def remove(self, server_id: str) -> None:
        """Remove a server, if it is in the index."""
        traits = self._traits.pop(server_id, None) if self._traits is not None else None
        if traits is None:
            return
        self.version += 1
        self._count_rules(traits, -1)
        for group in self._candidates(traits):
            group.remove(server_id, traits)

    def group(self, tags: tuple[str, ...], server_type: str | None) -> Group:
        """Return the group of the servers with all of these tags and this type (``None``: any type)."""
        if self._traits is None:
            self._traits = dict(self._deployed())
            for traits in self._traits.values():
                self._count_rules(traits, 1)
        wanted = (tuple(sorted(set(tags))), server_type)
        group = self._groups.pop(wanted, None)
        if group is None:
            while len(self._groups) >= _GROUPS_AT_MOST:
                self._drop(next(iter(self._groups)))
            group = Group(*wanted)
            for server_id, traits in self._traits.items():
                group.add(server_id, traits)
            self._anchored.setdefault(_anchor(group), []).append(group)
        # Inserted last, so that the least recently used group is dropped first.
        self._groups[wanted] = group
        return group

    def permitting(self, group: Group, tool: str) -> Group:
        """Return the servers of a group whose rules permit a tool; the group itself if none of all servers has rules.

        Parameters
        ----------
        group
            A group, or a part of one.
        tool
            The name of the tool.
        """
        if not self._with_rules:
            return group
        version, part = self._permitting.pop((group, tool), (-1, group))
        if version != self.version:
            members = (each for level in group.by_priority().values() for each in level)
            part = self.part(group, (each for each in members if self._permits(each, tool)))
        while len(self._permitting) >= _GROUPS_AT_MOST:
            del self._permitting[next(iter(self._permitting))]
        # Inserted last, so that the least recently used one is dropped first.
        self._permitting[group, tool] = self.version, part
        return part

    def part(self, group: Group, server_ids: Iterable[str]) -> Group:
        """Return a new group with those of the given servers that belong to ``group``; it is not updated later."""
        part = Group(group.tags, group.server_type)
        for server_id in server_ids:
            traits = (self._traits or {}).get(server_id)
            if traits is not None:
                part.add(server_id, traits)
        return part

    def _permits(self, server_id: str, tool: str) -> bool:
        traits = (self._traits or {}).get(server_id)
        rules = None if traits is None else rules_of(traits.tools)
        return rules is None or rules.permits(tool)

    def _count_rules(self, traits: Traits, change: int) -> None:
        if rules_of(traits.tools) is not None:
            self._with_rules += change

    def _candidates(self, traits: Traits) -> Iterator[Group]:
        anchors = [("tag", tag) for tag in dict.fromkeys(traits.tags)]
        for anchor in (*anchors, ("type", traits.server_type), None):
            yield from self._anchored.get(anchor, ())

    def _drop(self, wanted: tuple[tuple[str, ...], str | None]) -> None:
        group = self._groups.pop(wanted)
        anchor = _anchor(group)
        self._anchored[anchor].remove(group)
        if not self._anchored[anchor]:
            del self._anchored[anchor]


def traits_of(config: ServerConfig) -> Traits:
    """Return the traits of a server's configuration."""
    return Traits(config.tags, config.server_type, config.priority, config.tools)


def _anchor(group: Group) -> tuple[str, str] | None:
    if group.tags:
        return "tag", group.tags[0]
    return ("type", group.server_type) if group.server_type is not None else None
