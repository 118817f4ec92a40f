"""LangChain's own agent calls tools of a fleet: what its model sees, what it is told, and that no failure ends a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
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
from mcp_manager.testing import faults

pytest.importorskip("langchain", reason="langchain is not installed: pip install 'pymcp-manager[models]'")

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool

from mcp_manager.adapters import langchain


class ScriptedModel(GenericFakeChatModel):
    """A model that writes what a test gives it, and remembers which tools it was offered."""

    offered: list[dict[str, Any]] = []  # noqa: RUF012 - a field of a pydantic model

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> ScriptedModel:
        self.offered = [convert_to_openai_tool(each)["function"] for each in tools]
        return self


def calls(*wanted: tuple[str, dict[str, Any]]) -> AIMessage:
    """Return a message that calls tools."""
    return AIMessage(
        content="",
        tool_calls=[
            {"name": name, "args": arguments, "id": f"call-{number}", "type": "tool_call"}
            for number, (name, arguments) in enumerate(wanted)
        ],
    )


def agent_of(tools: Sequence[BaseTool], *messages: AIMessage) -> tuple[Any, ScriptedModel]:
    """Return an agent with a model that writes these messages and then ``done``."""
    model = ScriptedModel(messages=iter([*messages, AIMessage("done")]))
    return create_agent(model, list(tools)), model


async def told(tools: Sequence[BaseTool], *messages: AIMessage) -> list[ToolMessage]:
    """Run an agent to its end, and return what its model was told of the calls."""
    agent, _ = agent_of(tools, *messages)
    state = await agent.ainvoke({"messages": [("user", "go")]})
    assert state["messages"][-1].content == "done"
    return [each for each in state["messages"] if isinstance(each, ToolMessage)]


@pytest.fixture
async def fleet() -> AsyncIterator[AgentFleet]:
    async with agent_fleet() as fleet:
        yield fleet


async def test_an_agent_calls_tools_and_sees_text_and_pictures(fleet: AgentFleet) -> None:
    wanted = calls(("weather__forecast", {"city": "Bern"}), ("weather__radar", {}))
    text, picture = await told(langchain.tools(fleet.toolset), wanted)
    assert (text.content, text.status, text.artifact) == ("Bern: sun", "success", None)
    assert picture.content == [
        {"type": "text", "text": "rain in the north"},
        {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
    ]
    assert picture.content_blocks[1]["type"] == "image"


async def test_a_model_is_offered_whole_schemas(fleet: AgentFleet) -> None:
    tools = {each.name: each for each in langchain.tools(fleet.toolset)}
    agent, model = agent_of(list(tools.values()))
    await agent.ainvoke({"messages": [("user", "go")]})
    offered = {each["name"]: each for each in model.offered}
    assert set(offered) == {each.name for each in fleet.toolset}
    assert tools["odd__order"].args_schema == ODD_SCHEMA
    order = offered["odd__order"]["parameters"]
    assert order["required"] == ["tree"] and order["additionalProperties"] is False
    assert order["properties"]["tree"]["properties"]["kind"] == {"enum": ["leaf", "branch"]}
    assert order["properties"]["self"] == ODD_SCHEMA["properties"]["self"]
    assert order["properties"]["matrix"] == ODD_SCHEMA["properties"]["matrix"]
    assert offered["odd__bare"]["parameters"] == {"type": "object", "properties": {}}
    assert offered["odd__broken"]["parameters"]["properties"] == {"x": {}, "y": {}}
    assert tools["odd__order"].description == fleet.toolset["odd__order"].tool.description
    assert tools["odd__order"].metadata == {
        "server_id": "odd",
        "tool": "order",
        "title": "Order a tree",
        "annotations": {"readOnlyHint": True, "destructiveHint": False},
        "_meta": {"team": "trees"},
    }


async def test_any_arguments_arrive_and_structured_results_are_artifacts(fleet: AgentFleet) -> None:
    (answer,) = await told(langchain.tools(fleet.toolset), calls(("odd__order", ODD_ARGUMENTS)))
    assert fleet.odd.called == [("order", ODD_ARGUMENTS)]
    assert answer.content == '{"count":2}'
    assert answer.artifact == {"structured_content": {"count": 2}, "_meta": {"took_ms": 3}}


async def test_sounds_are_files_and_what_models_refuse_is_described(fleet: AgentFleet) -> None:
    fleet.weather.answers["radar"] = {
        "content": [
            {"type": "audio", "data": TONE, "mimeType": "audio/x-wav"},
            {"type": "image", "data": "PHN2Zz4=", "mimeType": "image/svg+xml"},
            {"type": "image", "data": "not base64", "mimeType": "image/png"},
        ]
    }
    (answer,) = await told(langchain.tools(fleet.toolset), calls(("weather__radar", {})))
    assert answer.content == [
        {"type": "file", "base64": TONE, "mime_type": "audio/wav"},
        {"type": "text", "text": "[image image/svg+xml, 5 bytes]"},
        {"type": "text", "text": "[image image/png, 7 bytes]"},
    ]


async def test_no_failure_ends_a_run_and_no_call_runs_twice(fleet: AgentFleet) -> None:
    fleet.weather.script("tools/call", faults.Reset())
    lost, failed, after = await told(
        langchain.tools(fleet.toolset),
        calls(("weather__forecast", {"city": "Bern"})),
        calls(("weather__fail", {})),
        calls(("weather__forecast", {"city": "Ulm"})),
    )
    assert lost.status == "error" and "may have been executed" in str(lost.content)
    assert (failed.status, failed.content) == ("error", "no such station")
    assert (after.status, after.content) == ("success", "Ulm: sun")
    assert len(fleet.weather.requests_of("tools/call")) == 3


async def test_an_agent_survives_a_lost_session_and_a_server_that_dies(fleet: AgentFleet) -> None:
    tools = langchain.tools(fleet.toolset)
    fleet.weather.expire_sessions()
    (again,) = await told(tools, calls(("weather__forecast", {"city": "Bern"})))
    assert again.content == "Bern: sun"
    fleet.weather.refuse_connections()
    dead, alive = await told(
        tools, calls(("weather__forecast", {"city": "Bern"}), ("odd__single", {"text": "still here"}))
    )
    assert dead.status == "error" and "was not executed" in str(dead.content)
    assert (alive.status, alive.content) == ("success", "still here")
    assert fleet.weather.called == [("forecast", {"city": "Bern"})]


@pytest.mark.parametrize(
    ("handling", "content"),
    [("Ask a person.", "Ask a person."), (lambda error: f"<{error}>", "<no such station>")],
    ids=["text", "function"],
)
async def test_an_application_may_word_failures(
    fleet: AgentFleet, handling: str | Callable[[ToolException], str], content: str
) -> None:
    tools = langchain.tools(fleet.toolset, handle_tool_error=handling)
    (answer,) = await told(tools, calls(("weather__fail", {})))
    assert (answer.status, answer.content) == ("error", content)


async def test_failures_may_be_raised(fleet: AgentFleet) -> None:
    (tool,) = [each for each in langchain.tools(fleet.toolset, handle_tool_error=False) if each.name.endswith("radar")]
    fleet.weather.script("tools/call", faults.Reset())
    with pytest.raises(ToolException, match="may have been executed") as caught:
        await tool.ainvoke({})
    assert isinstance(caught.value.__cause__, ConnectionLostError)


async def test_calls_of_one_message_run_at_once(fleet: AgentFleet) -> None:
    hold = faults.Hold()
    fleet.weather.script("tools/call", hold, hold)
    wanted = calls(("weather__forecast", {"city": "Bern"}), ("weather__forecast", {"city": "Ulm"}))
    running = asyncio.create_task(told(langchain.tools(fleet.toolset), wanted))
    await fleet.weather.wait_for("tools/call", 2)
    hold.release()
    assert [each.content for each in await running] == ["Bern: sun", "Ulm: sun"]


async def test_cancelling_a_run_cancels_its_call(fleet: AgentFleet) -> None:
    fleet.weather.script("tools/call", faults.Hold())
    run = told(langchain.tools(fleet.toolset), calls(("weather__radar", {})))
    assert isinstance(await cancelled_during_call(fleet, run), asyncio.CancelledError)


def test_threads_invoke_agents() -> None:
    with threaded_fleet() as fleet:
        agent, _ = agent_of(langchain.tools(fleet.toolset), calls(("weather__forecast", {"city": "Bern"})))
        state = agent.invoke({"messages": [("user", "go")]})
        assert state["messages"][-2].content == "Bern: sun"
        # On another loop than the manager's.
        (answer,) = asyncio.run(told(langchain.tools(fleet.toolset), calls(("weather__fail", {}))))
        assert answer.content == "no such station"


async def test_blocking_calls_of_a_manager_on_a_loop_are_refused(fleet: AgentFleet) -> None:
    tool = langchain.tools(fleet.toolset)[0]
    with pytest.raises(NotRunningError, match="PyMcpManager"):
        tool.invoke({})
    with pytest.raises(NotRunningError, match="PyMcpManager"):
        await asyncio.to_thread(tool.invoke, {})
