"""pydantic-ai's own agent calls tools of a fleet: what its model sees, what it is told, and that no failure ends a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
from support.tool_server import PIXEL, TONE, text_result

from mcp_manager import InvalidRequestError, NotRunningError
from mcp_manager.adapters import Toolset, select_tools
from mcp_manager.testing import faults

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed: pip install 'pymcp-manager[models]'")

from pydantic_ai import Agent, BinaryContent, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.tools import ToolDefinition

from mcp_manager.adapters.pydantic_ai import FleetToolset

CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}

Wanted = list[tuple[str, dict[str, Any]]]
FAILING: Wanted = [("weather__fail", {})]


class Script:
    """A model that makes these calls, one list for each request, and then writes ``done``."""

    def __init__(self, *turns: Wanted) -> None:
        self._turns = iter(turns)
        self.offered: list[dict[str, ToolDefinition]] = []

    def respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.offered.append({each.name: each for each in info.function_tools})
        wanted = next(self._turns, None)
        if wanted is None:
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart(name, arguments) for name, arguments in wanted])

    def agent(self, *toolsets: FleetToolset[None]) -> Agent[None, str]:
        return Agent(FunctionModel(self.respond), toolsets=toolsets)


async def told(toolset: FleetToolset[None], *turns: Wanted) -> list[ToolReturnPart]:
    """Run an agent to its end, and return what its model was told of the calls."""
    result = await Script(*turns).agent(toolset).run("go")
    assert result.output == "done"
    return returns_in(result.all_messages())


def returns_in(messages: list[ModelMessage]) -> list[ToolReturnPart]:
    """Return the results of tools in a conversation."""
    requests = [each for each in messages if isinstance(each, ModelRequest)]
    return [part for each in requests for part in each.parts if isinstance(part, ToolReturnPart)]


@pytest.fixture
async def fleet() -> AsyncIterator[AgentFleet]:
    async with agent_fleet() as fleet:
        yield fleet


async def test_an_agent_calls_tools_and_sees_text_and_pictures(fleet: AgentFleet) -> None:
    text, picture = await told(
        FleetToolset(fleet.toolset), [("weather__forecast", {"city": "Bern"}), ("weather__radar", {})]
    )
    assert (text.content, text.outcome, text.metadata) == ("Bern: sun", "success", None)
    assert isinstance(picture.content, list)
    words, image = picture.content
    assert words == "rain in the north"
    assert isinstance(image, BinaryContent) and (image.base64, image.media_type) == (PIXEL, "image/png")


async def test_a_model_is_offered_whole_schemas(fleet: AgentFleet) -> None:
    script = Script()
    toolset = FleetToolset[None](fleet.toolset).include_return_schemas()
    await Agent(FunctionModel(script.respond), toolsets=[toolset]).run("go")
    offered = script.offered[0]
    assert set(offered) == {each.name for each in fleet.toolset}
    order = offered["odd__order"]
    assert order.parameters_json_schema == ODD_SCHEMA
    description = fleet.toolset["odd__order"].tool.description
    # The framework adds the schema of the result, and would warn of tools without one.
    assert order.description is not None and order.description.startswith(f"{description}\n\nReturn schema:")
    assert offered["weather__fail"].description == "Fail."
    assert order.metadata is not None and order.metadata["annotations"]["readOnlyHint"] is True
    assert (order.metadata["server_id"], order.metadata["tool"]) == ("odd", "order")
    assert offered["odd__bare"].parameters_json_schema == {"type": "object", "properties": {}}
    assert offered["odd__broken"].parameters_json_schema["properties"] == {"x": {}, "y": {}}


async def test_any_arguments_arrive_and_structured_results_are_metadata(fleet: AgentFleet) -> None:
    (answer,) = await told(FleetToolset(fleet.toolset), [("odd__order", ODD_ARGUMENTS)])
    assert fleet.odd.called == [("order", ODD_ARGUMENTS)]
    assert answer.content == '{"count":2}'
    assert answer.metadata == {"structured_content": {"count": 2}, "_meta": {"took_ms": 3}}


async def test_sounds_are_heard_and_what_models_refuse_is_described(fleet: AgentFleet) -> None:
    fleet.weather.answers["radar"] = {
        "content": [
            {"type": "audio", "data": TONE, "mimeType": "audio/x-wav"},
            {"type": "image", "data": "not base64", "mimeType": "image/png"},
        ]
    }
    (answer,) = await told(FleetToolset(fleet.toolset), [("weather__radar", {})])
    assert isinstance(answer.content, list)
    sound, note = answer.content
    assert isinstance(sound, BinaryContent) and (sound.base64, sound.media_type) == (TONE, "audio/wav")
    assert note == "[image image/png, 7 bytes]"


async def test_no_failure_ends_a_run_and_no_call_runs_twice(fleet: AgentFleet) -> None:
    fleet.weather.script("tools/call", faults.Reset())
    # More failures of one tool than retries are allowed.
    lost, *failed, after = await told(
        FleetToolset(fleet.toolset),
        [("weather__forecast", {"city": "Bern"})],
        *[FAILING] * 3,
        [("weather__forecast", {"city": "Ulm"})],
    )
    assert lost.outcome == "failed" and "may have been executed" in str(lost.content)
    assert [(each.outcome, each.content) for each in failed] == [("failed", "no such station")] * 3
    assert (after.outcome, after.content) == ("success", "Ulm: sun")
    assert len(fleet.weather.requests_of("tools/call")) == 5


async def test_an_agent_survives_a_lost_session_and_a_server_that_dies(fleet: AgentFleet) -> None:
    toolset: FleetToolset[None] = FleetToolset(fleet.toolset)
    fleet.weather.expire_sessions()
    (again,) = await told(toolset, [("weather__forecast", {"city": "Bern"})])
    assert again.content == "Bern: sun"
    fleet.weather.refuse_connections()
    wanted = [("weather__forecast", {"city": "Bern"}), ("odd__single", {"text": "still here"})]
    dead, alive = await told(toolset, wanted)
    assert dead.outcome == "failed" and "was not executed" in str(dead.content)
    assert (alive.outcome, alive.content) == ("success", "still here")
    assert fleet.weather.called == [("forecast", {"city": "Bern"})]


async def test_a_model_may_be_told_to_try_again_unless_the_call_may_have_run(fleet: AgentFleet) -> None:
    toolset: FleetToolset[None] = FleetToolset(fleet.toolset, on_tool_error="retry")
    with pytest.raises(UnexpectedModelBehavior, match="weather__fail"):
        await told(toolset, *[FAILING] * 5)
    assert len(fleet.weather.called) == 2
    fleet.weather.script("tools/call", faults.Reset())
    (lost,) = await told(toolset, [("weather__forecast", {"city": "Bern"})])
    assert lost.outcome == "failed"
    with pytest.raises(InvalidRequestError, match="on_tool_error"):
        FleetToolset(fleet.toolset, on_tool_error="raise")  # type: ignore[arg-type]


async def test_tools_may_come_during_a_run(fleet: AgentFleet) -> None:
    async def current() -> Toolset:
        return await select_tools(fleet.manager, servers=["odd"])

    def grow(_: dict[str, Any]) -> dict[str, Any]:
        fleet.odd.tools.append({"name": "new", "inputSchema": {"type": "object"}})
        return text_result("grown")

    fleet.odd.answers["single"] = grow
    fleet.odd.script("tools/call", faults.SseEvents(before=(CHANGED,)))
    script = Script([("odd__single", {"text": "x"})], [("odd__new", {})])
    result = await script.agent(FleetToolset(current)).run("go")
    assert [each.content for each in returns_in(result.all_messages())] == ["grown", "{}"]
    assert ["odd__new" in each for each in script.offered] == [False, True, True]


async def test_calls_of_one_response_run_at_once(fleet: AgentFleet) -> None:
    hold = faults.Hold()
    fleet.weather.script("tools/call", hold, hold)
    wanted = [("weather__forecast", {"city": "Bern"}), ("weather__forecast", {"city": "Ulm"})]
    running = asyncio.create_task(told(FleetToolset(fleet.toolset), wanted))
    await fleet.weather.wait_for("tools/call", 2)
    hold.release()
    assert [each.content for each in await running] == ["Bern: sun", "Ulm: sun"]


async def test_cancelling_a_run_cancels_its_call(fleet: AgentFleet) -> None:
    fleet.weather.script("tools/call", faults.Hold())
    run = told(FleetToolset(fleet.toolset), [("weather__radar", {})])
    assert isinstance(await cancelled_during_call(fleet, run), asyncio.CancelledError)


async def test_the_wrappers_of_the_framework_work(fleet: AgentFleet) -> None:
    base: FleetToolset[None] = FleetToolset(fleet.toolset, id="fleet")
    read_only = base.filtered(lambda _, tool: "annotations" in (tool.metadata or {})).prefixed("my")
    script = Script([("my_odd__order", ODD_ARGUMENTS)])
    agent = Agent(FunctionModel(script.respond), toolsets=[read_only])
    assert (await agent.run("go")).output == "done"
    assert list(script.offered[0]) == ["my_odd__order"] and fleet.odd.called == [("order", ODD_ARGUMENTS)]


def test_threads_run_agents() -> None:
    with threaded_fleet() as fleet, asyncio.Runner() as runner:
        # Without a loop of the thread, the framework makes one and never closes it.
        asyncio.set_event_loop(runner.get_loop())
        agent = Script([("weather__forecast", {"city": "Bern"})]).agent(FleetToolset(fleet.toolset))
        (answer,) = returns_in(agent.run_sync("go").all_messages())
        assert answer.content == "Bern: sun"
        asyncio.set_event_loop(None)


async def test_a_run_on_another_loop_than_the_managers_is_refused(fleet: AgentFleet) -> None:
    run = told(FleetToolset(fleet.toolset), [("weather__forecast", {"city": "Bern"})])
    with pytest.raises(NotRunningError):
        await asyncio.to_thread(asyncio.run, run)
