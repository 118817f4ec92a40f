"""Tool rules: patterns match as fnmatch does, and a request passes only if every server reads the same name in it."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.odd_params import KEYS, PARAMS, escaped

from mcp_manager import ToolsConfig
from mcp_manager.protocol.json_reading import DEFAULT_LIMITS
from mcp_manager.protocol.tool_rules import (
    ToolRules,
    UnclearToolError,
    permitted_page,
    rules_of,
    tool_called,
    unmatched,
)

NAMES = st.text(st.sampled_from("abA._-[]*?!é\u0301"), min_size=1, max_size=6)
PATTERNS = st.lists(NAMES, max_size=4).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.none() | PATTERNS, PATTERNS, st.lists(NAMES, max_size=6))
def test_patterns_match_as_fnmatch_does_and_deny_wins(
    allow: tuple[str, ...] | None, deny: tuple[str, ...], names: list[str]
) -> None:
    rules = ToolRules(ToolsConfig(allow=allow, deny=deny))
    for name in [*names, *names]:
        is_allowed = allow is None or any(fnmatch.fnmatchcase(name, each) for each in allow)
        is_denied = any(fnmatch.fnmatchcase(name, each) for each in deny)
        assert rules.permits(name) is (is_allowed and not is_denied)
        assert bool(rules.reason(name)) is not rules.permits(name)


@given(PATTERNS, st.lists(NAMES, max_size=6))
def test_a_pattern_is_unmatched_if_fnmatch_finds_nothing(patterns: tuple[str, ...], names: list[str]) -> None:
    nothing = {each for each in patterns if not any(fnmatch.fnmatchcase(name, each) for name in names)}
    assert unmatched(patterns, names) == nothing


def members_of(text: str) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    return pairs


@given(PARAMS)
@example('{"name":"echo","name":"delete"}')
@example('{"n\\u0061me":"delete","name":"echo"}')
@example('{"name":"echo","NAME":"delete"}')
@example('{"name":"echo", "a":1, "name" : "delete"}')
def test_what_passes_means_the_same_to_every_reader(text: str) -> None:
    try:
        name = tool_called(text.encode("utf-8", "surrogatepass"))
    except UnclearToolError:
        return
    pairs = members_of(text)
    assert len({key for key, _ in pairs}) == len(pairs)
    # The first and the last of several, whatever the case: what JSON readers of other languages take.
    assert [value for key, value in pairs if key.casefold() == "name"] == [name]
    assert [value for key, value in pairs if key == "name"] == [name]


@given(
    st.dictionaries(st.text(max_size=6).filter(lambda key: key.casefold() != "name" and "\ufffd" not in key), JSON),
    st.text().filter(lambda name: "\ufffd" not in name),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_an_ordinary_request_passes_however_it_is_written(
    others: dict[str, Any], name: str, indent: int | None, is_ascii: bool
) -> None:
    params = {**others, "name": name}
    separators = (",", ":") if indent is None else None
    text = json.dumps(params, indent=indent, ensure_ascii=is_ascii, separators=separators)
    assert tool_called(text.encode()) == name


@given(KEYS, st.data())
def test_no_escape_hides_a_second_name(key: str, data: st.DataObject) -> None:
    first, second = data.draw(escaped("name")), data.draw(escaped("name"))
    for text in (f'{{{first}:"echo","x":{key},{second}:"delete"}}', f'{{{first} : "echo" ,\n{second} : "delete"}}'):
        assert [member for member, _ in members_of(text)].count("name") == 2
        with pytest.raises(UnclearToolError, match="twice"):
            tool_called(text.encode())


@given(st.lists(JSON | st.fixed_dictionaries({"name": NAMES | JSON}), max_size=5), st.dictionaries(st.text(), JSON))
@example([{"name": "ab"}, {"name": "b"}, {"name": 3}], {"nextCursor": "x"})
def test_a_list_keeps_what_is_permitted_and_all_other_members(entries: list[Any], others: dict[str, Any]) -> None:
    rules = ToolRules(ToolsConfig(deny=("a*",)))
    result = {**others, "tools": entries}
    named = [each for each in entries if isinstance(each, dict) and isinstance(each.get("name"), str)]
    page = permitted_page(json.dumps(result).encode(), rules, DEFAULT_LIMITS)
    assert page.names == [each["name"] for each in named]
    kept = [each for each in named if rules.permits(each["name"])]
    assert (page.result is None) is (kept == entries)
    if page.result is not None:
        assert json.loads(page.result) == {**result, "tools": kept}


def test_no_rules_are_no_object() -> None:
    assert rules_of(ToolsConfig()) is None
    assert rules_of(ToolsConfig(allow=())) is rules_of(ToolsConfig(allow=()))
    with pytest.raises(UnclearToolError, match="not an object"):
        tool_called(None)


@given(
    st.sampled_from(
        ["", " a", "a ", "a\n", "\u00a0a", "a\u2003", "a\x00", "\x7f", "a\x9fb", "a\ufeff", "a\u200bb", "x" * 1025]
    )
)
def test_names_that_servers_may_read_as_others_are_forbidden(name: str) -> None:
    for rules in (ToolRules(ToolsConfig(deny=("b",))), ToolRules(ToolsConfig(allow=("*",)))):
        assert not rules.permits(name)
        assert rules.reason(name).startswith("tools permits")


def test_names_are_compared_by_code_points() -> None:
    rules = ToolRules(ToolsConfig(deny=("caf\u00e9", "Delete")))
    assert [rules.permits(each) for each in ("caf\u00e9", "cafe\u0301", "Delete", "delete")] == [
        False,
        True,
        False,
        True,
    ]
