"""Which tools a model sees: by server, tag, name, search and budget; and two tools in place of a thousand."""

from __future__ import annotations

import asyncio
import difflib
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from support.calls import CALM
from support.tool_server import ToolServer, text_result, weather

from mcp_manager import Caller, FleetTool, InvalidRequestError, McpManager, PyMcpManager, ServerNotFoundError
from mcp_manager.adapters import ToolSearch, select_tools, select_tools_blocking, tool_index
from mcp_manager.adapters.token_budget import estimated_tokens

OFFICE: list[dict[str, Any]] = [
    {
        "name": "createCalendarEvent",
        "description": "Add an appointment.",
        "inputSchema": {"type": "object", "properties": {"attendee": {"type": "string", "description": "an email"}}},
    },
    {"name": "delete_file", "description": "Delete a file.", "inputSchema": {"type": "object"}},
    {"name": "list_files", "description": "List all files of a folder.", "inputSchema": {"type": "object"}},
]


@pytest.fixture
def servers() -> Iterator[tuple[ToolServer, ToolServer]]:
    with weather() as first, ToolServer(OFFICE) as second:
        yield first, second


@pytest.fixture
async def manager(servers: tuple[ToolServer, ToolServer]) -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        await manager.deploy("weather", {"url": servers[0].url, "tags": ["public", "eu"], **CALM})
        await manager.deploy("office", {"url": servers[1].url, "tags": ["eu"], **CALM})
        yield manager


async def names_of(manager: McpManager, **selection: Any) -> list[str]:
    return [each.name for each in await select_tools(manager, **selection)]


async def test_conditions_narrow_the_choice(manager: McpManager) -> None:
    assert len(await names_of(manager)) == 6
    assert await names_of(manager, servers=["office"], names=["*_file*"]) == [
        "office__delete_file",
        "office__list_files",
    ]
    assert await names_of(manager, tags=["public", "eu"], exclude=["fail", "weather__r*"]) == ["weather__forecast"]
    assert await names_of(manager, tags=["public"], servers=["office"]) == []
    assert await names_of(manager, tags=["nowhere"]) == []
    assert await names_of(manager, names=["radar", "list_files"]) == ["office__list_files", "weather__radar"]
    assert await names_of(manager, limit=2) == ["office__createCalendarEvent", "office__delete_file"]
    with pytest.raises(ServerNotFoundError):
        await names_of(manager, servers=["nowhere"])


