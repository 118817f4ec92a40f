"""How several servers introduce themselves as one, and which templates a URI is of."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_manager.gateway.endpoints.foreign_methods import resembles_known
from mcp_manager.gateway.endpoints.introducing import merged_description
from mcp_manager.gateway.endpoints.linked_resources import with_client_uris
from mcp_manager.gateway.endpoints.resource_owners import SeenUris, match_rank
from mcp_manager.protocol.handshake import ServerIdentity


def said(capabilities: dict[str, Any], instructions: str | None = None) -> ServerIdentity:
    return ServerIdentity(
        protocol_version="2025-11-25", name="n", version="1", capabilities=capabilities, instructions=instructions
    )


def test_capabilities_are_those_of_all() -> None:
    first = {"tools": {}, "resources": {"subscribe": False}, "experimental": {"a": {"x": 1}}, "logging": {}}
    second = {
        "resources": {"subscribe": True},
        "extensions": {"e": {"k": [1]}},
        "experimental": {"a": {"x": 2, "y": 3}},
    }
    description = merged_description({"a": said(first), "b": said(second)}, None, is_prefixed=True)
    assert description.capabilities == {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
        "experimental": {"a": {"x": 1, "y": 3}},
        "logging": {},
        "extensions": {"e": {"k": [1]}},
    }
    # What a server said is not changed.
    assert first["resources"] == {"subscribe": False} and first["tools"] == {}


def test_lists_are_assumed_for_servers_that_are_not_known() -> None:
    description = merged_description({"a": said({}), "b": None}, None, is_prefixed=True)
    assert {"tools", "prompts", "resources", "completions", "logging"} <= set(description.capabilities)
    assert description.instructions is not None and "b." in description.instructions
    assert merged_description({"a": said({})}, None, is_prefixed=False).capabilities == {"tools": {"listChanged": True}}


def test_instructions_are_bounded_and_replaced() -> None:
    long = {f"s{number}": said({}, "word " * 5_000) for number in range(50)}
    text = merged_description(long, None, is_prefixed=True).instructions
    assert text is not None and len(text) < 36_000 and text.startswith("The tools and prompts of several")
    assert "# s0\n\nword" in text and "left out" in text
    assert merged_description(long, "Own.", is_prefixed=True).instructions == "Own."


def test_hostile_capabilities_are_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep}
    wide = {f"x{number}": {} for number in range(10_000)}
    description = merged_description(
        {"a": said(deep), "b": said(wide), "c": said({"tools": 7})}, None, is_prefixed=True
    )
    assert len(description.capabilities) <= 258
    assert description.capabilities["tools"] == {"listChanged": True}


@pytest.mark.parametrize(
    ("template", "uri", "rank"),
    [
        ("r://{id}", "r://7", (True, 4)),
        ("r://{id}", "r://7/8", (False, 4)),
        ("r://{+path}", "r://7/8", (True, 4)),
        ("r://{a}/{b}.txt", "r://1/2.txt", (True, 9)),
        ("r://{a}/{b}.txt", "r://1/2.md", None),
        ("r://{a}", "s://1", None),
        ("r://x", "r://x", (True, 5)),
        ("r://x", "r://xy", None),
        ("ab{x}bc", "abc", None),
        ("r://{a}" * 3, "r://", None),
    ],
)
def test_templates_match_what_they_expand_to(template: str, uri: str, rank: tuple[bool, int] | None) -> None:
    assert match_rank(template, uri) == rank


def test_of_uris_that_were_seen_the_first_server_counts() -> None:
    seen = SeenUris()
    assert (seen.note("u", "a"), seen.note("u", "b"), seen.get("u")) == ("a", "a", "a")
    for number in range(10_001):
        seen.note(str(number), "c")
    assert seen.get("u") is None and seen.get("10000") == "c"
    assert seen.note("x" * 10_000, "a") == "a" and seen.get("x" * 10_000) is None


@pytest.mark.parametrize("method", ["Tools/Call", "tools/call\u200b", " ping", "ping", "TASKS/GET", "resources/READ"])
def test_methods_that_may_be_taken_for_others_are_not_passed_on(method: str) -> None:
    assert resembles_known(method)


@pytest.mark.parametrize("method", ["tasks/get", "skills/list", "x"])
def test_methods_of_extensions_are_passed_on(method: str) -> None:
    assert not resembles_known(method)


@pytest.mark.parametrize(
    "response",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"\\"resource"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"content":7,"x":"resource"}}',
        b'{"jsonrpc":"2.0","id":1,"result":[{"type":"resource_link","uri":"u"}]}',
        b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"resource_link","uri":7},{"type":"resource"},{}]}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"contents":[{"text":"x"}]}}',
    ],
)
def test_results_without_uris_are_left_as_they_are(response: bytes) -> None:
    assert with_client_uris(response, lambda uri: "other") == response
