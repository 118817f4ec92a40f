"""The OpenAI Agents SDK's own runner calls tools of a fleet: what its model sees, is told, and that no failure ends a run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
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
from support.tool_server import PIXEL

from mcp_manager.adapters import ToolSearch
from mcp_manager.testing import faults

pytest.importorskip("agents", reason="openai-agents is not installed: pip install 'pymcp-manager[models]'")

import agents
from agents.models.interface import Model
from agents.tracing import FunctionSpanData, Span, Trace, TracingProcessor
from agents.usage import Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from mcp_manager.adapters import openai_agents

Wanted = list[tuple[str, dict[str, Any] | str]]


class ScriptedModel(Model):
    """A model that makes these calls, one list for each request, and then writes ``done``."""

    def __init__(self, *turns: Wanted) -> None:
        self._turns = iter(turns)
        self.offered: list[agents.Tool] = []
        self.seen: list[Any] = []

    async def get_response(self, *arguments: Any, **named: Any) -> agents.ModelResponse:
        given = dict(zip(("instructions", "input", "settings", "tools"), arguments, strict=False)) | named
        self.seen, self.offered = given["input"], given["tools"]
        wanted = next(self._turns, None)
        output: list[Any] = []
        for number, (name, arguments_of_call) in enumerate(wanted or ()):
            text = arguments_of_call if isinstance(arguments_of_call, str) else json.dumps(arguments_of_call)
            call_id = f"call-{len(self.seen)}-{number}"
            output.append(
                ResponseFunctionToolCall(type="function_call", name=name, arguments=text, call_id=call_id, id=call_id)
            )
        if wanted is None:
            said = ResponseOutputText(type="output_text", text="done", annotations=[])
            output.append(
                ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[said])
            )
        return agents.ModelResponse(output=output, usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


class Spans(TracingProcessor):
    """Keeps the spans of function tools."""

    def __init__(self) -> None:
        self.functions: list[Span[Any]] = []

    def on_span_end(self, span: Span[Any]) -> None:
        if isinstance(span.span_data, FunctionSpanData):
            self.functions.append(span)

    def on_span_start(self, span: Span[Any]) -> None: ...
    def on_trace_start(self, trace: Trace) -> None: ...
    def on_trace_end(self, trace: Trace) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...


@pytest.fixture(autouse=True)
def spans() -> Iterator[Spans]:
    """Keep spans here; by default they are sent to the vendor."""
    spans = Spans()
    agents.set_trace_processors([spans])
    yield spans
    agents.set_trace_processors([])


def agent_of(tools: Sequence[agents.Tool], *turns: Wanted) -> tuple[agents.Agent[Any], ScriptedModel]:
    """Return an agent whose model makes these calls, and the model."""
    model = ScriptedModel(*turns)
    return agents.Agent(name="agent", model=model, tools=list(tools)), model


async def told(tools: Sequence[agents.Tool], *turns: Wanted) -> list[Any]:
    """Run an agent to its end, and return what its model was told of the calls."""
    agent, model = agent_of(tools, *turns)
    result = await agents.Runner.run(agent, "go")
    assert result.final_output == "done"
    return outputs_in(model.seen)


def outputs_in(items: list[Any]) -> list[Any]:
    return [each["output"] for each in items if each.get("type") == "function_call_output"]


@pytest.fixture
async def fleet() -> AsyncIterator[AgentFleet]:
    async with agent_fleet() as fleet:
        yield fleet


async def test_an_agent_calls_tools_and_sees_text_and_pictures(fleet: AgentFleet) -> None:
    text, picture = await told(
        openai_agents.tools(fleet.toolset), [("weather__forecast", {"city": "Bern"}), ("weather__radar", "")]
    )
    assert text == "Bern: sun"
    assert picture == [
        {"type": "input_text", "text": "rain in the north"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
    ]


async def test_a_model_is_offered_whole_schemas(fleet: AgentFleet) -> None:
    agent, model = agent_of(openai_agents.tools(fleet.toolset))
    await agents.Runner.run(agent, "go")
    offered = {each.name: each for each in model.offered if isinstance(each, agents.FunctionTool)}
    assert set(offered) == {each.name for each in fleet.toolset}
    order = offered["odd__order"]
    assert (order.params_json_schema, order.strict_json_schema) == (ODD_SCHEMA, False)
    assert order.description == fleet.toolset["odd__order"].tool.description
    assert offered["odd__bare"].params_json_schema == {"type": "object", "properties": {}}
    assert offered["odd__broken"].params_json_schema["properties"] == {"x": {}, "y": {}}


async def test_strict_schemas_keep_optional_arguments_optional(fleet: AgentFleet) -> None:
    tools = openai_agents.tools(fleet.toolset, strict=True)
    offered = {each.name: each for each in tools if isinstance(each, agents.FunctionTool)}
    forecast = offered["weather__forecast"]
    assert forecast.strict_json_schema and forecast.params_json_schema["required"] == ["city", "days"]
    assert forecast.params_json_schema["properties"]["days"] == {"type": ["integer", "null"]}
    # It has properties of any name, and so no strict form.
    assert (offered["odd__order"].strict_json_schema, offered["odd__order"].params_json_schema) == (False, ODD_SCHEMA)
    assert await told(tools, [("weather__forecast", {"city": "Bern", "days": None})]) == ["Bern: sun"]
    assert fleet.weather.called == [("forecast", {"city": "Bern"})]


async def test_a_search_takes_the_place_of_all_tools(fleet: AgentFleet) -> None:
    search = ToolSearch(fleet.manager, servers=["weather"])
    found, called = await told(
        openai_agents.tools(search),
        [("search_tools", {"query": "forecast of a city"})],
        [("call_tool", {"name": "weather__forecast", "arguments": {"city": "Bern"}})],
    )
    assert "weather__forecast" in found and called == "Bern: sun"


async def test_any_arguments_arrive(fleet: AgentFleet) -> None:
    assert await told(openai_agents.tools(fleet.toolset), [("odd__order", ODD_ARGUMENTS)]) == ['{"count":2}']
    assert fleet.odd.called == [("order", ODD_ARGUMENTS)]


async def test_no_failure_ends_a_run_and_no_call_runs_twice(fleet: AgentFleet, spans: Spans) -> None:
    fleet.weather.script("tools/call", faults.Reset())
    lost, failed, malformed, after = await told(
        openai_agents.tools(fleet.toolset),
        [("weather__forecast", {"city": "Bern"})],
        [("weather__fail", {})],
        [("weather__forecast", '{"city": ')],
        [("weather__forecast", {"city": "Ulm"})],
    )
    assert "may have been executed" in lost
    assert failed == "no such station"
    assert "not valid JSON" in malformed
    assert after == "Ulm: sun"
    assert len(fleet.weather.requests_of("tools/call")) == 3
    errors = [each.error for each in spans.functions]
    assert [each is None for each in errors] == [False, False, False, True]
    assert errors[1] is not None and errors[1]["data"] == {"tool_name": "weather__fail", "error": "no such station"}


async def test_a_trace_without_sensitive_data_has_no_text_of_tools(fleet: AgentFleet, spans: Spans) -> None:
    agent, _ = agent_of(openai_agents.tools(fleet.toolset), [("weather__fail", {})])
    await agents.Runner.run(agent, "go", run_config=agents.RunConfig(trace_include_sensitive_data=False))
    (span,) = spans.functions
    assert span.error is not None and span.error["data"] == {"tool_name": "weather__fail"}


async def test_an_agent_survives_a_lost_session_and_a_server_that_dies(fleet: AgentFleet) -> None:
    tools = openai_agents.tools(fleet.toolset)
    fleet.weather.expire_sessions()
    assert await told(tools, [("weather__forecast", {"city": "Bern"})]) == ["Bern: sun"]
    fleet.weather.refuse_connections()
    dead, alive = await told(tools, [("weather__forecast", {"city": "Bern"}), ("odd__single", {"text": "still here"})])
    assert "was not executed" in dead and alive == "still here"
    assert fleet.weather.called == [("forecast", {"city": "Bern"})]


async def test_calls_of_one_response_run_at_once(fleet: AgentFleet) -> None:
    hold = faults.Hold()
    fleet.weather.script("tools/call", hold, hold)
    wanted: Wanted = [("weather__forecast", {"city": "Bern"}), ("weather__forecast", {"city": "Ulm"})]
    running = asyncio.create_task(told(openai_agents.tools(fleet.toolset), wanted))
    await fleet.weather.wait_for("tools/call", 2)
    hold.release()
    assert await running == ["Bern: sun", "Ulm: sun"]


async def test_cancelling_a_run_cancels_its_call(fleet: AgentFleet) -> None:
    fleet.weather.script("tools/call", faults.Hold())
    run = told(openai_agents.tools(fleet.toolset), [("weather__radar", {})])
    assert isinstance(await cancelled_during_call(fleet, run), asyncio.CancelledError)


async def test_a_person_approves_what_may_change_something(fleet: AgentFleet) -> None:
    tools = openai_agents.tools(
        fleet.toolset,
        needs_approval=lambda each: each.tool.annotations is None or not each.tool.annotations.read_only_hint,
    )
    agent, _ = agent_of(tools, [("odd__order", ODD_ARGUMENTS), ("odd__single", {"text": "x"})])
    waiting = await agents.Runner.run(agent, "go")
    assert [each.name for each in waiting.interruptions] == ["odd__single"]
    assert fleet.odd.called == [("order", ODD_ARGUMENTS)]
    state = waiting.to_state()
    state.approve(waiting.interruptions[0])
    assert (await agents.Runner.run(agent, state)).final_output == "done"
    assert fleet.odd.called[1:] == [("single", {"text": "x"})]


def test_threads_run_agents() -> None:
    with threaded_fleet() as fleet:
        tools = openai_agents.tools(fleet.toolset)
        assert asyncio.run(told(tools, [("weather__forecast", {"city": "Bern"})])) == ["Bern: sun"]


async def test_a_run_on_another_loop_than_the_managers_is_refused(fleet: AgentFleet) -> None:
    run = told(openai_agents.tools(fleet.toolset), [("weather__forecast", {"city": "Bern"})])
    with pytest.raises(agents.UserError, match="use it on the loop it was started on, or PyMcpManager"):
        await asyncio.to_thread(asyncio.run, run)
