"""Names of tools in a fleet: one for every pair of server and tool, whatever the pairs and their order."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.verbs.tool_catalog import fleet_names, possible_owners

ALLOWED = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Few characters, so that what could be confused is drawn often.
AWKWARD = st.text(st.sampled_from("ab_-. é\U0001f600"), max_size=8)
PAIRS = st.lists(
    st.tuples(st.one_of(AWKWARD.filter(bool), st.text(min_size=1)), st.one_of(AWKWARD, st.text())), unique=True
)


@given(PAIRS)
def test_every_pair_has_a_name_of_its_own_that_any_interface_takes(pairs: list[tuple[str, str]]) -> None:
    names = fleet_names(pairs)
    assert set(names) == set(pairs)
    assert len(set(names.values())) == len(pairs)
    assert all(ALLOWED.fullmatch(name) for name in names.values())


@given(PAIRS, st.randoms())
def test_a_name_depends_neither_on_the_order_nor_on_the_other_pairs(
    pairs: list[tuple[str, str]], random: Random
) -> None:
    names = fleet_names(pairs)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert fleet_names(shuffled) == names
    assert all(fleet_names([pair]) == {pair: name} for pair, name in names.items())


@given(PAIRS)
def test_a_name_is_looked_for_on_the_server_that_has_it(pairs: list[tuple[str, str]]) -> None:
    server_ids = list(dict.fromkeys(server_id for server_id, _ in pairs))
    for (server_id, _), name in fleet_names(pairs).items():
        assert server_id in possible_owners(name, server_ids)


def test_a_plain_name_is_looked_for_on_one_server() -> None:
    server_ids = ["a", "a_", "a__b", "a.b", "b", "a__b__c"]
    assert possible_owners("a__b__c", server_ids) == ["a"]
    assert possible_owners("a___b", server_ids) == ["a"]
    assert possible_owners("a__b__c_00000000", server_ids) == ["a", "a__b"]
    assert possible_owners("c__b", server_ids) == possible_owners("a", []) == possible_owners("", server_ids) == []


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        (("search", "web"), "search__web"),
        (("search", "_web__all"), "search___web__all"),
        (("s" * 31, "t" * 31), "s" * 31 + "__" + "t" * 31),
    ],
)
def test_a_pair_that_can_be_told_apart_is_named_plainly(pair: tuple[str, str], name: str) -> None:
    assert fleet_names([pair]) == {pair: name}


@pytest.mark.parametrize(
    "pair", [("a__b", "c"), ("a_", "b"), ("a.b", "c"), ("a", "b c"), ("a", ""), ("s" * 31, "t" * 32), ("ä", "ö")]
)
def test_any_other_pair_ends_with_a_hash(pair: tuple[str, str]) -> None:
    (name,) = fleet_names([pair]).values()
    assert re.fullmatch(r"[a-zA-Z0-9_-]{0,55}_[0-9a-f]{8}", name)


def test_no_tool_takes_the_name_of_another_servers() -> None:
    theirs = ("my.files", "read")
    name = fleet_names([theirs])[theirs]
    thief = ("my_files", name.removeprefix("my_files__"))
    assert fleet_names([theirs, thief])[theirs] == name
    assert fleet_names([thief])[thief] != name


def test_names_do_not_change_from_one_version_to_the_next() -> None:
    # Agents keep them in prompts and logs.
    assert fleet_names([("my.files", "read"), ("a__b", "c")]) == {
        ("my.files", "read"): "my_files__read_fb00590d",
        ("a__b", "c"): "a__b__c_bf3c0c39",
    }
