"""Masks in configurations that administrators send back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager import ServerConfig
from mcp_manager.config import parse_server_config
from mcp_manager.gateway.admin.given_servers import merged, server_of
from mcp_manager.gateway.admin.masks import restored, shown_server, whole_server
from mcp_manager.gateway.admin.problems import Refusal

SECRET = "a-secret-${OF}-many"
TEXTS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
PROGRAMS = st.builds(
    lambda args, env: ServerConfig(command="program", args=tuple(args), env=env, name="s"),
    st.lists(TEXTS, max_size=4),
    st.dictionaries(TEXTS, TEXTS, max_size=4),
)


@given(PROGRAMS)
def test_what_was_shown_means_what_is_there(config: ServerConfig) -> None:
    checked = parse_server_config({**config.to_dict(reveal_secrets=True), "transport": "stdio"}, server_id="s")
    shown = shown_server(checked)
    assert all(text == "***" for text in (*shown.get("args", ()), *shown.get("env", {}).values()))
    assert server_of("s", shown, checked) == checked


@pytest.mark.parametrize(
    ("given_back", "field"),
    [
        ({"url": "https://h/mcp?key=***", "headers": {"Other": "***"}}, "headers.Other"),
        ({"url": "https://elsewhere/mcp?key=***"}, "url"),
        ({"url": "https://h/mcp?key=***", "tags": ["***"]}, "tags[0]"),
        ({"url": "https://h/mcp?key=***", "headers": {"Authorization": "Bearer ***"}}, "headers.Authorization"),
    ],
)
def test_a_mask_elsewhere_is_refused(given_back: dict[str, Any], field: str) -> None:
    before = ServerConfig(url="https://h/mcp?key=1234567890", headers={"Authorization": SECRET})
    with pytest.raises(Refusal) as refusal:
        server_of("s", given_back, before)
    assert (refusal.value.problem.status, refusal.value.problem.field) == (422, field)


def test_what_looks_like_a_variable_in_a_secret_is_none() -> None:
    before = ServerConfig(url="https://h/mcp", headers={"Authorization": SECRET}, hidden_texts=("hidden-text",))
    after = server_of("s", {**shown_server(before), "priority": 1}, before)
    assert after.headers == before.headers
    # They hid what may still be in texts.
    assert after.hidden_texts == ("hidden-text",)
    assert "hidden-text" not in str(shown_server(after))


def test_lists_of_another_length_are_told_apart() -> None:
    before = ServerConfig(command="program", args=("-k", "1234"))
    assert server_of("s", {"command": "program", "args": ["***", "5678"]}, before).args == ("-k", "5678")
    with pytest.raises(Refusal):
        restored({"args": ["***"]}, shown_server(before), whole_server(before))


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    # RFC 7396, appendix A.
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result
