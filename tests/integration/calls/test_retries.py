"""Retries over real connections: what a caller sees of a fault, and how often the server was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, failure_of, text_of

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import AuthError, ConnectError, ConnectionLostError, OverloadedError, ProtocolError, RpcError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Fault, Request, ScriptedServer

SWIFT_RETRIES: dict[str, Any] = {**CALM, "retry": {"backoff_s": 0.01, "backoff_max_s": 0.05}}


def with_retry(**retry: Any) -> dict[str, Any]:
    return {**SWIFT_RETRIES, "retry": {**SWIFT_RETRIES["retry"], **retry}}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def other() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[McpManager]:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        yield manager


def texts(server: ScriptedServer) -> list[str]:
    return [each.params["arguments"]["text"] for each in server.requests_of("tools/call")]


async def test_a_call_that_was_refused_is_made_again(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("a", {"url": server.url, **SWIFT_RETRIES})
    server.script("tools/call", faults.Status(429, {"Retry-After": "0"}))
    assert text_of(await manager.execute_raw("a", echo("x"), timeout=5)) == "x"
    assert texts(server) == ["x", "x"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.Reset(), ConnectionLostError),
        (faults.Close(), ConnectionLostError),
        (faults.HalfResponse(), ConnectionLostError),
        (faults.SseTruncated(), ConnectionLostError),
        (faults.Status(502), ConnectionLostError),
        (faults.Status(503), OverloadedError),
        (faults.Status(500), ProtocolError),
        (faults.TruncatedJson(), ProtocolError),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else value.__name__,
)
async def test_a_call_that_may_have_run_is_made_again_only_if_that_is_safe(
    fault: Fault, error: type[Exception], manager: McpManager, server: ScriptedServer
) -> None:
    await manager.deploy("unsafe", {"url": server.url, **SWIFT_RETRIES})
    await manager.deploy("safe", {"url": server.url, **with_retry(tools={"echo": "safe"})})
    server.script("tools/call", fault)
    failure = await failure_of(manager, "unsafe", echo("once"), timeout=5)
    assert isinstance(failure, error)
    assert (failure.delivery, failure.attempts) == ("unknown", 1)
    assert "retry.tools" in str(failure)
    server.script("tools/call", fault)
    assert text_of(await manager.execute_raw("safe", echo("twice"), timeout=5)) == "twice"
    assert texts(server) == ["once", "twice", "twice"]


async def test_reading_is_always_safe(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("a", {"url": server.url, **SWIFT_RETRIES})
    server.script("tools/list", faults.Reset(), times=2)
    assert [tool.name for tool in await manager.list_tools("a", timeout=5)] == ["echo"]
    assert len(server.requests_of("tools/list")) == 3


async def test_another_instance_takes_what_one_refuses(
    manager: McpManager, server: ScriptedServer, other: ScriptedServer
) -> None:
    await manager.deploy("a", {"url": [server.url, other.url], "instances": 2, **SWIFT_RETRIES})
    for each in (server, other):
        each.script_always("tools/call", None)
    server.script_always("tools/call", faults.Status(429, {"Retry-After": "30"}))
    for number in range(5):
        assert text_of(await manager.execute_raw("a", echo(f"call {number}"), timeout=2)) == f"call {number}"
    assert other.executed.count("call 4") == 1
    # It asked for a pause, once.
    assert len(texts(server)) <= 1


async def test_a_page_of_a_list_comes_from_whoever_answers(
    manager: McpManager, server: ScriptedServer, other: ScriptedServer
) -> None:
    await manager.deploy("a", {"url": [server.url, other.url], "instances": 2, **SWIFT_RETRIES})
    server.script("tools/list", faults.Reset())
    other.script("tools/list", faults.Reset())
    assert [tool.name for tool in await manager.list_tools("a", timeout=5)] == ["echo"]


async def test_annotations_count_once_listed_and_trusted(manager: McpManager, server: ScriptedServer) -> None:
    tool = {"name": "echo", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}
    for server_id, retry in (("trusted", {"trust_annotations": True}), ("untrusted", {})):
        await manager.deploy(server_id, {"url": server.url, **with_retry(**retry)})
    server.script("tools/call", faults.Reset())
    before = await failure_of(manager, "trusted", echo("before"), timeout=5)
    assert before.attempts == 1
    for server_id in ("trusted", "untrusted"):
        server.script("tools/list", faults.Result({"tools": [tool]}))
        await manager.list_tools(server_id)
    server.script("tools/call", faults.Reset())
    assert text_of(await manager.execute_raw("trusted", echo("x"), timeout=5)) == "x"
    server.script("tools/call", faults.Reset())
    assert (await failure_of(manager, "untrusted", echo("y"), timeout=5)).attempts == 1
    assert texts(server) == ["before", "x", "x", "y"]


async def test_progress_goes_on_from_another_attempt(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("a", {"url": server.url, **SWIFT_RETRIES})
    told: list[float] = []

    class Reports:
        async def play(self, connection: Connection, request: Request | None) -> None:
            assert request is not None
            token = request.params["_meta"]["progressToken"]
            before = [
                {"method": "notifications/progress", "params": {"progressToken": token, "progress": progress}}
                for progress in (1, 2)
            ]
            messages = tuple({"jsonrpc": "2.0", **each} for each in before)
            await faults.SseEvents(before=messages).play(connection, request)

    server.script("tools/list", faults.Reset(), Reports())
    await manager.request("a", "tools/list", on_progress=lambda progress, *_: told.append(progress), timeout=5)
    assert told == [1, 2]
    tokens = [each.params["_meta"]["progressToken"] for each in server.requests_of("tools/list")]
    assert len(tokens) == 2 and len(set(tokens)) == 1


async def test_a_server_that_is_down_is_tried_as_often_as_configured(
    manager: McpManager, server: ScriptedServer
) -> None:
    await manager.deploy("a", {"url": server.url, **with_retry(attempts=4)})
    server.refuse_connections()
    error = await failure_of(manager, "a", echo("x"), timeout=5)
    assert isinstance(error, (ConnectError, ConnectionLostError))
    if isinstance(error, ConnectError):
        assert error.attempts == 4
    server.listen()
    assert text_of(await manager.execute_raw("a", echo("back"), timeout=5)) == "back"


async def test_credentials_are_not_tried_again(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("a", {"url": server.url, **SWIFT_RETRIES})
    server.script("tools/list", faults.Status(401))
    with pytest.raises(AuthError):
        await manager.list_tools("a", timeout=5)
    assert len(server.requests_of("tools/list")) == 1


async def test_an_error_that_the_server_answers_is_its_answer(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("a", {"url": server.url, **SWIFT_RETRIES})
    server.script("tools/list", faults.RpcErrorReply(-32603))
    with pytest.raises(RpcError):
        await manager.list_tools("a", timeout=5)
    assert len(server.requests_of("tools/list")) == 1


async def test_whoever_is_cancelled_between_attempts_asks_no_more(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("a", {"url": server.url, **CALM, "retry": {"backoff_s": 30.0, "backoff_max_s": 30.0}})
    server.script("tools/call", faults.Status(429))
    call = asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=60))
    await server.wait_for("tools/call")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert texts(server) == ["x"]
