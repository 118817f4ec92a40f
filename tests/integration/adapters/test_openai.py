"""OpenAI's package in a loop with a scripted model: Chat Completions and Responses, objects and plain data."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema_rs
import pytest
from support.calls import CALM
from support.model_api import ModelApi
from support.schema_rules import check_openai_parameters
from support.tool_server import PIXEL, ToolServer, weather

from mcp_manager import McpManager, OverloadedError, PyMcpManager
from mcp_manager.adapters import (
    anthropic_messages,
    gemini,
    openai_chat,
    openai_responses,
    select_tools,
    select_tools_blocking,
)
from mcp_manager.testing import faults

openai = pytest.importorskip("openai", reason="the extra models is not installed")

from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam  # noqa: E402
from openai.types.responses import FunctionToolParam, ResponseInputItemParam  # noqa: E402
from pydantic import TypeAdapter  # noqa: E402

CALLS = [
    ("call_1", "weather__forecast", '{"city": "Bern", "days": null}'),
    ("call_2", "weather__radar", "{}"),
    ("call_3", "weather__fail", ""),
    ("call_4", "weather__snow", "{}"),
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


def check_chat(body: Any) -> None:
    """Refuse what OpenAI's Chat Completions refuse."""
    adapter(list[ChatCompletionMessageParam]).validate_python(body["messages"])
    for each in adapter(list[ChatCompletionToolParam]).validate_python(body["tools"]):
        check_openai_parameters(each["function"]["parameters"], strict=bool(each["function"].get("strict")))
    expected: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            expected.remove(message["tool_call_id"])
        else:
            # "An assistant message with 'tool_calls' must be followed by tool messages responding to each of them."
            assert expected == []
            expected = [each["id"] for each in message.get("tool_calls", ())]
    assert expected == []


def completion(message: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None, **message}}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


CHAT_SCRIPT: list[Any] = [
    completion(
        {
            "tool_calls": [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
                for call_id, name, text in CALLS
            ]
        }
    ),
    completion({"content": "Sun."}),
]


