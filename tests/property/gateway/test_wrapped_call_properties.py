"""Whatever a call of ``call_tool`` looks like, it becomes the call that its JSON means, or it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.errors import RpcError
from mcp_manager.gateway.tool_search.wrapped_calls import unwrapped

NAMES = st.sampled_from(["name", "arguments", "n\\u0061me", "\\u0061rguments", "_meta", "task", "x"])
LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4) | st.just({}) | st.just({"name": "a"})


def written(members: list[tuple[str, str]], blank: str) -> str:
    return "{" + f"{blank},".join(f'{blank}"{name}"{blank}:{blank}{value}' for name, value in members) + blank + "}"


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    members = draw(st.lists(st.tuples(NAMES, values), max_size=6))
    return written(members, draw(st.sampled_from(["", " ", "\n\t"])))


LEAF = LEAVES.map(json.dumps)
INNER = objects(LEAF | objects(LEAF) | objects(LEAF).map(json.dumps))
PARAMS = objects(INNER | LEAF)


def call(params: str) -> Message:
    return scan(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params.encode())


def meant(params: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a call means, as a model of it in plain Python; ``None`` if it is refused."""
    wrapper = params.get("arguments")
    if "name" not in params or not isinstance(wrapper, dict) or not isinstance(wrapper.get("name"), str):
        return None
    if "arguments" not in wrapper and len(wrapper) > 1:
        return None
    arguments = wrapper.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
        if arguments is None:
            return None
    arguments = {} if arguments is None else arguments
    return {**params, "name": wrapper["name"], "arguments": arguments} if isinstance(arguments, dict) else None


@given(PARAMS)
def test_a_call_becomes_what_its_json_means(params: str) -> None:
    expected = meant(json.loads(params))
    try:
        message = unwrapped(call(params))
    except RpcError as refusal:
        assert expected is None and refusal.code == -32602
        return
    assert message.params is not None
    assert json.loads(message.params) == expected
    assert scan(message.frame).params == message.params


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1},"method":"other","z":{}',
        '{"a":1},"params":{"b":1}',
        "{}{}",
        '{"a":"x\ny"}',
        '{"a":NaN}',
        "[1]",
        '"{}"',
        '{"a":' + "[" * 600 + "]" * 600 + "}",
    ],
)
def test_a_text_that_is_not_one_object_is_refused(text: str) -> None:
    with pytest.raises(RpcError, match="the arguments are no object"):
        unwrapped(call(json.dumps({"name": "call_tool", "arguments": {"name": "t", "arguments": text}})))


def test_huge_calls_are_unwrapped_or_refused() -> None:
    huge = {"text": "\n" * 1_000_000, **{f"k{number}": number for number in range(2_000)}}
    for arguments in (huge, json.dumps(huge)):
        message = unwrapped(call(json.dumps({"name": "call_tool", "arguments": {"name": "t", "arguments": arguments}})))
        assert json.loads(message.params or b"") == {"name": "t", "arguments": huge}
    wrapper = {"name": "t", "arguments": {}, **huge}
    with pytest.raises(RpcError, match="too many members"):
        unwrapped(call(json.dumps({"name": "call_tool", "arguments": wrapper})))
