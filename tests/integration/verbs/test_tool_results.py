"""Results of tools as callers get them: decoded into their types, failures raised on demand, arguments from objects."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import attrs
import msgspec
import pydantic
import pytest
from support.calls import CALM

from mcp_manager import Caller, InvalidRequestError, McpManager, ProtocolError, Selector, ToolError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

SECRET = "tok-0123456789abcdef"
WRAPPING = {"type": "object", "properties": {"result": {"type": "integer"}}, "x-fastmcp-wrap-result": True}


@dataclasses.dataclass
class Sum:
    total: int


class SumStruct(msgspec.Struct):
    total: int


@attrs.define
class SumAttrs:
    total: int


class SumModel(pydantic.BaseModel):
    total: int = pydantic.Field(alias="Total")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def manager(server: ScriptedServer) -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        auth = {"type": "bearer", "token": SECRET}
        await manager.deploy("one", {"url": server.url, "auth": auth, "tags": ["sums"], **CALM})
        yield manager


def script(server: ScriptedServer, **members: Any) -> None:
    server.script("tools/call", faults.Result({"content": [], **members}))


def arguments_sent(server: ScriptedServer) -> Any:
    return server.requests_of("tools/call")[-1].message["params"]["arguments"]


async def test_every_way_to_call_a_tool_decodes(manager: McpManager, server: ScriptedServer) -> None:
    calls = (
        lambda: manager.call_tool("one", "echo", into=Sum),
        lambda: manager.call_tool(Selector(tag="sums"), "echo", into=Sum),
        lambda: manager.call_fleet_tool("one__echo", into=Sum),
        lambda: manager.for_caller(Caller("ada")).call_tool("one", "echo", into=Sum),
    )
    for call in calls:
        script(server, structuredContent={"total": 3})
        assert (await call()).data == Sum(3)
    script(server, structuredContent={"total": 3})
    assert (await manager.call_tool("one", "echo")).data == {"total": 3}


async def test_large_data_is_decoded_too(manager: McpManager, server: ScriptedServer) -> None:
    script(server, structuredContent={"result": [{"total": each} for each in range(30_000)]})
    result = await manager.call_tool("one", "echo", into=list[Sum])
    assert len(result.data) == 30_000 and result.data[-1] == Sum(29_999)


async def test_data_of_another_type_is_an_answer_that_is_wrong(manager: McpManager, server: ScriptedServer) -> None:
    script(server, structuredContent={"total": "x"})
    with pytest.raises(ProtocolError, match=r"'echo' is not of type Sum: .*`\$\.total`") as caught:
        await manager.call_tool("one", "echo", into=Sum)
    assert (caught.value.server_id, caught.value.delivery) == ("one", "answered")
    script(server, content=[{"type": "text", "text": f"[{'1,' * 300_000}1]"}])
    with pytest.raises(ProtocolError, match="too large") as caught:
        await manager.call_tool("one", "echo", into=list[int])
    assert (caught.value.server_id, caught.value.delivery) == ("one", "answered")


async def test_no_error_quotes_a_secret(manager: McpManager, server: ScriptedServer) -> None:
    class Strict(pydantic.BaseModel):
        @pydantic.model_validator(mode="before")
        @classmethod
        def _refuse(cls, value: Any) -> Any:
            raise ValueError(f"got {value}")

    script(server, structuredContent={"key": SECRET})
    with pytest.raises(ProtocolError, match=r"got .*\*\*\*") as caught:
        await manager.call_tool("one", "echo", into=Strict)
    assert SECRET not in str(caught.value)
    script(server, isError=True, content=[{"type": "text", "text": f"401 for {SECRET}"}])
    result = await manager.call_tool("one", "echo", into=Sum)
    with pytest.raises(ToolError) as failed:
        _ = result.data
    assert str(failed.value) == "Tool 'echo' on server 'one' failed: 401 for ***"
    assert failed.value.result is result


async def test_an_error_quotes_only_the_beginning_of_what_does_not_fit(
    manager: McpManager, server: ScriptedServer
) -> None:
    class Closed(pydantic.BaseModel, extra="forbid"):
        pass

    script(server, structuredContent={f"{'x' * 190}{SECRET}\x1b[2J{'y' * 1_000_000}": 1})
    for kind in (Closed, Literal["a"]):
        with pytest.raises(ProtocolError, match="is not of type") as caught:
            await manager.call_tool("one", "echo", into=kind)
        assert len(str(caught.value)) < 1000 and "tok-" not in str(caught.value) and "\x1b" not in str(caught.value)
        script(server, content=[{"type": "text", "text": f"{'x' * 470}{SECRET}\x1b[2J{'y' * 1_000_000}"}])


async def test_the_error_of_a_failed_tool_can_be_pickled_whatever_type_was_wanted(
    manager: McpManager, server: ScriptedServer
) -> None:
    class Local(msgspec.Struct):
        total: int

    script(server, isError=True, content=[{"type": "text", "text": "no"}])
    with pytest.raises(ToolError) as caught:
        (await manager.call_tool("one", "echo", into=Local)).raise_for_error()
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.result == caught.value.result


async def test_a_type_that_is_none_is_refused_before_anything_is_sent(
    manager: McpManager, server: ScriptedServer
) -> None:
    before = len(server.requests)
    for call in (manager.call_tool("one", "echo", into=object), manager.call_fleet_tool("one__echo", into=object)):
        with pytest.raises(InvalidRequestError, match="into=object"):
            await call
    assert len(server.requests) == before


async def test_a_schema_says_that_data_is_wrapped(manager: McpManager, server: ScriptedServer) -> None:
    tools = [{"name": "echo", "inputSchema": {}, "outputSchema": WRAPPING}]
    server.script_always("tools/list", faults.Result({"tools": tools}))
    script(server, structuredContent={"result": 3})
    assert (await manager.call_tool("one", "echo")).data == {"result": 3}
    await manager.list_tools("one")
    script(server, structuredContent={"result": 3})
    assert (await manager.call_tool("one", "echo")).data == 3


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (Sum(3), {"total": 3}),
        (SumStruct(3), {"total": 3}),
        (SumAttrs(3), {"total": 3}),
        (SumModel(Total=3), {"Total": 3}),
        ({"inner": Sum(3)}, {"inner": {"total": 3}}),
    ],
)
async def test_arguments_may_be_objects(
    manager: McpManager, server: ScriptedServer, arguments: Any, sent: dict[str, Any]
) -> None:
    script(server)
    await manager.call_tool("one", "echo", arguments)
    assert arguments_sent(server) == sent


@pytest.mark.parametrize("arguments", [3, "x", [1], Sum, object()])
async def test_what_has_no_named_fields_is_no_arguments(
    manager: McpManager, server: ScriptedServer, arguments: Any
) -> None:
    before = len(server.requests)
    with pytest.raises(InvalidRequestError, match="arguments"):
        await manager.call_tool("one", "echo", arguments)
    assert len(server.requests) == before


async def test_results_of_tasks_raise_too(manager: McpManager, server: ScriptedServer) -> None:
    failed = {"isError": True, "content": [{"type": "text", "text": json.dumps({"why": SECRET})}]}
    server.script("tasks/result", faults.Result(failed))
    with pytest.raises(ToolError, match=r"A tool on server 'one' failed: .*\*\*\*"):
        (await manager.task_result("one", "1")).raise_for_error()