def check_chat_answers(messages: list[Any]) -> None:
    assert [(each["role"], each.get("tool_call_id")) for each in messages] == [
        *(("tool", call_id) for call_id, _, _ in CALLS),
        ("user", None),
    ]
    forecast, radar, fail, unknown, shown = (each["content"] for each in messages)
    assert forecast == "Bern: sun"
    assert radar == "rain in the north\n[image image/png, 70 bytes]"
    assert fail == "Error: no such station"
    assert "Error: Tool weather__snow not found" in unknown
    assert [each["type"] for each in shown] == ["text", "image_url"]
    assert shown[1]["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"


@pytest.mark.parametrize("strict", [False, True])
async def test_chat_completions_call_tools_until_the_model_answers(
    manager: McpManager, server: ToolServer, strict: bool
) -> None:
    toolset = await select_tools(manager)
    messages: list[Any] = [{"role": "user", "content": "Will it rain?"}]
    with ModelApi(check_chat, CHAT_SCRIPT) as api:
        async with openai.AsyncOpenAI(base_url=api.url, api_key="x", max_retries=0) as client:
            while True:
                reply = await client.chat.completions.create(
                    model="m", messages=messages, tools=openai_chat.definitions(toolset, strict=strict)
                )
                messages.append(reply.choices[0].message)
                more = await openai_chat.answers(toolset, reply)
                if not more:
                    break
                messages.extend(more)
    assert messages[-1].content == "Sun."
    check_chat_answers(api.requests[1]["messages"][2:])
    assert ("forecast", {"city": "Bern"}) in server.called
    functions = {each["function"]["name"]: each["function"] for each in api.requests[0]["tools"]}
    assert functions["weather__forecast"]["parameters"]["required"] == (["city", "days"] if strict else ["city"])


async def test_chat_answers_take_plain_data_and_leave_what_is_not_theirs(manager: McpManager) -> None:
    toolset = await select_tools(manager)
    reply = CHAT_SCRIPT[0]
    check_chat_answers(await openai_chat.answers(toolset, reply))
    message = reply["choices"][0]["message"]
    left = await openai_chat.answers(toolset, message, images=False, leave_unknown=True)
    assert [each["tool_call_id"] for each in left] == ["call_1", "call_2", "call_3"]
    assert await openai_chat.answers(toolset, {"role": "assistant", "content": "x", "tool_calls": None}) == []


def test_chat_in_a_thread(server: ToolServer) -> None:
    messages: list[Any] = [{"role": "user", "content": "Will it rain?"}]
    with PyMcpManager() as manager, ModelApi(check_chat, CHAT_SCRIPT) as api:
        manager.deploy_server("weather", {"url": server.url, **CALM})
        toolset = select_tools_blocking(manager)
        tools = openai_chat.definitions(toolset)
        with openai.OpenAI(base_url=api.url, api_key="x", max_retries=0) as client:
            reply = client.chat.completions.create(model="m", messages=messages, tools=tools)
            messages += [reply.choices[0].message, *openai_chat.answers_blocking(toolset, reply)]
            reply = client.chat.completions.create(model="m", messages=messages, tools=tools)
    assert reply.choices[0].message.content == "Sun."
    check_chat_answers(api.requests[1]["messages"][2:])


async def test_the_calls_of_one_reply_run_at_the_same_time(manager: McpManager, server: ToolServer) -> None:
    toolset = await select_tools(manager)
    together = asyncio.Barrier(len(CALLS) - 1)

    class Together:
        async def play(self, connection: Any, request: Any) -> None:
            # None is answered before all have come.
            await together.wait()
            await connection.answer(request)

    server.script_always("tools/call", Together())
    answered = await openai_chat.answers(toolset, CHAT_SCRIPT[0], images=False)
    assert [each["tool_call_id"] for each in answered] == [call_id for call_id, _, _ in CALLS]


def check_responses(body: Any) -> None:
    """Refuse what OpenAI's Responses refuse."""
    adapter(list[ResponseInputItemParam]).validate_python(body["input"])
    for each in adapter(list[FunctionToolParam]).validate_python(body["tools"]):
        check_openai_parameters(each["parameters"], strict=bool(each["strict"]))
    called = [each["call_id"] for each in body["input"] if each.get("type") == "function_call"]
    answered = [each["call_id"] for each in body["input"] if each.get("type") == "function_call_output"]
    assert called == answered


def response(output: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "r",
        "object": "response",
        "created_at": 0,
        "model": "m",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


RESPONSES_SCRIPT: list[Any] = [
    response(
        [
            {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": text}
            for call_id, name, text in CALLS
        ]
    ),
    response(
        [
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Sun.", "annotations": []}],
            }
        ]
    ),
]


def check_response_items(items: list[Any]) -> None:
    assert [(each["type"], each["call_id"]) for each in items] == [
        ("function_call_output", call_id) for call_id, _, _ in CALLS
    ]
    forecast, radar, fail, unknown = (each["output"] for each in items)
    assert forecast == "Bern: sun"
    assert radar[0] == {"type": "input_text", "text": "rain in the north"}
    assert radar[1]["image_url"] == f"data:image/png;base64,{PIXEL}"
    assert fail == "Error: no such station"
    assert "Error: Tool weather__snow not found" in unknown


@pytest.mark.parametrize("strict", [False, True])
async def test_responses_call_functions_until_the_model_answers(
    manager: McpManager, server: ToolServer, strict: bool
) -> None:
    toolset = await select_tools(manager)
    items: list[Any] = [{"role": "user", "content": "Will it rain?"}]
    tools = openai_responses.definitions(toolset, strict=strict)
    with ModelApi(check_responses, RESPONSES_SCRIPT) as api:
        async with openai.AsyncOpenAI(base_url=api.url, api_key="x", max_retries=0) as client:
            reply = await client.responses.create(model="m", input=items, tools=tools)
            items += [*reply.output, *await openai_responses.answers(toolset, reply)]
            reply = await client.responses.create(model="m", input=items, tools=tools)
    assert reply.output_text == "Sun."
    assert await openai_responses.answers(toolset, reply) == []
    check_response_items(api.requests[1]["input"][5:])
    check_response_items(await openai_responses.answers(toolset, RESPONSES_SCRIPT[0]["output"]))
    assert ("forecast", {"city": "Bern"}) in server.called


def test_responses_in_a_thread(server: ToolServer) -> None:
    with PyMcpManager() as manager:
        manager.deploy_server("weather", {"url": server.url, **CALM})
        toolset = select_tools_blocking(manager)
        check_response_items(openai_responses.answers_blocking(toolset, RESPONSES_SCRIPT[0]))


def test_the_rules_refuse_what_openai_refuses() -> None:
    jsonschema_rs.meta.validate({"type": "object"})
    for wrong in (
        {"type": "object"},
        {"type": "object", "properties": {}, "anyOf": []},
        {"type": "string", "properties": {}},
    ):
        with pytest.raises(AssertionError):
            check_openai_parameters(wrong, strict=False)
    for loose in (
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
    ):
        check_openai_parameters(loose, strict=False)
        with pytest.raises(AssertionError):
            check_openai_parameters(loose, strict=True)


async def test_an_error_is_raised_after_all_calls_have_ended(manager: McpManager, server: ToolServer) -> None:
    toolset = await select_tools(manager, on_error="raise")
    server.script("tools/call", faults.Status(429))
    with pytest.raises(OverloadedError):
        await openai_chat.answers(toolset, CHAT_SCRIPT[0])
    assert len(server.requests_of("tools/call")) == 3
    # The others were answered before: nothing is under way.
    assert len(server.called) == 2


OTHER_REPLIES = {
    "openai_chat": CHAT_SCRIPT[0],
    "openai_responses": RESPONSES_SCRIPT[0],
    "anthropic_messages": {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "x", "input": {}}]},
    "gemini": {"candidates": [{"content": {"role": "model", "parts": [{"function_call": {"name": "x"}}]}}]},
}
MODULES = {
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
    "anthropic_messages": anthropic_messages,
    "gemini": gemini,
}


