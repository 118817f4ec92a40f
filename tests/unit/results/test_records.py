"""What records keep of what a server sent: members that nobody knows, and those that are not what they should be."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest

from mcp_manager import (
    CallToolResult,
    CompleteResult,
    EmbeddedResource,
    GetPromptResult,
    Prompt,
    ProtocolError,
    ReadResourceResult,
    Resource,
    ResourceLink,
    ResourceTemplate,
    SamplingMessage,
    TextContent,
    Tool,
    ToolResultContent,
    UnknownContent,
)
from mcp_manager.results import decode_result, drain_pages


def read(kind: type[Any], data: object) -> Any:
    return decode_result("s", json.dumps(data).encode(), kind)


def test_unknown_members_are_kept_wherever_they_are() -> None:
    sent = {
        "name": "t",
        "inputSchema": {"type": "object", "$defs": {"a": {"$anchor": "x"}}},
        "annotations": {"readOnlyHint": True, "vendorHint": [1]},
        "execution": {"taskSupport": "optional"},
        "icons": [{"src": "data:,", "sizes": ["any"]}, {"src": "x", "purpose": "mask"}],
        "_meta": {"a": 1},
        "price": {"currency": "EUR"},
    }
    tool = read(Tool, sent)
    assert tool.extra == {"price": {"currency": "EUR"}}
    assert tool.annotations.extra == {"vendorHint": [1]}
    assert (tool.annotations.read_only_hint, tool.execution.task_support) == (True, "optional")
    assert [icon.extra for icon in tool.icons] == [{}, {"purpose": "mask"}]
    assert tool.to_dict() == sent


def test_every_kind_of_block_is_typed_and_an_unknown_one_kept_whole() -> None:
    sent = {
        "content": [
            {
                "type": "text",
                "text": "a",
                "annotations": {"audience": ["user"], "lastModified": "2026-01-01T00:00:00Z"},
            },
            {"type": "image", "data": "AA==", "mimeType": "image/png"},
            {"type": "audio", "data": "AA==", "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "file:///a", "name": "a", "size": 3},
            {"type": "resource", "resource": {"uri": "file:///a", "blob": "AA==", "etag": "1"}},
            {"type": "video", "frames": 3, "annotations": "none"},
            {"type": "text", "text": "b"},
        ],
        "structuredContent": {"a": None},
        "resultType": "complete",
        "cost": 3,
    }
    result = read(CallToolResult, sent)
    kinds = [block["type"] for block in sent["content"]]  # type: ignore[attr-defined]
    assert [getattr(block, "received_type", block.type) for block in result.content] == kinds
    text, _, _, link, embedded, video, _ = result.content
    assert isinstance(text, TextContent) and text.annotations.last_modified == "2026-01-01T00:00:00Z"
    assert isinstance(link, ResourceLink) and link.size == 3
    assert isinstance(embedded, EmbeddedResource) and embedded.resource.extra == {"etag": "1"}
    assert isinstance(video, UnknownContent) and video.extra["frames"] == 3
    assert (result.text, result.result_type, result.extra) == ("a\nb", "complete", {"cost": 3})
    assert result.to_dict() == sent


def test_an_ornament_of_the_wrong_type_costs_nothing_but_itself() -> None:
    tool = read(Tool, {"name": "t", "annotations": "yes", "icons": [{"sizes": 3}], "title": 5, "execution": None})
    assert (tool.annotations, tool.icons, tool.title, tool.execution) == (None, None, None, None)
    assert tool.extra == {"annotations": "yes", "icons": [{"sizes": 3}], "title": 5}
    assert read(CallToolResult, {"content": None, "isError": None}).extra == {"content": None, "isError": None}


@pytest.mark.parametrize(
    "sent",
    [
        {"content": 3},
        {"content": True, "extra": 1},
        {"isError": "no", "other": 1},
        {"isError": 2},
    ],
)
def test_what_the_meaning_hangs_on_must_be_right(sent: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(CallToolResult, sent)
    assert (caught.value.server_id, caught.value.delivery) == ("s", "answered")


def test_a_member_called_extra_is_one_like_any_other() -> None:
    sent = {"name": "t", "extra": {"a": 1}}
    tool = read(Tool, sent)
    assert tool.extra == {"extra": {"a": 1}}
    assert tool.to_dict() == sent


def test_copies_keep_everything_and_nothing_can_be_changed() -> None:
    tool = read(Tool, {"name": "t", "price": 1})
    assert msgspec.structs.replace(tool, name="u").extra == {"price": 1}
    assert copy.deepcopy(tool) == tool == pickle.loads(pickle.dumps(tool))
    assert tool != read(Tool, {"name": "t"})
    assert hash(tool.extra) == hash(read(Tool, {"name": "t", "price": 1}).extra)
    with pytest.raises(TypeError, match="cannot be changed"):
        tool.extra["price"] = 2
    with pytest.raises(TypeError, match="cannot be changed"):
        tool.extra.update(a=1)


def test_messages_of_sampling_hold_one_block_or_several() -> None:
    result = {"type": "tool_result", "toolUseId": "1", "content": [{"type": "text", "text": "x", "y": 1}]}
    message = read(SamplingMessage, {"role": "user", "content": [result]})
    assert isinstance(message.content[0], ToolResultContent)
    assert message.content[0].content[0].extra == {"y": 1}
    assert read(SamplingMessage, {"role": "user", "content": {"type": "text", "text": "x"}}).content.text == "x"
    assert read(GetPromptResult, {"messages": []}).messages == []


def test_records_that_nest_without_end_are_kept_unread() -> None:
    block: dict[str, Any] = {"type": "text", "text": "x"}
    for _ in range(60):
        block = {"type": "tool_result", "toolUseId": "1", "content": [block], "y": 1}
    result = read(CallToolResult, {"content": [block]})
    assert result.to_dict() == {"content": [block]}
    level: Any = result.content[0]
    for _ in range(8):
        level = level.content[0]
    assert isinstance(level, UnknownContent) and level.extra["type"] == "tool_result"


# Faithful echoes

EVERYTHING: list[tuple[type[Any], dict[str, Any]]] = [
    (CallToolResult, {}),
    (CallToolResult, {"content": []}),
    (CallToolResult, {"isError": False, "structuredContent": None, "resultType": None, "_meta": None}),
    (CallToolResult, {"content": None, "isError": None}),
    (CallToolResult, {"content": [{"type": "text", "text": "", "annotations": None}, {"type": "image", "data": ""}]}),
    (CallToolResult, {"content": [{"type": "tool_use", "id": "1", "name": "t", "input": {}}]}),
    (CallToolResult, {"content": [{"type": "tool_result", "toolUseId": "1", "content": [], "isError": False}]}),
    (CallToolResult, {"content": [{"type": "text"}, {"no": "type"}, 3, "text", None, [1]], "isError": False}),
    (CallToolResult, {"content": {"type": "text", "text": "alone"}, "isError": "true"}),
    (Tool, {"name": "t"}),
    (Tool, {"name": "t", "title": None, "inputSchema": {}, "outputSchema": None, "annotations": {"title": None}}),
    (Tool, {"name": "", "icons": [], "annotations": {"readOnlyHint": False}, "execution": {}}),
    (
        Prompt,
        {"name": "p", "arguments": [{"name": "a", "required": False}, {"name": "b"}, {"name": "c", "title": None}]},
    ),
    (Resource, {"uri": "", "name": "", "size": 0, "annotations": {"audience": [], "priority": 0}}),
    (ReadResourceResult, {"contents": [{"uri": "", "text": ""}, {"blob": None}], "ttlMs": 0, "cacheScope": None}),
    (CompleteResult, {"completion": {"values": [], "hasMore": False, "total": None}}),
    (CompleteResult, {"completion": {}}),
    (GetPromptResult, {"messages": [{"role": "user", "content": {"type": "text", "text": "x", "_meta": None}}]}),
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(("kind", "sent"), EVERYTHING)
def test_what_was_received_is_echoed_defaults_included(
    kind: type[Any], sent: dict[str, Any], indent: int | None
) -> None:
    record = decode_result("s", json.dumps(sent, indent=indent).encode(), kind)
    assert record.to_dict() == sent
    assert json.loads(record.to_json()) == sent
    again = pickle.loads(pickle.dumps(record))
    assert (again, again.to_dict(), copy.copy(record).to_dict()) == (record, sent, sent)
    assert copy.deepcopy(record).to_dict() == sent


def test_parts_of_a_result_echo_their_own_part() -> None:
    blocks = [
        {"type": "text", "text": "a", "annotations": {"priority": None}},
        {"type": "resource", "resource": {"uri": ""}},
    ]
    result = read(CallToolResult, {"content": blocks, "isError": False})
    assert [block.to_dict() for block in result.content] == blocks
    assert result.content[0].annotations.to_dict() == {"priority": None}
    assert result.content[1].resource.to_dict() == {"uri": ""}
    changed = msgspec.structs.replace(result, is_error=True)
    assert changed.to_dict() == {"content": blocks, "isError": True}


def test_records_made_here_say_what_differs_from_the_default() -> None:
    made = CallToolResult(content=[TextContent(text="x")])
    assert made.to_dict() == {"content": [{"type": "text", "text": "x"}]}
    assert CallToolResult().to_dict() == {}
    assert made == read(CallToolResult, {"content": [{"type": "text", "text": "x"}], "isError": False})


# What is malformed in part


def faults_in(kind: type[Any], sent: object) -> tuple[Any, list[tuple[str, str]]]:
    faults: list[tuple[str, str]] = []
    record = decode_result("s", json.dumps(sent).encode(), kind, lambda kind, detail: faults.append((kind, detail)))
    return record, faults


@pytest.mark.parametrize(
    ("block", "extra"),
    [
        ({"type": "text"}, {"type": "text"}),
        ({"type": "text", "text": None}, {"type": "text", "text": None}),
        ({"type": "text", "text": 42}, {"type": "text", "text": 42}),
        ({"text": "x"}, {"text": "x"}),
        ({"type": 3}, {"type": 3}),
        (
            {"type": "resource", "resource": {"uri": "x", "text": 5}},
            {"type": "resource", "resource": {"uri": "x", "text": 5}},
        ),
        ({"type": "resource", "resource": None}, {"type": "resource", "resource": None}),
        (None, {"value": None}),
        (7, {"value": 7}),
        ([{"type": "text", "text": "x"}], {"value": [{"type": "text", "text": "x"}]}),
    ],
)
def test_a_malformed_block_is_kept_whole_among_good_ones(block: Any, extra: dict[str, Any]) -> None:
    good = {"type": "text", "text": "good", "annotations": "odd", "more": 1}
    result, faults = faults_in(CallToolResult, {"content": [good, block, good], "cost": 1})
    assert isinstance(result.content[1], UnknownContent) and result.content[1].extra == extra
    assert result.text == "good\ngood" and result.content[2].extra == {"annotations": "odd", "more": 1}
    assert [kind for kind, _ in faults].count("a malformed content block") == 1
    assert any("$.content[1]" in detail for _, detail in faults)


def test_one_block_where_a_list_belongs_is_a_list_of_one() -> None:
    for content in ({"type": "text", "text": "x"}, "x", ["x"]):
        result, faults = faults_in(CallToolResult, {"content": content})
        assert result.text == "x"
        assert all(detail.startswith("$.content") for _, detail in faults) and faults


@pytest.mark.parametrize(("given", "truth"), [("true", True), ("false", False), (1, True), (0, False)])
def test_truth_in_other_words_is_understood(given: object, truth: bool) -> None:
    result, faults = faults_in(CallToolResult, {"isError": given})
    assert result.is_error is truth and faults[0][0] == "a member of another type than specified"


def test_a_message_of_a_prompt_keeps_its_odd_content() -> None:
    prompt, faults = faults_in(GetPromptResult, {"messages": [{"role": "user", "content": {"type": "text"}}]})
    assert isinstance(prompt.messages[0].content, UnknownContent) and len(faults) == 1


async def listed(kind: type[Any], member: str, sent: dict[str, Any]) -> tuple[list[Any], list[tuple[str, str]]]:
    faults: list[tuple[str, str]] = []

    async def fetch(cursor: str | None) -> bytes:
        return json.dumps(sent).encode()

    entries = await drain_pages("s", member, kind, fetch, lambda kind, detail: faults.append((kind, detail)))
    return entries, faults


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"description": "x"}, "missing required field `name`"),
        ({"name": None, "inputSchema": {}}, "Expected `str`, got `null` - at `$.name`"),
        ({"name": ["a"]}, "Expected `str`, got `array` - at `$.name`"),
        (None, "got `null`"),
        ("odd", "got `str`"),
        ([], "got `array`"),
    ],
)
async def test_a_malformed_entry_of_a_list_is_left_out_alone(bad: Any, told: str) -> None:
    first, last = {"name": "first", "title": None}, {"name": "last", "annotations": {"title": None}}
    tools, faults = await listed(Tool, "tools", {"tools": [first, bad, last]})
    assert [tool.to_dict() for tool in tools] == [first, last]
    assert tools[1].annotations.to_dict() == {"title": None}
    ((kind, detail),) = faults
    assert kind == "a malformed entry was left out"
    assert detail.startswith("$.tools[1]: ") and told in detail


@pytest.mark.parametrize(
    ("kind", "member", "good", "bad"),
    [
        (Resource, "resources", {"uri": "a"}, {"name": "no uri"}),
        (Prompt, "prompts", {"name": "a"}, {"title": "no name"}),
        (ResourceTemplate, "resource_templates", {"uriTemplate": "a"}, {"uriTemplate": 3}),
    ],
)
async def test_every_list_keeps_what_is_good_in_it(kind: type[Any], member: str, good: Any, bad: Any) -> None:
    name = "resourceTemplates" if "_" in member else member
    entries, faults = await listed(kind, member, {name: [bad, good, bad]})
    assert [entry.to_dict() for entry in entries] == [good] and len(faults) == 2


async def test_a_list_that_is_null_is_empty_and_one_that_is_none_is_an_error() -> None:
    tools, faults = await listed(Tool, "tools", {"tools": None})
    assert (tools, len(faults)) == ([], 1)
    for wrong in ({}, {"tools": {}}, {"tools": "x"}, {"tools": [], "nextCursor": 5}):
        with pytest.raises(ProtocolError):
            await listed(Tool, "tools", wrong)


@pytest.mark.parametrize("entry", [None, {"name": 1}])
async def test_a_list_that_is_malformed_all_over_is_an_error_soon(entry: Any) -> None:
    tools, faults = await listed(Tool, "tools", {"tools": [entry] * 900 + [{"name": "good"}]})
    assert tools[-1].name == "good" and len(faults) == 900
    with pytest.raises(ProtocolError):
        await listed(Tool, "tools", {"tools": [entry] * 20_000})


async def test_ornaments_that_are_wrong_all_over_cost_no_entry() -> None:
    tools, faults = await listed(Tool, "tools", {"tools": [{"name": "t", "title": 1}] * 2_000})
    assert len(tools) == 2_000 and tools[-1].extra == {"title": 1} and len(faults) == 1_000


def test_text_that_is_half_a_character_loses_nothing_else() -> None:
    faults: list[str] = []
    data = (
        rb'{"content":[{"type":"text","text":"cut \ud83d"},{"type":"x","y":"\ude00"}],"structuredContent":{"n":1e400}}'
    )
    result = decode_result("s", data, CallToolResult, lambda kind, detail: faults.append(kind))
    assert result.text == "cut \ufffd" and result.content[1].extra["y"] == "\ufffd"
    assert result.structured_content == {"n": float("inf")}
    assert set(faults) == {"text with half a surrogate pair", "a number too large for a float"}
    assert result.to_dict()["content"][0]["text"] == "cut \ufffd"
    tool = decode_result("s", rb'{"name":"t","inputSchema":{"title":"\ud83d","maximum":1e999}}', Tool)
    assert tool.input_schema == {"title": "\ufffd", "maximum": float("inf")}
    with pytest.raises(ProtocolError, match="truncated"):
        decode_result("s", rb'{"content":[{"type":"text","text":"cut \ud83d"}]', CallToolResult)


def test_the_fields_of_a_kind_are_evaluated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[Any] = []

    def fields(kind: Any) -> Any:
        evaluated.append(kind)
        return fields_of(kind)

    fields_of = msgspec.structs.fields
    monkeypatch.setattr(msgspec.structs, "fields", fields)
    result = decode_result("s", b'{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}', CallToolResult)
    for _ in range(3):
        assert result.to_dict() == {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        assert pickle.loads(pickle.dumps(result)) == result
    assert len(evaluated) == len(set(evaluated))
