"""The official SDK's client as the observer: faulty servers of both eras are servers to it, and their faults are faults."""

from __future__ import annotations

import asyncio

import pytest
from mcp import Client, StdioServerParameters, types

from mcp_manager.testing import Era, Faults, FaultyServerFactory, Tool

pytestmark = pytest.mark.parametrize("era", ["handshake", "stateless"])


@pytest.mark.parametrize("sse", [False, True], ids=["json", "sse"])
async def test_it_calls_a_faulty_server(faulty_server: FaultyServerFactory, era: Era, sse: bool) -> None:
    server = faulty_server(era, {"book": Tool(description="Book a seat.")}, sse=sse)
    async with Client(server.url) as client:
        assert [(tool.name, tool.description) for tool in (await client.list_tools()).tools] == [
            ("book", "Book a seat.")
        ]
        result = await client.call_tool("book", {"text": "seat 7"})
        assert [block.text for block in result.content if isinstance(block, types.TextContent)] == ["seat 7"]
        server.ledger.assert_executed_once("book")
        server.next(Faults.status(500))
        with pytest.raises(Exception):  # noqa: B017 - whatever the SDK raises
            await client.call_tool("book", {})
        server.next(Faults.stall(after="execution"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.call_tool("book", {"seat": 8}), 0.3)
        server.ledger.assert_executed_once("book", {"seat": 8})


async def test_it_runs_a_faulty_program(faulty_server: FaultyServerFactory, era: Era) -> None:
    program = faulty_server(era, {"book": Tool()}, transport="stdio")
    async with Client(StdioServerParameters(**program.spec)) as client:
        result = await client.call_tool("book", {"text": "seat 7"})
        assert [block.text for block in result.content if isinstance(block, types.TextContent)] == ["seat 7"]
        [entry] = program.ledger.entries
        assert entry.pid in program.pids


async def test_it_is_asked_for_input(faulty_server: FaultyServerFactory, era: Era) -> None:
    asked: list[str] = []

    async def answer(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={})

    server = faulty_server(era, {"book": Tool()})
    server.next(Faults.input_required("Which seat?"))
    async with Client(server.url, elicitation_callback=answer) as client:
        assert not (await client.call_tool("book", {})).is_error
    assert asked == ["Which seat?"]
    server.ledger.assert_executed_once("book")