@pytest.mark.parametrize(
    ("api", "reply"),
    [
        ("openai_chat", {"choices": []}),
        ("openai_chat", {"choices": [{}]}),
        ("openai_chat", {"role": "assistant", "content": "x"}),
        ("openai_chat", {"role": "assistant", "content": [{"type": "text", "text": "x"}]}),
        ("openai_chat", {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "x", "input": "y"}}]}),
        ("openai_responses", []),
        ("openai_responses", {"output": [{"type": "reasoning"}, "odd"]}),
        ("anthropic_messages", []),
        ("anthropic_messages", {"role": "assistant", "content": [{"type": "text", "text": "x"}, "odd"]}),
        ("gemini", {"candidates": []}),
        ("gemini", {"role": "model", "parts": [{"text": "x"}]}),
    ],
)
async def test_a_reply_without_calls_has_no_answers(manager: McpManager, api: str, reply: Any) -> None:
    toolset = await select_tools(manager, limit=0)
    assert await MODULES[api].answers(toolset, reply) == []
    assert MODULES[api].definitions(toolset) == []


@pytest.mark.parametrize("api", MODULES)
async def test_what_is_no_reply_of_an_api_is_refused(manager: McpManager, api: str) -> None:
    """It would look like the end of a conversation."""
    toolset = await select_tools(manager)
    for other, reply in OTHER_REPLIES.items():
        if other != api:
            with pytest.raises(TypeError, match=rf"of another API: mcp_manager\.adapters\.{other} is for it"):
                await MODULES[api].answers(toolset, reply)
    for wrong in (None, {}, "text", {"error": {"message": "overloaded"}}, 5):
        with pytest.raises(TypeError, match=f"a reply of the model is needed, and not {type(wrong).__name__}"):
            await MODULES[api].answers(toolset, wrong)


@pytest.mark.parametrize("api", MODULES)
async def test_a_manager_is_no_toolset(manager: McpManager, api: str) -> None:
    wrong: Any = manager
    told = "a Toolset is needed, as select_tools\\(\\) returns it, and not McpManager"
    with pytest.raises(TypeError, match=told):
        MODULES[api].definitions(wrong)
    with pytest.raises(TypeError, match=told):
        await MODULES[api].answers(wrong, OTHER_REPLIES[api])
    with pytest.raises(TypeError, match=told):
        MODULES[api].answers_blocking(wrong, OTHER_REPLIES[api])
