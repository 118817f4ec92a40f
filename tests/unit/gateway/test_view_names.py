"""The names that views give: short ones where they are clear, and never that of another tool."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mcp_manager.config.serve import ViewConfig
from mcp_manager.gateway.endpoints.kinds import PROMPTS, TOOLS
from mcp_manager.gateway.endpoints.listings import read_entries
from mcp_manager.gateway.endpoints.selection import Pair, ViewSelection, alias_of, in_alias


def named(pairs: list[Pair], kind: Any = TOOLS, **config: Any) -> dict[Pair, str]:
    return ViewSelection(ViewConfig(**config)).names(kind, pairs, lambda server_id: (0, server_id))


def test_a_short_name_is_never_the_full_name_of_another_tool() -> None:
    names = named([("x", "a__b"), ("a", "b"), ("y", "b")], names="short")
    assert names == {("x", "a__b"): "x__a__b", ("a", "b"): "a__b", ("y", "b"): "y__b"}


def test_own_names_are_used_as_they_are() -> None:
    pairs = [("x", "find.it"), ("y", "n" * 100), ("y", "find")]
    assert named(pairs, names="short") == {pair: pair[1] for pair in pairs}
    assert named([("x", "p"), ("y", "p")], PROMPTS, names="short") == {("x", "p"): "x__p", ("y", "p"): "y__p"}


def test_a_given_name_comes_before_an_own_one() -> None:
    pairs = [("x", "a"), ("y", "b"), ("z", "c")]
    assert named(pairs, names="short", rename={"x__a": "b"}) == {("x", "a"): "b", ("y", "b"): "y__b", ("z", "c"): "c"}
    # Two tools with the same given name have neither.
    given = {"x__a": "n", "y__b": "n", "z__c": "x__a"}
    assert named(pairs, rename=given) == {("x", "a"): "x__a", ("y", "b"): "y__b", ("z", "c"): "z__c"}


@pytest.mark.parametrize(
    ("pattern", "server_id", "tool", "is_shown"),
    [
        ("a__*", "a", "b__c", True),
        ("a__*", "a__b", "c", False),
        ("a__b__*", "a", "b__c", True),
        ("*__find", "x", "find", True),
        ("*__find", "x", "y__find", False),
        ("*", "a__b", "c", True),
        ("find", "x", "find", False),
        ("crm__od_*", "crm", "od\u00e9", False),
        ("crm__od\u00e9", "crm", "od\u00e9", True),
        ("x__[ab]", "x", "b", True),
    ],
)
def test_patterns_are_for_the_server_and_the_tool_apart(
    pattern: str, server_id: str, tool: str, is_shown: bool
) -> None:
    view = ViewSelection(ViewConfig(tools=(pattern,)))
    assert (view.shows(server_id) and view.shows_entry(TOOLS, server_id, tool)) is is_shown


@pytest.mark.parametrize(
    ("raw", "description"),
    [
        (b'{"name":"t"}', "new"),
        (b'{ "name":"t","description":"old"}', "new"),
        (b'{"name":"t","description":"old","description":"older"}', '"quoted"'),
    ],
)
def test_a_description_is_replaced_or_added(raw: bytes, description: str) -> None:
    view = ViewSelection(ViewConfig(descriptions={"x__t": description}))
    [entry] = read_entries([msgspec.Raw(raw)], TOOLS)
    shown = msgspec.json.decode(view.rendered(TOOLS, ("x", "t"), entry, "x__t"))
    assert shown == {"name": "x__t", "description": description}


def test_an_alias_stands_for_a_server_and_a_uri() -> None:
    assert alias_of("a/b c", "r://{x}?q=1#f") == "mcp-manager:a%2Fb%20c/r://{x}?q=1#f"
    assert in_alias(alias_of("a/b c", "r://{x}")) == ("a/b c", "r://{x}")
    assert in_alias("r://x") is None and in_alias("mcp-manager:x") is None
