"""The index of a fleet against a naive one: every server in exactly the groups it matches, and chosen by the rules."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.examples import examples

from mcp_manager.config import ToolsConfig
from mcp_manager.fleet.index import _GROUPS_AT_MOST, Chooser, FleetIndex, Traits, _Level

IDS = st.sampled_from([f"s{number}" for number in range(10)])
TAGS = st.lists(st.sampled_from(["red", "blue", "green"]), max_size=4).map(tuple)
TYPES = st.sampled_from(["mcp", "search"])
TOOLS = st.sampled_from([ToolsConfig(), ToolsConfig(), ToolsConfig(deny=("delete",)), ToolsConfig(allow=("read*",))])
TRAITS = st.builds(Traits, TAGS, TYPES, st.integers(0, 3), TOOLS)


def matching(fleet: dict[str, Traits], tags: tuple[str, ...], server_type: str | None) -> dict[int, set[str]]:
    """By priority, the servers with all of the tags and the type."""
    found: dict[int, set[str]] = {}
    for server_id, traits in fleet.items():
        if set(tags) <= set(traits.tags) and server_type in (None, traits.server_type):
            found.setdefault(traits.priority, set()).add(server_id)
    return found


def permits(tools: ToolsConfig, tool: str) -> bool:
    """Whether the few rules that are drawn here permit a tool."""
    return tool not in tools.deny and (tools.allow is None or tool.startswith("read"))


class FleetIndexMachine(RuleBasedStateMachine):
    """Servers that come, change, go, and are well or not."""

    @initialize(first=st.dictionaries(IDS, TRAITS, max_size=4))
    def begin(self, first: dict[str, Traits]) -> None:
        self.fleet = dict(first)
        self.index = FleetIndex(lambda: self.fleet.items())
        self.down: set[str] = set()
        self.asked: set[tuple[tuple[str, ...], str | None]] = set()
        self.version = self.index.version
        self.looks = 0

    def is_ready(self, server_id: str) -> bool:
        self.looks += 1
        return server_id in self.fleet and server_id not in self.down

    @rule(server_id=IDS, traits=TRAITS)
    def put(self, server_id: str, traits: Traits) -> None:
        self.fleet[server_id] = traits
        self.index.put(server_id, traits)

    @rule(server_id=IDS)
    def remove(self, server_id: str) -> None:
        self.fleet.pop(server_id, None)
        self.index.remove(server_id)

    @rule(server_id=IDS)
    def turn(self, server_id: str) -> None:
        self.down ^= {server_id}

    @rule(
        tags=TAGS,
        server_type=st.none() | TYPES,
        seed=st.randoms(use_true_random=False),
        but=st.lists(IDS, max_size=3),
        below=st.none() | st.integers(0, 4),
    )
    def choose(self, tags: tuple[str, ...], server_type: str | None, seed: Any, but: list[str], below: Any) -> None:
        group = self.index.group(tags, server_type)
        self.asked.add((tags, server_type))
        chooser = Chooser(self.is_ready, lambda server_id: float(server_id[1:]), seed.randrange)
        chosen = group.choose(chooser, but, below)
        levels = matching(self.fleet, tags, server_type)
        usable = {
            priority: {each for each in level if each not in self.down and each not in but}
            for priority, level in levels.items()
            if below is None or priority < below
        }
        best = max((priority for priority, level in usable.items() if level), default=None)
        if best is None:
            assert chosen is None
        else:
            # Ten servers are few enough to be looked at with one choice, those that were put aside included.
            assert chosen in usable[best]
        if chosen is None and levels and not but:
            assert set(group.not_ready()) <= levels[max(levels)]

    # Few groups and tools, so that the same ones are asked for again after a change.
    @rule(tags=st.sampled_from([(), ("red",)]), tool=st.sampled_from(["delete", "read"]))
    def choose_for_tool(self, tags: tuple[str, ...], tool: str) -> None:
        group = self.index.group(tags, None)
        shown = self.index.permitting(group, tool).by_priority()
        permitted = {
            priority: ids
            for priority, level in matching(self.fleet, tags, None).items()
            if (ids := {each for each in level if permits(self.fleet[each].tools, tool)})
        }
        assert {priority: set(level) for priority, level in shown.items()} == permitted
        if all(traits.tools == ToolsConfig() for traits in self.fleet.values()):
            assert self.index.permitting(group, tool) is group

    @invariant()
    def every_server_is_in_exactly_its_groups(self) -> None:
        if getattr(self, "fleet", None) is None:
            return
        for tags, server_type in self.asked:
            shown = self.index.group(tags, server_type).by_priority()
            assert list(shown) == sorted(shown, reverse=True)
            assert all(len(level) == len(set(level)) for level in shown.values())
            assert {priority: set(level) for priority, level in shown.items()} == matching(
                self.fleet, tags, server_type
            )


TestFleetIndex = FleetIndexMachine.TestCase
TestFleetIndex.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)


@given(
    size=st.integers(1, 300),
    down=st.sets(st.integers(0, 299)),
    seed=st.randoms(use_true_random=False),
)
def test_a_choice_looks_at_few_and_finds_whatever_comes_back(size: int, down: set[int], seed: Any) -> None:
    level = _Level()
    for number in range(size):
        level.add(str(number))
    out = {str(number) for number in down}
    looks = 0

    def is_ready(server_id: str) -> bool:
        nonlocal looks
        looks += 1
        return server_id not in out

    chooser = Chooser(is_ready, lambda _: 1.0, seed.randrange)
    choices = 0
    for _ in range(size):
        choices += 1
        chosen = level.choose(chooser, ())
        assert chosen is None or chosen not in out
    # Each that is put aside was looked at once for it; beyond that, a few looks for every choice.
    assert looks <= size + 20 * choices
    out.clear()
    for _ in range(size):
        assert level.choose(chooser, ()) is not None
    assert level.not_ready() == []


def test_one_that_came_back_is_found_when_the_last_that_was_ready_goes() -> None:
    level = _Level()
    for number in range(10):
        level.add(str(number))
    up: set[str] = set()
    chooser = Chooser(lambda server_id: server_id in up, lambda _: 1.0, lambda count: count - 1)
    assert level.choose(chooser, ()) is None
    up.add("3")
    assert level.choose(chooser, ()) == "3"
    for number in range(10):
        up.clear()
        up.add(str(number))
        assert level.choose(chooser, ()) == str(number)
        assert level.choose(chooser, {str(number)}) is None


@given(size=st.integers(2, 50), seed=st.randoms(use_true_random=False))
def test_of_two_the_cheaper_one_is_taken(size: int, seed: Any) -> None:
    level = _Level()
    for number in range(size):
        level.add(str(number))
    asked: list[str] = []

    def cost(server_id: str) -> float:
        asked.append(server_id)
        return float(server_id)

    chosen = level.choose(Chooser(lambda _: True, cost, seed.randrange), ())
    assert len(set(asked)) == 2
    assert chosen == min(asked, key=float)


@given(size=st.integers(2, 30), draw=st.integers(0, 29), left=st.integers(0, 29))
def test_the_only_one_that_is_left_is_found_wherever_it_is(size: int, draw: int, left: int) -> None:
    level = _Level()
    for number in range(size):
        level.add(str(number))
    only = str(left % size)
    # A generator that draws the same number for ever must not be able to hide it.
    chooser = Chooser(lambda _: True, lambda _: 1.0, lambda count: draw % count)
    assert level.choose(chooser, {str(number) for number in range(size)} - {only}) == only


def test_selectors_that_mean_the_same_share_a_group() -> None:
    index = FleetIndex(dict[str, Traits]().items)
    assert index.group(("b", "a"), None) is index.group(("a", "b", "a"), None)
    assert index.group(("b", "a"), "mcp") is not index.group(("b", "a"), None)


def test_so_many_groups_are_kept_and_the_one_that_was_not_asked_for_longest_goes() -> None:
    index = FleetIndex({"old": Traits(("red",), "mcp", 0)}.items)
    red, blue = index.group(("red",), None), index.group(("blue",), None)
    for number in range(_GROUPS_AT_MOST - 2):
        index.group((f"other {number}",), None)
    assert index.group(("red",), None) is red
    index.group(("one more",), None)
    index.put("new", Traits(("red", "blue"), "mcp", 0))
    assert red.by_priority() == {0: ["old", "new"]}
    # What was let go is not kept up to date, and made again when it is asked for.
    assert blue.by_priority() == {}
    assert index.group(("blue",), None).by_priority() == {0: ["new"]}
