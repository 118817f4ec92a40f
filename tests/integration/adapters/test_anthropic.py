"""Anthropic's package in a loop with a scripted model: messages, objects and plain data."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema_rs
import pytest
from support.calls import CALM
from support.model_api import ModelApi
from support.tool_server import PIXEL, TONE, ToolServer, weather

from mcp_manager import McpManager, PyMcpManager
from mcp_manager.adapters import anthropic_messages, select_tools, select_tools_blocking

anthropic = pytest.importorskip("anthropic", reason="the extra models is not installed")

from anthropic.types import MessageParam, ToolParam  # noqa: E402
from pydantic import TypeAdapter  # noqa: E402

PDF = "JVBERi0xLjQK"  # an empty PDF file
CALLS = [
    ("toolu_1", "weather__forecast", {"city": "Bern"}),
    ("toolu_2", "weather__radar", {}),
    ("toolu_3", "weather__fail", {}),
    ("toolu_4", "weather__snow", {}),
]


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what checks data against a type of the package; making it takes long."""
    return TypeAdapter(kind)


@pytest.fixture
def server() -> Iterator[ToolServer]:
    with weather() as server:
        yield server


@pytest.fixture
async def manager(server: ToolServer) -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        await manager.deploy("weather", {"url": server.url, **CALM})
        yield manager


def check(body: Any) -> None:
    """Refuse what the Messages API refuses."""
    adapter(list[MessageParam]).validate_python(body["messages"])
    for tool in adapter(list[ToolParam]).validate_python(body["tools"]):
        schema = tool["input_schema"]
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"])
        assert jsonschema_rs.meta.is_valid(schema) and schema["type"] == "object"
        assert not {"oneOf", "anyOf", "allOf"} & set(schema)
    asked: list[str] = []
    for message in body["messages"]:
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = [each for each in blocks if each["type"] == "tool_result"]
        # "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
        assert [each["tool_use_id"] for each in results] == asked
        # "all content must be type `text` if `is_error` is true", "content cannot be empty if `is_error` is true"
        failed = [each for each in results if each.get("is_error")]
        assert all(each["content"] and {part["type"] for part in each["content"]} == {"text"} for each in failed)
        for part in (part for each in results for part in each["content"]):
            assert part["type"] != "text" or part["text"].strip(), (
                "text content blocks must contain non-whitespace text"
            )
        asked = [each["id"] for each in blocks if each["type"] == "tool_use"]


def message(content: list[dict[str, Any]], stop: str) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": stop,
        "usage": usage,
    }


SCRIPT: list[Any] = [
    message(
        [
            {"type": "text", "text": "I look."},
            *({"type": "tool_use", "id": id_, "name": name, "input": given} for id_, name, given in CALLS),
        ],
        "tool_use",
    ),
    message([{"type": "text", "text": "Sun."}], "end_turn"),
]


def check_answers(messages: list[Any]) -> None:
    assert [each["role"] for each in messages] == ["user"]
    forecast, radar, fail, unknown = messages[0]["content"]
    assert forecast == {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [{"type": "text", "text": "Bern: sun"}],
    }
    assert radar["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert fail["is_error"] and fail["content"][0]["text"] == "no such station"
    assert unknown["is_error"] and "weather__snow not found" in unknown["content"][0]["text"]


async def test_messages_call_tools_until_the_model_answers(manager: McpManager) -> None:
    toolset = await select_tools(manager)
    messages: list[Any] = [{"role": "user", "content": "Will it rain?"}]
    with ModelApi(check, SCRIPT) as api:
        async with anthropic.AsyncAnthropic(base_url=api.url, api_key="x", max_retries=0) as client:
            while True:
                reply = await client.messages.create(
                    model="m", max_tokens=9, messages=messages, tools=anthropic_messages.definitions(toolset)
                )
                messages.append({"role": "assistant", "content": reply.content})
                more = await anthropic_messages.answers(toolset, reply)
                if not more:
                    break
                messages.extend(more)
    assert reply.content[0].text == "Sun."
    check_answers(api.requests[1]["messages"][2:])


async def test_answers_take_plain_data_and_leave_what_is_not_theirs(manager: McpManager) -> None:
    toolset = await select_tools(manager)
    check_answers(await anthropic_messages.answers(toolset, SCRIPT[0]))
    (left,) = await anthropic_messages.answers(toolset, SCRIPT[0]["content"], leave_unknown=True)
    assert [each["tool_use_id"] for each in left["content"]] == ["toolu_1", "toolu_2", "toolu_3"]
    assert await anthropic_messages.answers(toolset, {"role": "assistant", "content": "Sun."}) == []


def test_messages_in_a_thread(server: ToolServer) -> None:
    with PyMcpManager() as manager, ModelApi(check, SCRIPT) as api:
        manager.deploy_server("weather", {"url": server.url, **CALM})
        toolset = select_tools_blocking(manager)
        messages: list[Any] = [{"role": "user", "content": "Will it rain?"}]
        tools = anthropic_messages.definitions(toolset)
        with anthropic.Anthropic(base_url=api.url, api_key="x", max_retries=0) as client:
            reply = client.messages.create(model="m", max_tokens=9, messages=messages, tools=tools)
            messages += [{"role": "assistant", "content": reply.content}]
            messages += anthropic_messages.answers_blocking(toolset, reply)
            reply = client.messages.create(model="m", max_tokens=9, messages=messages, tools=tools)
    assert reply.content[0].text == "Sun."
    check_answers(api.requests[1]["messages"][2:])


async def test_files_are_shown_where_the_api_takes_them_and_named_elsewhere(
    manager: McpManager, server: ToolServer
) -> None:
    server.answers["forecast"] = {
        "content": [
            {"type": "text", "text": ""},
            {"type": "resource", "resource": {"uri": "file:///a.pdf", "mimeType": "application/pdf", "blob": PDF}},
            {"type": "resource", "resource": {"uri": "file:///a.txt", "mimeType": "text/plain", "text": "words"}},
            {"type": "resource", "resource": {"uri": "file:///a.zip", "mimeType": "application/zip", "blob": PDF}},
            {"type": "resource", "resource": {"uri": "file:///a.png", "mimeType": "image/png", "blob": PIXEL}},
            {"type": "resource_link", "uri": "file:///b.txt", "name": "b"},
            {"type": "audio", "data": TONE, "mimeType": "audio/wav"},
            {"type": "image", "data": PIXEL, "mimeType": "image/tiff"},
        ]
    }
    toolset = await select_tools(manager)
    (answered,) = await anthropic_messages.answers(toolset, [SCRIPT[0]["content"][1]])
    adapter(MessageParam).validate_python(answered)
    (result,) = answered["content"]
    assert [each.get("text") or each["source"]["media_type"] for each in result["content"]] == [
        "application/pdf",
        "words",
        "[file file:///a.zip application/zip, 9 bytes]",
        "image/png",
        "[resource file:///b.txt: b]",
        "[audio audio/wav, 44 bytes]",
        "[image image/tiff, 70 bytes]",
    ]


@pytest.mark.parametrize("content", [[], [{"type": "image", "data": PIXEL, "mimeType": "image/png"}]])
async def test_an_error_is_text_as_the_api_demands(manager: McpManager, server: ToolServer, content: list[Any]) -> None:
    server.answers["forecast"] = {"content": content, "isError": True}
    toolset = await select_tools(manager)
    (answered,) = await anthropic_messages.answers(toolset, [SCRIPT[0]["content"][1]])
    (result,) = answered["content"]
    assert result["is_error"] and [each["type"] for each in result["content"]] == ["text"]
    assert result["content"][0]["text"]
