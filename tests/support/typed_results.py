"""Code of users of results, which type checkers accept and narrow as its authors expect; nothing runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, assert_never, assert_type

import msgspec
import pydantic

from mcp_manager import (
    AudioContent,
    Caller,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    McpManager,
    PyHealthStatus,
    ResourceLink,
    ServerState,
    ServerView,
    TextContent,
    ToolError,
    ToolResultContent,
    ToolUseContent,
    UnknownContent,
)


@dataclass
class Sum:
    total: int


class SumDict(TypedDict):
    total: int


class SumTuple(NamedTuple):
    total: int


class SumStruct(msgspec.Struct):
    total: int


class SumModel(pydantic.BaseModel):
    total: int


def text_of(block: ContentBlock) -> str:
    if block.type == "text":
        return block.text
    if block.type == "image" or block.type == "audio":
        return block.mime_type
    if block.type == "unknown":
        return block.received_type
    if block.type == "resource":
        return block.resource.uri
    return block.type


def kind_of(block: ContentBlock) -> str:
    match block:
        case TextContent(text=text):
            return text
        case ImageContent(data=data) | AudioContent(data=data):
            return data
        case ResourceLink(uri=uri):
            return uri
        case EmbeddedResource(resource=resource):
            return resource.uri
        case ToolUseContent() | ToolResultContent():
            return block.type
        case UnknownContent(extra=extra):
            return str(extra)
        case _:
            assert_never(block)


async def calls(manager: McpManager) -> CallToolResult:
    assert_type((await manager.call_tool("s", "add", {"a": 1}, into=Sum)).data, Sum)
    assert_type((await manager.call_tool("s", "add", Sum(1), into=Sum)).raise_for_error().data.total, int)
    assert_type((await manager.call_tool("s", "add", SumDict(total=1), into=SumDict)).data, SumDict)
    assert_type((await manager.call_tool("s", "add", SumStruct(1), into=SumStruct)).data, SumStruct)
    assert_type((await manager.call_tool("s", "add", SumModel(total=1), into=SumModel)).data, SumModel)
    assert_type((await manager.call_tool("s", "add", into=SumTuple)).data, SumTuple)
    assert_type((await manager.call_tool("s", "add", into=list[Sum])).data, list[Sum])
    assert_type((await manager.call_fleet_tool("s__add", into=int)).data, int)
    assert_type(
        (await manager.for_caller(Caller("ada")).call_tool("s", "add", into=dict[str, int])).data, dict[str, int]
    )
    # Type checkers have no type for unions as values yet.
    assert_type((await manager.call_tool("s", "add", into=int | None)).data, Any)
    assert_type((await manager.call_tool("s", "add")).data, Any)
    try:
        return (await manager.call_tool("s", "add")).raise_for_error()
    except ToolError as error:
        print(error.tool, error.result)
        raise


def views(view: ServerView) -> PyHealthStatus:
    assert_type(view.state, ServerState)
    assert_type(view["state"], Any)
    return PyHealthStatus(
        total_servers=1, healthy_servers=1, degraded_servers=0, unhealthy_servers=0, avg_response_time_ms=0
    )
