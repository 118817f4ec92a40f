"""Merged lists of random fleets with hostile names: what is listed can be reached, and nothing else."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

from mcp_manager._core.jsonrpc import scan
from mcp_manager._core.splicing import UnclearMemberError, member_range, text_param, with_params, with_range
from mcp_manager.config.serve import ViewConfig
from mcp_manager.gateway.endpoints.catalogue import Catalogue, Pages, catalogue_of
from mcp_manager.gateway.endpoints.kinds import KINDS, PROMPTS, RESOURCES, TEMPLATES, TOOLS, Kind
from mcp_manager.gateway.endpoints.listings import Listing, read_entries
from mcp_manager.gateway.endpoints.resource_owners import match_rank
from mcp_manager.gateway.endpoints.selection import Selection, ViewSelection, in_alias
from mcp_manager.gateway.sessions.sealing import Sealer

SEALER = Sealer()

# Few letters, so that names collide in all the ways that they can.
words = st.text("ab_", min_size=1, max_size=4)
odd = st.one_of(
    words, st.text(max_size=3), st.sampled_from(["a__b", "__", "a.b", "é", '"', "\\", "a_0123abcd", "x" * 70])
)
server_ids = st.one_of(words, st.sampled_from(["a", "a__b", "a_", "b.c", "b_c"]))
uris = st.one_of(odd, st.sampled_from(["mcp-manager:a/b", "mcp-manager:a%5F/b", "mcp-manager:", "r://1", "r://{x}"]))


def entry(kind: Kind, key: str) -> msgspec.Raw:
    return msgspec.Raw(json.dumps({"x": [1], kind.key: key, "inputSchema": {"name": key}}).encode())


@st.composite
def fleets(draw: st.DrawFn, kind: Kind) -> dict[str, Listing]:
    keys = odd if kind in (TOOLS, PROMPTS) else uris
    drawn = draw(st.dictionaries(server_ids, st.lists(keys, max_size=4), max_size=4))
    return {server_id: read_entries([entry(kind, key) for key in found], kind) for server_id, found in drawn.items()}


def prefer(server_id: str) -> tuple[int, str]:
    return -len(server_id), server_id


def merged(kind: Kind, lists: Mapping[str, Listing], selection: Selection) -> Catalogue:
    shown = {server_id: listing for server_id, listing in lists.items() if selection.shows(server_id)}
    return catalogue_of(kind, shown, selection, prefer)


def all_pages(catalogue: Catalogue, size: int) -> list[dict[str, Any]]:
    pages = Pages(catalogue, {}, SEALER, "fleet", size)
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = json.loads(pages.page(cursor))
        assert len(page[catalogue.kind.member]) <= size
        found += page[catalogue.kind.member]
        cursor = page.get("nextCursor")
        if cursor is None:
            return found


@given(st.data(), st.sampled_from(list(KINDS.values())), st.integers(1, 3))
@settings(max_examples=examples(150))
def test_what_is_listed_is_what_can_be_reached(data: st.DataObject, kind: Kind, size: int) -> None:
    lists = data.draw(fleets(kind))
    catalogue = merged(kind, lists, Selection())
    listed = all_pages(catalogue, size)
    names = [each[kind.key] for each in listed]
    assert names == sorted(names) == list(catalogue.places)
    reached = {(place.server_id, place.own) for place in catalogue.places.values()}
    assert reached == {(server_id, each.key) for server_id, listing in lists.items() for each in listing}
    assert len(reached) == len(names)
    for name, shown in zip(names, listed, strict=True):
        place = catalogue.places[name]
        # All but the name is as the server wrote it.
        assert {**shown, kind.key: place.own} == json.loads(place.entry.raw)
        assert json.loads(place.own_json) == place.own
    assert catalogue_of(kind, dict(reversed(lists.items())), Selection(), prefer).digest == catalogue.digest


@given(st.data(), st.sampled_from([RESOURCES, TEMPLATES]))
@settings(max_examples=examples(100))
def test_no_server_takes_the_uri_of_another(data: st.DataObject, kind: Kind) -> None:
    lists = data.draw(fleets(kind))
    for uri, place in merged(kind, lists, Selection()).places.items():
        alias = in_alias(uri)
        if alias is None:
            assert uri == place.own
            holders = [each for each, listing in lists.items() if any(uri == entry.key for entry in listing)]
            assert place.server_id == min(holders, key=prefer)
        else:
            assert alias == (place.server_id, place.own)


@given(
    st.data(),
    st.lists(server_ids, max_size=3),
    st.lists(st.sampled_from(["a__*", "*__a", "a__b__*", "a__a", "*", "b*__*", "__*", "a"]), max_size=2),
    st.sampled_from(["full", "short"]),
    st.dictionaries(st.sampled_from(["a__a", "a__b", "b__a"]), words, max_size=2),
)
@settings(max_examples=examples(200))
def test_a_view_never_shows_what_it_does_not_choose(
    data: st.DataObject, servers: list[str], tools: list[str], names: Any, rename: dict[str, str]
) -> None:
    lists = data.draw(fleets(TOOLS))
    config = ViewConfig(servers=tuple(servers), tools=tuple(tools), names=names, rename=rename)
    catalogue = merged(TOOLS, lists, ViewSelection(config))
    assert [each["name"] for each in all_pages(catalogue, 2)] == list(catalogue.places)
    chosen = {
        (server_id, each.key)
        for server_id, listing in lists.items()
        for each in listing
        if (not servers or server_id in servers)
        and (not tools or any(is_chosen(pattern, server_id, each.key) for pattern in tools))
    }
    assert {(place.server_id, place.own) for place in catalogue.places.values()} == chosen
    assert len(chosen) == len(catalogue.places)
    whole = merged(TOOLS, lists, Selection())
    for pair, full in whole.shown.items():
        # Whatever else is shown, the name in the fleet never leads to another tool.
        place_there = catalogue.places.get(full)
        assert place_there is None or (place_there.server_id, place_there.own) == pair or names == "short" or rename
        if pair in catalogue.shown and place_there is not None:
            assert (place_there.server_id, place_there.own) == pair


def is_chosen(pattern: str, server_id: str, tool: str) -> bool:
    if pattern == "*":
        return True
    places = [at for at in range(len(pattern)) if pattern.startswith("__", at)]
    return any(
        fnmatch.fnmatchcase(server_id, pattern[:at]) and fnmatch.fnmatchcase(tool, pattern[at + 2 :]) for at in places
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["name", "uri", "arguments", "na", "é"]), json_values),
    st.text(max_size=8),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.permutations(["jsonrpc", "id", "method", "params"]),
)
def test_a_spliced_request_differs_in_the_name_alone(
    params: dict[str, Any], name: str, indent: int | None, ascii_only: bool, order: list[str]
) -> None:
    request = {"jsonrpc": "2.0", "id": "q", "method": "tools/call", "params": params}
    text = json.dumps({key: request[key] for key in order}, indent=indent, ensure_ascii=ascii_only)
    message = scan(text.encode("utf-8", "replace"))
    try:
        found = text_param(message, b"name")
    except UnclearMemberError:
        # A name of a member has an escape.
        assert "\\" in text
        return
    if not isinstance(params.get("name"), str):
        assert found is None
        return
    assert found is not None and found[0] == params["name"]
    spliced = with_range(message, found[1], found[2], json.dumps(name).encode())
    assert json.loads(spliced.frame) == {**request, "params": {**params, "name": name}}
    again = scan(spliced.frame)
    for part in ("kind", "id", "id_raw", "method", "method_raw", "params", "result", "error"):
        assert getattr(spliced, part) == getattr(again, part)
    assert json.loads(with_params(message, b"{}").frame) == {**request, "params": {}}


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4), st.sampled_from(["name", "a", "b"]))
def test_the_range_of_a_member_is_that_of_its_value(members: dict[str, Any], name: str) -> None:
    text = json.dumps(members).encode()
    try:
        found = member_range(text, name.encode())
    except UnclearMemberError:
        assert b"\\" in text
        return
    assert (found is not None) == (name in members)
    if found is not None:
        assert json.loads(text[found[0] : found[1]]) == members[name]


@given(st.lists(st.text("ab/:", max_size=3), min_size=2, max_size=4), st.lists(st.text("ab", max_size=3), min_size=4))
def test_what_a_template_expands_to_matches_it(literals: list[str], values: list[str]) -> None:
    template = "{x}".join(literals)
    uri = "".join(f"{literal}{value}" for literal, value in zip(literals[:-1], values, strict=False)) + literals[-1]
    assert match_rank(template, uri) is not None
    assert match_rank(template, f"{uri}!") is None or literals[-1] == ""
