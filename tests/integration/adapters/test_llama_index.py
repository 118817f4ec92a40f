"""LlamaIndex's own agents call tools of a fleet: what the model sees, what it is told, and that no failure ends a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from support.agent_fleet import (
    ODD_ARGUMENTS,
    ODD_SCHEMA,
    AgentFleet,
    agent_fleet,
    cancelled_during_call,
    threaded_fleet,
)
from support.tool_server import PIXEL, TONE

from mcp_manager import ConnectionLostError, NotRunningError
from mcp_manager.adapters import select_tools
from mcp_manager.testing import faults

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed: pip install 'pymcp-manager[models]'")

from llama_index.core.agent.workflow import FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import AudioBlock, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage, ChatResponse, MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import ToolOutput
from llama_index.core.tools.calling import acall_tool, call_tool

from mcp_manager.adapters import llama_index

# LlamaIndex's workflows look at all attributes of an agent, which is a pydantic model.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:The `\w+` attribute is deprecated:pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore:Accessing the 'model_.*' attribute on the instance:pydantic.warnings.PydanticDeprecatedSince211"
    ),
]

Wanted = list[tuple[str, dict[str, Any]]]


def scripted(*turns: Wanted) -> MockFunctionCallingLLM:
    """Return a model that makes these calls, one list for each request, and then writes ``done``."""
    left = iter(turns)

    def respond(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
        wanted = next(left, None)
        if wanted is None:
            return ChatMessage(role="assistant", content="done")
        blocks = [
            ToolCallBlock(tool_call_id=f"call-{len(messages)}-{number}", tool_name=name, tool_kwargs=arguments)
            for number, (name, arguments) in enumerate(wanted)
        ]
        return ChatMessage(role="assistant", blocks=blocks)

    return MockFunctionCallingLLM(response_generator=respond, is_chat_model=True)


async def told(tools: Sequence[llama_index.LlamaIndexTool], *turns: Wanted) -> list[ToolOutput]:
    """Run an agent to its end, and return what its model was told of the calls."""
    agent = FunctionAgent(tools=list(tools), llm=scripted(*turns), streaming=False)
    handler = agent.run("go")
    try:
        events = [event async for event in handler.stream_events()]
        assert str(await handler) == "done"
    except asyncio.CancelledError:
        await handler.cancel_run()
        raise
    return [event.tool_output for event in events if isinstance(event, ToolCallResult)]


@pytest.fixture
async def fleet() -> AsyncIterator[AgentFleet]:
    async with agent_fleet() as fleet:
        yield fleet


def tool_of(fleet: AgentFleet, name: str) -> llama_index.LlamaIndexTool:
    return next(each for each in llama_index.tools(fleet.toolset) if each.metadata.name == name)


async def test_an_agent_calls_tools_and_sees_text_and_pictures(fleet: AgentFleet) -> None:
    text, picture = await told(
        llama_index.tools(fleet.toolset), [("weather__forecast", {"city": "Bern"})], [("weather__radar", {})]
    )
    assert (text.content, text.is_error, text.raw_output) == ("Bern: sun", False, "Bern: sun")
    words, image = picture.blocks
    assert isinstance(words, TextBlock) and words.text == "rain in the north"
    assert isinstance(image, ImageBlock) and image.image_mimetype == "image/png"
    assert image.resolve_image(as_base64=True).read().decode() == PIXEL


async def test_a_model_is_offered_whole_schemas(fleet: AgentFleet) -> None:
    tools = {each.metadata.get_name(): each for each in llama_index.tools(fleet.toolset)}
    assert set(tools) == {each.name for each in fleet.toolset}
    metadata = tools["odd__order"].metadata
    assert metadata.get_parameters_dict() == ODD_SCHEMA
    assert metadata.fn_schema is not None and metadata.fn_schema.model_json_schema() == ODD_SCHEMA
    description = fleet.toolset["odd__order"].tool.description
    assert description is not None and len(description) > 1024
    assert metadata.to_openai_tool(skip_length_check=True)["function"] == {
        "name": "odd__order",
        "description": description,
        "parameters": ODD_SCHEMA,
    }
    # LlamaIndex's own method fails here, and a whole agent with it.
    cut = metadata.to_openai_tool()["function"]["description"]
    assert len(cut) == 1024 and description.startswith(cut.removesuffix("…"))
    assert (metadata.details["server_id"], metadata.details["annotations"]["readOnlyHint"]) == ("odd", True)
    assert tools["odd__bare"].metadata.get_parameters_dict() == {"type": "object", "properties": {}}
    assert tools["odd__broken"].metadata.get_parameters_dict()["properties"] == {"x": {}, "y": {}}


async def test_any_arguments_arrive_and_structured_results_are_raw_outputs(fleet: AgentFleet) -> None:
    (answer,) = await told(llama_index.tools(fleet.toolset), [("odd__order", ODD_ARGUMENTS)])
    assert fleet.odd.called == [("order", ODD_ARGUMENTS)]
    assert answer.content == '{"count":2}' and answer.raw_input == ODD_ARGUMENTS
    assert answer.raw_output == {"structured_content": {"count": 2}, "_meta": {"took_ms": 3}}


async def test_sounds_are_heard_and_what_models_refuse_is_described(fleet: AgentFleet) -> None:
    fleet.weather.answers["radar"] = {
        "content": [
            {"type": "audio", "data": TONE, "mimeType": "audio/x-wav"},
            {"type": "image", "data": "not base64", "mimeType": "image/png"},
        ]
    }
    sound, note = (await tool_of(fleet, "weather__radar").acall()).blocks
    assert isinstance(sound, AudioBlock) and sound.format == "wav"
    assert sound.resolve_audio(as_base64=True).read().decode() == TONE
    assert isinstance(note, TextBlock) and note.text == "[image image/png, 7 bytes]"


async def test_no_failure_ends_a_run_and_no_call_runs_twice(fleet: AgentFleet) -> None:
    fleet.weather.script("tools/call", faults.Reset())
    lost, failed, after = await told(
        llama_index.tools(fleet.toolset),
        [("weather__forecast", {"city": "Bern"})],
        [("weather__fail", {})],
        [("weather__forecast", {"city": "Ulm"})],
    )
    assert lost.is_error and "may have been executed" in lost.content
    assert isinstance(lost.exception, ConnectionLostError)
    assert (failed.is_error, failed.content) == (True, "no such station")
    assert (after.is_error, after.content) == (False, "Ulm: sun")
    assert len(fleet.weather.requests_of("tools/call")) == 3


async def test_what_tries_a_single_argument_without_its_name_first_calls_once(fleet: AgentFleet) -> None:
    tool = tool_of(fleet, "odd__single")
    assert (await acall_tool(tool, {"text": "x"})).content == "x"
    assert fleet.odd.called == [("single", {"text": "x"})]
    (tool,) = llama_index.tools(await select_tools(fleet.manager, names=["single"], on_error="raise"))
    fleet.odd.script_always("tools/call", faults.Reset())
    assert (await acall_tool(tool, {"text": "x"})).is_error
    assert len(fleet.odd.requests_of("tools/call")) == 2


async def test_an_agent_survives_a_lost_session_and_a_server_that_dies(fleet: AgentFleet) -> None:
    tools = llama_index.tools(fleet.toolset)
    fleet.weather.expire_sessions()
    (again,) = await told(tools, [("weather__forecast", {"city": "Bern"})])
    assert again.content == "Bern: sun"
    fleet.weather.refuse_connections()
    dead, alive = await told(
        tools, [("weather__forecast", {"city": "Bern"})], [("odd__single", {"text": "still here"})]
    )
    assert dead.is_error and "was not executed" in dead.content
    assert (alive.is_error, alive.content) == (False, "still here")
    assert fleet.weather.called == [("forecast", {"city": "Bern"})]


async def test_calls_of_one_message_run_at_once(fleet: AgentFleet) -> None:
    hold = faults.Hold()
    fleet.weather.script("tools/call", hold, hold)
    wanted = [("weather__forecast", {"city": "Bern"}), ("weather__forecast", {"city": "Ulm"})]
    running = asyncio.create_task(told(llama_index.tools(fleet.toolset), wanted))
    await fleet.weather.wait_for("tools/call", 2)
    hold.release()
    assert {each.content for each in await running} == {"Bern: sun", "Ulm: sun"}


async def test_cancelling_a_run_cancels_its_call(fleet: AgentFleet) -> None:
    fleet.weather.script("tools/call", faults.Hold())
    run = told(llama_index.tools(fleet.toolset), [("weather__radar", {})])
    assert isinstance(await cancelled_during_call(fleet, run), asyncio.CancelledError)


async def test_an_agent_without_function_calling_works(fleet: AgentFleet) -> None:
    class Thinking(MockLLM):
        async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
            seen = str(messages[-1].content)
            text = (
                "Thought: done\nAnswer: " + seen
                if "Observation" in seen
                else 'Thought: look\nAction: weather__forecast\nAction Input: {"city": "Bern"}'
            )
            return ChatResponse(message=ChatMessage(role="assistant", content=text))

    agent = ReActAgent(tools=[*llama_index.tools(fleet.toolset)], llm=Thinking(max_tokens=None), streaming=False)
    assert "Bern: sun" in str(await agent.run("go"))


def test_threads_call_tools() -> None:
    with threaded_fleet() as fleet:
        assert call_tool(tool_of(fleet, "odd__single"), {"text": "x"}).content == "x"
        assert tool_of(fleet, "odd__order")(**ODD_ARGUMENTS).raw_output["structured_content"] == {"count": 2}
        (answer,) = asyncio.run(told(llama_index.tools(fleet.toolset), [("weather__forecast", {"city": "Bern"})]))
        assert answer.content == "Bern: sun"


async def test_blocking_calls_of_a_manager_on_a_loop_are_refused(fleet: AgentFleet) -> None:
    tool = tool_of(fleet, "odd__bare")
    with pytest.raises(NotRunningError, match="PyMcpManager"):
        tool()
