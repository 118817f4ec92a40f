"""Google's package in a loop with a scripted model: contents and function responses, objects and plain data."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM
from support.model_api import ModelApi
from support.schema_rules import check_gemini_json_schema, check_gemini_openapi
from support.tool_server import PIXEL, ToolServer, weather

from mcp_manager import McpManager, PyMcpManager
from mcp_manager.adapters import gemini, select_tools, select_tools_blocking

pytest.importorskip("google.genai", reason="the extra models is not installed")

from google import genai
from google.genai import types

# The package's own.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

CALLS = [
    ("1", "weather__forecast", {"city": "Bern"}),
    ("2", "weather__radar", {}),
    ("3", "weather__fail", {}),
    ("4", "weather__snow", {}),
]


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
    """Refuse what the Gemini API refuses."""
    contents = [types.Content.model_validate(each) for each in body["contents"]]
    for tool in body["tools"]:
        for each in types.Tool.model_validate(tool).function_declarations or ():
            assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}", each.name or "")
        for declared in tool["functionDeclarations"]:
            # The package sends this field under the name in Python; the API takes both.
            if "parameters_json_schema" in declared:
                check_gemini_json_schema(declared["parameters_json_schema"])
            else:
                check_gemini_openapi(lower_types(declared.get("parameters", {"type": "object"})))
    for said, answered in zip(contents[1::2], contents[2::2], strict=True):
        asked = [(each.function_call.id, each.function_call.name) for each in said.parts or () if each.function_call]
        given = [each.function_response for each in answered.parts or ()]
        # "The number of function response parts must equal the number of function call parts."
        assert [(each.id, each.name) for each in given if each is not None] == asked and None not in given


def lower_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [lower_types(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: each.lower() if name == "type" and isinstance(each, str) else lower_types(each)
        for name, each in schema.items()
    }


def reply_with(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}


SCRIPT: list[Any] = [
    reply_with([{"functionCall": {"id": id_, "name": name, "args": given}} for id_, name, given in CALLS]),
    reply_with([{"text": "Sun."}]),
]


def check_answers(contents: list[Any]) -> None:
    assert [each["role"] for each in contents] == ["user"]
    forecast, radar, fail, unknown = (
        types.Part.model_validate(each).function_response for each in contents[0]["parts"]
    )
    assert forecast is not None and forecast.response == {"output": "Bern: sun"} and forecast.id == "1"
    assert radar is not None and radar.response == {"output": "rain in the north"} and radar.parts is not None
    picture = radar.parts[0].inline_data
    assert picture is not None and (picture.mime_type, picture.data) == ("image/png", base64.b64decode(PIXEL))
    assert fail is not None and fail.response == {"error": "no such station"}
    assert unknown is not None and unknown.response is not None
    assert "weather__snow not found" in unknown.response["error"]


@pytest.mark.parametrize("openapi", [False, True])
async def test_contents_call_functions_until_the_model_answers(manager: McpManager, openapi: bool) -> None:
    toolset = await select_tools(manager)
    config = types.GenerateContentConfig(tools=gemini.definitions(toolset, openapi=openapi))
    contents: list[Any] = [types.UserContent("Will it rain?")]
    with ModelApi(check, SCRIPT) as api:
        async with client_of(api).aio as client:
            while True:
                reply = await client.models.generate_content(model="m", contents=contents, config=config)
                assert reply.candidates is not None
                contents.append(reply.candidates[0].content)
                more = await gemini.answers(toolset, reply)
                if not more:
                    break
                contents.extend(more)
    assert reply.text == "Sun."
    check_answers(api.requests[1]["contents"][2:])
    declared = {each["name"]: each for each in api.requests[0]["tools"][0]["functionDeclarations"]}
    schema = declared["weather__forecast"]["parameters" if openapi else "parameters_json_schema"]
    assert schema["required"] == ["city"] and set(schema["properties"]) == {"city", "days"}


def client_of(api: ModelApi) -> genai.Client:
    return genai.Client(api_key="x", http_options=types.HttpOptions(base_url=api.url, retry_options=None))


async def test_answers_take_plain_data_and_leave_what_is_not_theirs(manager: McpManager) -> None:
    toolset = await select_tools(manager)
    (whole,) = await gemini.answers(toolset, SCRIPT[0])
    assert whole["parts"][0]["function_response"]["response"] == {"output": "Bern: sun"}
    content = SCRIPT[0]["candidates"][0]["content"]
    (left,) = await gemini.answers(toolset, content, media=False, leave_unknown=True)
    assert [each["function_response"]["id"] for each in left["parts"]] == ["1", "2", "3"]
    radar = left["parts"][1]["function_response"]
    assert radar["response"] == {"output": "rain in the north\n[image image/png, 70 bytes]"} and "parts" not in radar
    assert await gemini.answers(toolset, SCRIPT[1]) == []


def test_contents_in_a_thread(server: ToolServer) -> None:
    with PyMcpManager() as manager, ModelApi(check, SCRIPT) as api:
        manager.deploy_server("weather", {"url": server.url, **CALM})
        toolset = select_tools_blocking(manager)
        config = types.GenerateContentConfig(tools=gemini.definitions(toolset))
        contents: list[Any] = [types.UserContent("Will it rain?")]
        with client_of(api) as client:
            reply = client.models.generate_content(model="m", contents=contents, config=config)
            assert reply.candidates is not None
            contents += [reply.candidates[0].content, *gemini.answers_blocking(toolset, reply)]
            reply = client.models.generate_content(model="m", contents=contents, config=config)
    assert reply.text == "Sun."
    check_answers(api.requests[1]["contents"][2:])


async def test_names_begin_with_a_letter_for_gemini(server: ToolServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("7days", {"url": server.url, **CALM})
        toolset = await select_tools(manager, names=["forecast"])
        (tool,) = gemini.definitions(toolset)
        assert [each["name"] for each in tool["function_declarations"]] == ["_7days__forecast"]
        call = {"functionCall": {"name": "_7days__forecast", "args": {"city": "Bern"}}}
        (content,) = await gemini.answers(toolset, reply_with([call]))
    answered = content["parts"][0]["function_response"]
    assert answered == {"name": "_7days__forecast", "response": {"output": "Bern: sun"}}
