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
    EmbeddedResource,
    GetPromptResult,
    ProtocolError,
    ResourceLink,
    SamplingMessage,
    TextContent,
    Tool,
    ToolResultContent,
    UnknownContent,
)
from mcp_manager.catalog import decode_result


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
    assert [block.type for block in result.content] == [block["type"] for block in sent["content"]]  # type: ignore[attr-defined]
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
