"""A set of tools for a model: what it calls, and what the model is told, in an event loop and from threads."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from support.blocking import Blocked
from support.calls import CALM
from support.guarded import GuardedServer
from support.tool_server import ToolServer, weather

from mcp_manager import (
    Caller,
    CallToolResult,
    DeadlineExceededError,
    FleetTool,
    InvalidRequestError,
    McpManager,
    NotRunningError,
    OverloadedError,
    PyMcpManager,
    RpcError,
    TextContent,
    ToolNotFoundError,
)
from mcp_manager.adapters import (
    CallNext,
    ToolSearch,
    Toolset,
    anthropic_messages,
    gemini,
    openai_chat,
    openai_responses,
    select_tools,
    select_tools_blocking,
)
from mcp_manager.adapters.answers import answer_of_result
from mcp_manager.results import decode_result
from mcp_manager.testing import faults


@pytest.fixture
def server() -> Iterator[ToolServer]:
    with weather() as server:
        yield server


@pytest.fixture
async def manager(server: ToolServer) -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        await manager.deploy("weather", {"url": server.url, **CALM})
        yield manager


async def test_a_toolset_holds_its_tools_and_calls_them(manager: McpManager, server: ToolServer) -> None:
    toolset = await select_tools(manager)
    assert [each.name for each in toolset] == ["weather__fail", "weather__forecast", "weather__radar"]
    assert toolset.tools == tuple(toolset) and len(toolset) == 3 and toolset.missing == {}
    assert "weather__radar" in toolset and "radar" not in toolset
    assert toolset["weather__radar"].tool.name == "radar"
    assert (await toolset.call("weather__forecast", {"city": "Bern"})).text == "Bern: sun"
    assert (await toolset.call("weather__forecast", '{"city": "Ulm"}')).text == "Ulm: sun"
    assert server.called == [("forecast", {"city": "Bern"}), ("forecast", {"city": "Ulm"})]


async def test_a_model_is_told_what_it_can_react_to(manager: McpManager, server: ToolServer) -> None:
    toolset = await select_tools(manager)
    good = await toolset.answer("weather__forecast", {"city": "Bern"})
    assert (good.text, good.is_error, good.error) == ("Bern: sun", False, None)
    assert good.result is not None and good.result.text == "Bern: sun"
    failed = await toolset.answer("weather__fail", "")
    assert (failed.text, failed.is_error, failed.error) == ("no such station", True, None)
    unknown = await toolset.answer("weather__forcast", {})
    assert isinstance(unknown.error, ToolNotFoundError) and "did you mean weather__forecast?" in unknown.text
    malformed = await toolset.answer("weather__forecast", '{"city": ')
    assert isinstance(malformed.error, InvalidRequestError) and "not valid JSON" in malformed.text
    no_object = await toolset.answer("weather__forecast", '["Bern"]')
    assert no_object.is_error and "must be a JSON object" in no_object.text
    server.script("tools/call", faults.RpcErrorReply(-32602, "city is required"))
    invalid = await toolset.answer("weather__forecast", {})
    assert isinstance(invalid.error, RpcError)
    assert "arguments are invalid: city is required" in invalid.text
    server.script("tools/call", faults.RpcErrorReply(-32602, "Unknown tool: forecast"))
    gone = await toolset.answer("weather__forecast", {})
    # What helps is for those who run the manager.
    assert gone.error is not None and gone.error.hint
    assert gone.text == "The arguments are invalid: Unknown tool: forecast (JSON-RPC error -32602)"


async def test_a_call_without_an_answer_says_whether_it_may_have_been_executed(
    manager: McpManager, server: ToolServer
) -> None:
    toolset = await select_tools(manager)
    server.script("tools/call", faults.Reset())
    lost = await toolset.answer("weather__forecast", {"city": "Bern"})
    assert lost.is_error and "may have been executed" in lost.text
    assert "127.0.0.1" not in lost.text
    server.script("tools/call", faults.Status(429, {"Retry-After": "7"}))
    busy = await toolset.answer("weather__forecast", {"city": "Bern"})
    assert isinstance(busy.error, OverloadedError)
    assert busy.text == "The server of this tool is too busy. The call was not executed. Try again in 7 seconds."
    await manager.undeploy("weather")
    gone = await toolset.answer("weather__forecast", {"city": "Bern"})
    assert gone.is_error and gone.text == "This tool is no longer available."


@pytest.mark.parametrize("name", [["weather__radar"], {"a": 1}, 3, None])
async def test_a_name_that_is_no_string_names_no_tool(manager: McpManager, name: Any) -> None:
    for toolset in (await select_tools(manager), ToolSearch(manager)):
        answer = await toolset.answer(name)
        assert isinstance(answer.error, InvalidRequestError) and "must be a string" in answer.text
        assert name not in toolset and toolset.definition(name) is None
        reply = {"tool_calls": [{"id": "1", "function": {"name": name, "arguments": "{}"}}]}
        (message,) = await openai_chat.answers(toolset, reply)
        assert message["content"].startswith("Error: ")
        assert await openai_chat.answers(toolset, reply, leave_unknown=True) == []


async def test_arguments_may_be_none_in_every_way_and_nothing_but_an_object(
    manager: McpManager, server: ToolServer
) -> None:
    toolset = await select_tools(manager)
    for none in (None, "", " ", "null", "{}", {}):
        assert not (await toolset.answer("weather__radar", none)).is_error
    assert server.called == [("radar", {})] * 6
    wrong: Any
    for wrong in ([1], 3, b"{}", "[1]", "3"):
        for which, name in (
            (toolset, "weather__radar"),
            (ToolSearch(manager), "search_tools"),
            (ToolSearch(manager), "call_tool"),
        ):
            answer = await which.answer(name, wrong)
            assert isinstance(answer.error, InvalidRequestError) and "must be a JSON object" in answer.text
    assert len(server.called) == 6


@pytest.mark.parametrize("content", [[], [{"type": "text", "text": " "}]])
async def test_a_tool_that_fails_without_a_word_has_failed(
    manager: McpManager, server: ToolServer, content: list[Any]
) -> None:
    server.answers["fail"] = {"content": content, "isError": True}
    answer = await (await select_tools(manager)).answer("weather__fail")
    assert answer.is_error and answer.text == "The tool failed, and did not say why."


def test_a_block_that_is_nested_too_deeply_is_named() -> None:
    block: dict[str, Any] = {"type": "text", "text": "x"}
    for number in range(400):
        block = {"type": "tool_result", "toolUseId": str(number), "content": [block]}
    result = decode_result("s", json.dumps({"content": [block]}).encode(), CallToolResult)
    assert answer_of_result(result, 100).text == "[tool_result, nested too deeply]"


async def test_copies_of_a_toolset_are_the_toolset(manager: McpManager) -> None:
    for toolset in (await select_tools(manager), ToolSearch(manager)):
        assert copy.copy(toolset) is toolset and copy.deepcopy([toolset])[0] is toolset


async def test_a_toolset_may_raise_instead(manager: McpManager, server: ToolServer) -> None:
    toolset = await select_tools(manager, on_error="raise")
    server.script("tools/call", faults.Status(429))
    with pytest.raises(OverloadedError):
        await toolset.answer("weather__forecast", {"city": "Bern"})
    assert (await toolset.answer("nothing")).is_error
    assert (await toolset.answer("weather__fail")).text == "no such station"


async def test_cancelling_an_answer_cancels_the_call(manager: McpManager, server: ToolServer) -> None:
    toolset = await select_tools(manager)
    server.script("tools/call", faults.Hold())
    asking = asyncio.create_task(toolset.answer("weather__radar"))
    await server.wait_for("tools/call")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_timeout_of_the_set_holds_for_each_call(manager: McpManager, server: ToolServer) -> None:
    toolset = await select_tools(manager, timeout=0.05)
    server.script("tools/call", faults.Hold())
    late = await toolset.answer("weather__radar")
    assert late.is_error and late.text.startswith("The tool did not answer in time. The call may have been executed")


async def test_long_text_is_cut_and_wrong_options_are_refused(manager: McpManager, server: ToolServer) -> None:
    server.answers["forecast"] = {"content": [{"type": "text", "text": "a" * 60}, {"type": "text", "text": "b" * 60}]}
    toolset = await select_tools(manager, max_text=100)
    answer = await toolset.answer("weather__forecast", {"city": "Bern"})
    assert answer.text == "a" * 60 + "\n" + "b" * 40 + "\n[cut: 100 of 120 characters are shown]"
    assert answer.result is not None and len(answer.result.text) == 121
    with pytest.raises(InvalidRequestError, match="timeout"):
        await toolset.answer("weather__forecast", {"city": "Bern"}, timeout=-1)
    with pytest.raises(InvalidRequestError, match="on_error"):
        await select_tools(manager, on_error="ignore")  # type: ignore[arg-type]
    for wrong in (0, -1, True, "10"):
        with pytest.raises(InvalidRequestError, match="max_text"):
            await select_tools(manager, max_text=wrong)  # type: ignore[arg-type]


async def test_structured_content_alone_is_told_as_json(manager: McpManager, server: ToolServer) -> None:
    server.answers["forecast"] = {"content": [], "structuredContent": {"sun": True}}
    answer = await (await select_tools(manager)).answer("weather__forecast", {"city": "Bern"})
    assert answer.text == '{"sun":true}'


def test_threads_use_a_toolset(server: ToolServer) -> None:
    with PyMcpManager() as manager:
        manager.deploy_server("weather", {"url": server.url, **CALM})
        toolset = select_tools_blocking(manager, names=["forecast"])
        assert [each.name for each in toolset] == ["weather__forecast"]
        assert toolset.call_blocking("weather__forecast", {"city": "Bern"}).text == "Bern: sun"
        assert toolset.answer_blocking("weather__forecast", '{"city": "Ulm"}').text == "Ulm: sun"
        assert toolset.answer_blocking("nothing").is_error
        # On another loop than the manager's.
        assert asyncio.run(toolset.answer("weather__forecast", {"city": "Rom"})).text == "Rom: sun"
    with pytest.raises(NotRunningError):
        toolset.answer_blocking("weather__forecast", {"city": "Bern"})


async def test_a_manager_of_a_loop_has_no_blocking_calls(manager: McpManager) -> None:
    toolset = await select_tools(manager)
    with pytest.raises(NotRunningError, match="PyMcpManager"):
        toolset.answer_blocking("weather__radar")
    with pytest.raises(TypeError, match="must be a McpManager"):
        Toolset("weather", [])  # type: ignore[arg-type]


async def test_a_toolset_of_a_caller_lists_and_calls_for_the_caller() -> None:
    with GuardedServer({"Bearer alice", "Bearer bob"}) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "connect": "lazy"})
            await manager.deploy("b", {"url": server.url, **CALM, "connect": "lazy"})
            alice = await select_tools(manager.for_caller(Caller("alice", auth="alice")), servers=["a"])
            assert [each.name for each in alice] == ["a__echo"]
            result = await alice.call("a__echo", {"text": "x"})
            assert result.meta is not None and result.meta["caller"] == "Bearer alice"
            mallory = await select_tools(manager.for_caller(Caller("mallory", auth="mallory")))
            assert len(mallory) == 0 and set(mallory.missing) == {"a", "b"}


@pytest.mark.parametrize("api", [anthropic_messages, gemini, openai_chat, openai_responses])
async def test_a_reply_that_was_not_awaited_is_no_reply_without_calls(manager: McpManager, api: Any) -> None:
    toolset = await select_tools(manager)
    reply = asyncio.get_running_loop().create_future()
    with pytest.raises(TypeError, match=r"the reply is a .*Future: await it first"):
        await api.answers(toolset, reply)


@pytest.mark.parametrize("offer", ["toolset", "search"])
async def test_middleware_runs_around_each_call_of_a_tool(manager: McpManager, server: ToolServer, offer: str) -> None:
    seen: list[Any] = []

    async def middleware(tool: FleetTool, arguments: Mapping[str, Any], call_next: CallNext) -> CallToolResult:
        seen.append((tool.server_id, tool.tool.name, dict(arguments)))
        if arguments.get("city") == "Ulm":
            return CallToolResult(content=[TextContent(text="nobody approved it")], is_error=True)
        try:
            return await call_next({**arguments, "days": 1})
        except RpcError as error:
            seen.append(error.code)
            raise

    forecast = "weather__forecast"
    if offer == "search":
        tools: Toolset = ToolSearch(manager, middleware=middleware)
        await tools.answer("search_tools", {"query": "forecast"})
        refused = await tools.answer("call_tool", {"name": forecast, "arguments": {"city": "Ulm"}})
    else:
        tools = await select_tools(manager, middleware=middleware)
        refused = await tools.answer(forecast, {"city": "Ulm"})
    assert (refused.text, refused.is_error) == ("nobody approved it", True)
    assert (await tools.call(forecast, {"city": "Ulm"})).is_error
    assert server.called == []
    assert (await tools.answer(forecast, '{"city": "Bern"}')).text == "Bern: sun"
    assert server.called == [("forecast", {"city": "Bern", "days": 1})]
    server.script("tools/call", faults.RpcErrorReply(-32602, "no such city"))
    assert "The arguments are invalid" in (await tools.answer(forecast, {"city": "X"})).text
    # A tool that does not exist is no call of one.
    assert (await tools.answer("weather__snow", {})).is_error
    called = [("weather", "forecast", {"city": city}) for city in ("Ulm", "Ulm", "Bern", "X")]
    assert seen == [*called, -32602]


async def test_middleware_is_a_function_that_returns_a_result(manager: McpManager) -> None:
    wrong: Any = "middleware"
    with pytest.raises(InvalidRequestError, match="Invalid middleware: it must be an async function, not str"):
        ToolSearch(manager, middleware=wrong)

    async def returns_text(tool: FleetTool, arguments: Mapping[str, Any], call_next: CallNext) -> Any:
        return "not approved"

    tools = await select_tools(manager, middleware=returns_text)
    with pytest.raises(TypeError, match="the middleware must return a CallToolResult, not str"):
        await tools.answer("weather__radar", {})
    plain: Any = lambda tool, arguments, call_next: "not approved"  # noqa: E731
    tools = await select_tools(manager, middleware=plain)
    with pytest.raises(TypeError, match="the middleware must be an async function; it returned a str"):
        await tools.answer("weather__radar", {})


@pytest.mark.parametrize("caller", ["a thread", "another loop"])
def test_a_callers_deadline_holds_while_the_managers_loop_is_blocked(server: ToolServer, caller: str) -> None:
    with PyMcpManager() as manager:
        manager.deploy_server("weather", {"url": server.url, **CALM})
        toolset = select_tools_blocking(manager)
        raising = select_tools_blocking(manager, on_error="raise", timeout=0.05)
        search = ToolSearch(manager)
        loop = manager._loop
        assert loop is not None
        with Blocked(loop):
            if caller == "a thread":
                answered = toolset.answer_blocking("weather__radar", {}, timeout=0.05)
                found = search.answer_blocking("search_tools", {"query": "radar"}, timeout=0.05)
                with pytest.raises(DeadlineExceededError):
                    toolset.call_blocking("weather__radar", {}, timeout=0.05)
                with pytest.raises(DeadlineExceededError):
                    raising.answer_blocking("weather__radar")
            else:
                answered = asyncio.run(toolset.answer("weather__radar", {}, timeout=0.05))
                found = asyncio.run(search.answer("search_tools", {"query": "radar"}, timeout=0.05))
                with pytest.raises(DeadlineExceededError):
                    asyncio.run(toolset.call("weather__radar", {}, timeout=0.05))
        for answer in (answered, found):
            assert answer.text == "The tool did not answer in time. The call was not executed. Try again later."
        assert toolset.answer_blocking("weather__radar", {}, timeout=60).text.startswith("rain in the north")
    # What nobody waits for any more is not called.
    assert server.called == [("radar", {})]