@pytest.mark.parametrize(
    "selection",
    [{"names": [3]}, {"tags": [["eu"]]}, {"exclude": [None]}, {"max_tokens": 9, "count_tokens": 3}, {"servers": "eu"}],
)
async def test_conditions_of_a_wrong_type_are_refused(manager: McpManager, selection: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        await select_tools(manager, **selection)
    answer = await ToolSearch(manager, **selection).answer("search_tools", {"query": "file"})
    assert isinstance(answer.error, InvalidRequestError)


async def test_a_search_goes_on_without_a_server_that_is_undeployed(manager: McpManager) -> None:
    search = ToolSearch(manager, servers=["weather", "office"])
    assert "delete_file" in (await search.answer("search_tools", {"query": "delete file"})).text
    await manager.undeploy("office")
    found = await search.answer("search_tools", {"query": "file forecast"})
    assert not found.is_error and "weather__forecast" in found.text and "delete_file" not in found.text
    assert (await search.answer("call_tool", {"name": "weather__forecast", "arguments": {"city": "Ulm"}})).text == (
        "Ulm: sun"
    )
    gone = await search.answer("call_tool", {"name": "office__delete_file", "arguments": {}})
    assert gone.is_error and "not found" in gone.text


async def test_a_query_ranks_by_name_description_and_parameters(manager: McpManager) -> None:
    assert (await names_of(manager, query="calendar events"))[0] == "office__createCalendarEvent"
    assert await names_of(manager, query="email") == ["office__createCalendarEvent"]
    assert await names_of(manager, query="attendees") == ["office__createCalendarEvent"]
    assert await names_of(manager, query="file folder") == ["office__list_files", "office__delete_file"]
    assert await names_of(manager, query="files", limit=1, exclude=["list_*"]) == ["office__delete_file"]
    assert await names_of(manager, query="bananas") == []


async def test_the_index_is_kept_while_the_tools_stay_the_same(
    manager: McpManager, servers: tuple[ToolServer, ToolServer]
) -> None:
    await names_of(manager, query="file")
    (first,) = tool_index._indexes[manager]
    await names_of(manager, query="radar", names=["weather__*"])
    assert tool_index._indexes[manager] == [first]
    servers[1].tools = OFFICE[:1]
    await manager.redeploy("office", {"url": servers[1].url, **CALM})
    assert await names_of(manager, query="file") == []
    assert len(tool_index._indexes[manager]) == 2


async def test_searches_at_once_share_one_index_also_if_the_first_is_cancelled(
    manager: McpManager, servers: tuple[ToolServer, ToolServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    begun, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Counted(tool_index.ToolIndex):
        def __init__(self, tools: Sequence[FleetTool]) -> None:
            made.append(len(tools))
            loop.call_soon_threadsafe(begun.set)
            may_end.wait(10)
            super().__init__(tools)

    monkeypatch.setattr(tool_index, "ToolIndex", Counted)
    servers[1].tools = [{"name": f"tool_{number}", "inputSchema": {}} for number in range(300)]
    await manager.redeploy("office", {"url": servers[1].url, **CALM})
    try:
        first = asyncio.create_task(names_of(manager, query="radar"))
        await begun.wait()
        others = [asyncio.create_task(names_of(manager, query="radar")) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    finally:
        may_end.set()
    assert await asyncio.gather(*others) == [["weather__radar"]] * 5
    # The one that was cancelled, and one for all others.
    assert made == [303, 303]


async def test_a_mistaken_name_is_compared_with_few_of_many(
    manager: McpManager, servers: tuple[ToolServer, ToolServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def compare(name: str, names: list[str], n: int) -> list[str]:
        compared.append(len(names))
        return difflib_matches(name, names, n=n)

    difflib_matches = difflib.get_close_matches
    servers[1].tools = [{"name": f"tool_{number}_of_many", "inputSchema": {}} for number in range(3_000)]
    await manager.redeploy("office", {"url": servers[1].url, **CALM})
    toolset = await select_tools(manager)
    monkeypatch.setattr(difflib, "get_close_matches", compare)
    answer = await toolset.answer("office__tol_2718_of_many")
    assert "did you mean office__tool_2718_of_many?" in answer.text
    assert compared[0] <= 200


async def test_a_budget_of_tokens_holds_for_all_definitions_together(manager: McpManager) -> None:
    sizes: dict[str, int] = {}

    def count(text: str) -> int:
        sizes[json.loads(text)["name"]] = len(text)
        return len(text)

    everything = await names_of(manager, max_tokens=100_000, count_tokens=count)
    assert len(everything) == 6 and set(sizes) == set(everything)
    first, second = everything[:2]
    assert await names_of(manager, max_tokens=sizes[first] + sizes[second], count_tokens=count) == [first, second]
    # One that does not fit leaves room for smaller ones after it.
    small = min(sizes, key=lambda name: sizes[name])
    assert await names_of(manager, max_tokens=sizes[small], count_tokens=count) == [small]
    assert await names_of(manager, max_tokens=0) == []
    assert 0 < len(await names_of(manager, max_tokens=100)) < 6


async def test_wrong_conditions_are_refused(manager: McpManager) -> None:
    for wrong in (
        {"names": "office__*"},
        {"tags": "eu"},
        {"exclude": 5},
        {"limit": -1},
        {"max_tokens": "many"},
        {"query": 5},
        {"servers": "office"},
    ):
        with pytest.raises(InvalidRequestError, match=next(iter(wrong)).rstrip("s")):
            await names_of(manager, **wrong)
    with pytest.raises(TypeError, match="tag"):
        await names_of(manager, tag=["eu"])


def test_the_estimate_of_tokens_is_a_count_of_pieces() -> None:
    assert estimated_tokens("") == 0 and estimated_tokens("a" * 9) == 2
    assert estimated_tokens("weather forecast") == 2
    assert estimated_tokens('{"a":1}') == 5
    assert estimated_tokens("天気予報") == 4
    assert estimated_tokens('{"text":"天気予報"}') == 8


async def test_a_model_searches_a_thousand_tools_and_calls_one() -> None:
    tools = [
        {
            "name": f"lookup_{number:04}",
            "description": f"Look up record {number}.",
            "inputSchema": {"type": "object", "properties": {"column": {"type": "string"}}},
        }
        for number in range(1_000)
    ]
    with ToolServer(tools, {"lookup_0777": lambda given: text_result(f"found {given}")}) as server:
        async with McpManager() as manager:
            await manager.deploy("records", {"url": server.url, **CALM})
            search = ToolSearch(manager, limit=3, exclude=["*_0778"])
            assert [each.name for each in search] == ["search_tools", "call_tool"]
            found = await search.answer("search_tools", '{"query": "record 777"}')
            said = json.loads(found.text)
            assert said["tools"][0]["name"] == "records__lookup_0777" and len(said["tools"]) == 3
            assert said["tools"][0]["parameters"]["properties"] == {"column": {"type": "string"}}
            for call in (
                ("call_tool", {"name": "records__lookup_0777", "arguments": {"column": "a"}}),
                ("call_tool", {"name": "records__lookup_0777", "arguments": '{"column": "a"}'}),
                ("records__lookup_0777", {"column": "a"}),
            ):
                assert (await search.answer(*call)).text == "found {'column': 'a'}"
            nothing = json.loads((await search.answer("search_tools", {"query": "bananas"})).text)
            assert nothing["tools"] == [] and "999 tools" in nothing["note"]
            for name, arguments, said_text in (
                ("search_tools", {}, "a string"),
                ("call_tool", {"name": 5}, "a string"),
                ("call_tool", {"name": "records__lookup_0778"}, "not found"),
                ("call_tool", {"name": "records__lookup_9999"}, "not found"),
                ("else", {}, "not found"),
            ):
                answer = await search.answer(name, arguments)
                assert answer.is_error and said_text in answer.text
            budget = await ToolSearch(manager, max_tokens=60).answer("search_tools", {"query": "record"})
            assert len(json.loads(budget.text)["tools"]) == 1
            server.tools = []
            await manager.redeploy("records", {"url": server.url, **CALM})
            assert json.loads((await search.answer("search_tools", {"query": "record"})).text)["tools"] == []
    with pytest.raises(TypeError, match="query"):
        ToolSearch(manager, query="x")  # type: ignore[call-arg]


async def test_a_search_says_which_servers_are_missing(manager: McpManager) -> None:
    await manager.deploy("down", {"url": "http://127.0.0.1:9/mcp", **CALM, "connect": "lazy"})
    search = ToolSearch(manager)
    said = json.loads((await search.answer("search_tools", {"query": "file"})).text)
    assert said["not_available_now"] == ["down"] and len(said["tools"]) == 2
    assert set(search.missing) == {"down"}
    unknown = await search.answer("call_tool", {"name": "down__x"})
    # Which server is missing, but neither its address nor the reason.
    assert "down" in unknown.text and "127.0.0.1" not in unknown.text


def test_threads_search_and_choose(servers: tuple[ToolServer, ToolServer]) -> None:
    with PyMcpManager() as manager:
        manager.deploy_server("office", {"url": servers[1].url, "tags": ["eu"], **CALM})
        toolset = select_tools_blocking(manager, tags=["eu"], query="delete")
        assert [each.name for each in toolset] == ["office__delete_file"]
        search = ToolSearch(manager)
        assert len(json.loads(search.answer_blocking("search_tools", {"query": "file"}).text)["tools"]) == 2
        called = search.call_blocking("call_tool", {"name": "office__delete_file", "arguments": {"path": "a"}})
        assert called.text == "{'path': 'a'}"
        own = select_tools_blocking(manager.for_caller(Caller("alice")), names=["list_files"])
        assert own.answer_blocking("office__list_files", {}).text == "{}"
