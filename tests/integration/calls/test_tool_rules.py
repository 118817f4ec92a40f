"""Allowed and forbidden tools: what is forbidden is in no list, and no way of calling it sends anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from support.calls import CALM, deployed, echo, eventually, text_of, tool_call
from support.certificates import make_context
from support.processes import scripted_stdio, unused_port
from support.stateless_server import StatelessServer
from yarl import URL

from mcp_manager import (
    Caller,
    CallError,
    ConnectError,
    ElicitationRequest,
    Handlers,
    InvalidRequestError,
    ManagerConfig,
    McpManager,
    ProtocolError,
    PyMcpManager,
    Selector,
    ServerConfig,
    TlsConfig,
    ToolNotAllowedError,
    ToolNotFoundError,
    ToolsConfig,
)
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.testing.scripted.listening import stop_listening

DELETE = tool_call("delete", {"text": "gone"})
NAMES = ("delete", "delete_all", "echo", "read")
TOOLS = [{"name": each, "inputSchema": {"type": "object"}, "x-own": {"a": 1e3}} for each in NAMES]
RULES = {"deny": ["delete*"]}
CALM_CONFIG: dict[str, Any] = {"connect_timeout_s": 2.0, "shutdown_grace_s": 1.0}
HANDSHAKE = ("server/discover", "initialize", "notifications/initialized")
WAYS: dict[str, Callable[[McpManager], Awaitable[Any]]] = {
    "call_tool": lambda manager: manager.call_tool("a", "delete"),
    "request": lambda manager: manager.request("a", "tools/call", {"name": "delete", "arguments": {}}),
    "execute_raw": lambda manager: manager.execute_raw("a", DELETE),
    "execute_text": lambda manager: manager.execute_text("a", DELETE.decode()),
    "with a key": lambda manager: manager.execute_raw("a", DELETE, key="k"),
    "with progress": lambda manager: manager.call_tool("a", "delete", on_progress=lambda *_: None),
    "as a task": lambda manager: manager.start_task("a", "delete"),
    "by its name in the fleet": lambda manager: manager.call_fleet_tool("a__delete"),
    "by a selector": lambda manager: manager.call_tool(Selector(server_type="mcp"), "delete"),
    "raw by a selector": lambda manager: manager.execute_raw(Selector(server_type="mcp"), DELETE),
    "escaped": lambda manager: manager.execute_text(
        "a", r'{"m\u0065thod":"tools\/c\u0061ll","p\u0061rams":{"n\u0061me":"d\u0065lete"}}'
    ),
    "repeated": lambda manager: manager.execute_text(
        "a", '{"method":"tools/call","params":{"name":"echo","name":"delete"}}'
    ),
    "repeated the other way": lambda manager: manager.execute_text(
        "a", '{"method":"tools/call","params":{"name":"delete","name":"echo"}}'
    ),
    "with a second method": lambda manager: manager.execute_text(
        "a", '{"method":"ping","method":"tools/call","params":{"name":"delete"}}'
    ),
    "with second params": lambda manager: manager.execute_text(
        "a", '{"method":"tools/call","params":{"name":"echo"},"params":{"name":"delete"}}'
    ),
    "in other letters": lambda manager: manager.request("a", "tools/call", {"name": "echo", "Name": "delete"}),
    "without id, null": lambda manager: manager.execute_text(
        "a", '{"id":null,"method":"tools/call","params":{"name":"delete"}}'
    ),
    "as an array": lambda manager: manager.request("a", "tools/call", ["delete", {}]),
    "as a list": lambda manager: manager.request("a", "tools/call", {"name": ["delete"]}),
    "without params": lambda manager: manager.request("a", "tools/call"),
    "with a space": lambda manager: manager.call_tool("a", "echo "),
    "by the method in capitals": lambda manager: manager.request("a", "Tools/CALL", {"name": "delete"}),
    "by the method with NUL": lambda manager: manager.execute_text(
        "a", r'{"method":"tools/call\u0000","params":{"name":"delete"}}'
    ),
    "with NUL": lambda manager: manager.call_tool("a", "echo\x00"),
}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.script_always("tools/list", faults.Result({"tools": TOOLS}))
        yield server


@pytest.fixture
async def manager(server: ScriptedServer) -> AsyncIterator[McpManager]:
    async with deployed(server, tools=RULES) as manager:
        yield manager


@pytest.fixture
async def bare(server: ScriptedServer) -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        yield manager


def names_in(reply: bytes | str) -> list[str]:
    return [each["name"] for each in json.loads(reply)["result"]["tools"]]


# Calls


@pytest.mark.parametrize("way", WAYS)
async def test_no_way_of_calling_a_forbidden_tool_sends_anything(
    manager: McpManager, server: ScriptedServer, way: str
) -> None:
    with pytest.raises(ToolNotAllowedError) as caught:
        await WAYS[way](manager)
    assert all(each.method in (None, "tools/list", *HANDSHAKE) for each in server.requests)
    error = caught.value
    assert (error.server_id, error.delivery, error.retryable, error.attempts) == ("a", "not_sent", False, 0)
    assert "tools" in error.hint
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.hint, again.delivery) == (str(error), error.hint, "not_sent")


@pytest.mark.parametrize("way", ["call_tool", "request", "execute_raw", "with a key", "with progress", "by a selector"])
async def test_the_same_calls_are_sent_without_rules(bare: McpManager, server: ScriptedServer, way: str) -> None:
    await bare.deploy("a", {"url": server.url, **CALM})
    await WAYS[way](bare)
    assert [each.params["name"] for each in server.requests_of("tools/call")] == ["delete"]


async def test_the_error_names_the_tool_and_the_setting(bare: McpManager, server: ScriptedServer) -> None:
    await bare.deploy("a", {"url": server.url, **CALM, "tools": {"allow": ["d*", "echo"], "deny": ["delete*"]}})
    with pytest.raises(ToolNotAllowedError, match=r"'delete' is forbidden .*tools.deny has 'delete\*'"):
        await bare.call_tool("a", "delete")
    with pytest.raises(ToolNotAllowedError, match=r"'read' is forbidden .*tools.allow does not have it"):
        await bare.call_tool("a", "read")


async def test_what_is_permitted_passes_as_it_is(manager: McpManager, server: ScriptedServer) -> None:
    odd = '{"id": 7, "method": "tools/call", "params": { "n\\u0061me" : "echo" , "arguments":{"text":"\\ud83d x"} } }'
    assert json.loads(await manager.execute_text("a", odd))["id"] == 7
    assert b'{ "n\\u0061me" : "echo" , "arguments":{"text":"\\ud83d x"} }' in server.requests_of("tools/call")[0].body
    assert (await manager.call_tool("a", "echo", {"text": "y"})).text == "y"


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("lanes", [True, False])
async def test_rules_refuse_no_params_for_their_depth(server: ScriptedServer, lanes: bool) -> None:
    async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
        await manager.deploy("a", {"url": server.url, **CALM, "tools": RULES})
        for levels in (400, 509, 600, 900):
            assert (await manager.call_tool("a", "echo", {"text": "x", "deep": nested(levels)})).text == "x"


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("kind", [ScriptedServer, StatelessServer])
@pytest.mark.parametrize("key", [None, "k"])
async def test_members_that_the_manager_adds_are_not_counted(
    kind: type[ScriptedServer | StatelessServer], lanes: bool, key: str | None
) -> None:
    trace = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    params = {"name": "echo", "arguments": {"text": "x"}, **{f"m{number}": 1 for number in range(62)}}
    with kind() as server:
        async with McpManager(ManagerConfig(http_lanes=lanes), trace_context=lambda: trace) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "tools": RULES})
            await manager.request("a", "tools/call", params, key=key)
            await manager.request("a", "tools/call", {**params, "_meta": {"own": 1}}, key=key)
            with pytest.raises(ToolNotAllowedError, match="more than 64 members"):
                await manager.request("a", "tools/call", {**params, "more": 1}, key=key)
        sent = server.requests_of("tools/call")
        assert [len(each.params) for each in sent] == [65, 65]
        assert all(each.params["_meta"] for each in sent)


@pytest.mark.parametrize("frame", [b"[%b]" % DELETE, DELETE + DELETE, b'{"method":"ping"}\n' + DELETE])
async def test_several_messages_at_once_are_refused(manager: McpManager, server: ScriptedServer, frame: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        await manager.execute_raw("a", frame)
    assert server.requests_of("tools/call") == []


async def test_an_empty_list_allows_nothing(bare: McpManager, server: ScriptedServer) -> None:
    await bare.deploy("a", {"url": server.url, **CALM, "tools": {"allow": []}})
    assert await bare.list_tools("a") == []
    with pytest.raises(ToolNotAllowedError):
        await bare.execute_raw("a", echo("x"))
    assert server.executed == []


async def test_a_forbidden_call_counts_neither_against_the_server_nor_in_metrics(
    bare: McpManager, server: ScriptedServer
) -> None:
    breaker = {"consecutive_failures": 1, "min_calls": 1}
    await bare.deploy("a", {"url": server.url, **CALM, "breaker": breaker, "tools": RULES})
    for way in WAYS.values():
        with pytest.raises(ToolNotAllowedError):
            await way(bare)
    assert 'method="tools/call"' not in bare.metrics_text()
    assert bare.server("a").circuit == "Closed"
    assert all(record.method != "tools/call" for record in bare.flight_records())


async def test_rules_and_rates_of_a_tool_hold_together(bare: McpManager, server: ScriptedServer) -> None:
    limits = {"tools": {"echo": {"rate": 0.001, "burst": 1}}}
    await bare.deploy("a", {"url": server.url, **CALM, "tools": RULES, "limits": limits})
    await bare.execute_raw("a", echo("x"))
    with pytest.raises(CallError, match=r"limits\.tools"):
        await bare.execute_raw("a", echo("y"))
    with pytest.raises(ToolNotAllowedError):
        await bare.execute_raw("a", DELETE)
    assert server.executed == ["x"]


def test_threads_get_the_same_error(server: ScriptedServer) -> None:
    with PyMcpManager() as manager:
        manager.deploy_server("a", {"url": server.url, **CALM, "tools": RULES})
        with pytest.raises(ToolNotAllowedError):
            manager.execute("a", DELETE.decode())
        assert names_in(manager.execute("a", '{"method":"tools/list"}')) == ["echo", "read"]
    assert server.requests_of("tools/call") == []


async def test_a_program_is_not_called_either(bare: McpManager) -> None:
    await bare.deploy("a", {**scripted_stdio().config(), **CALM, "tools": {"deny": ["echo"]}})
    with pytest.raises(ToolNotAllowedError):
        await bare.execute_raw("a", echo("x"))
    assert await bare.list_tools("a") == []


# Lists


async def test_forbidden_tools_are_in_no_list(manager: McpManager) -> None:
    assert [tool.name for tool in await manager.list_tools("a")] == ["echo", "read"]
    assert [tool.name for tool in (await manager.list_all_tools()).tools] == ["a__echo", "a__read"]
    assert names_in(await manager.execute_raw("a", b'{"method":"tools/list"}')) == ["echo", "read"]
    assert names_in(await manager.execute_text("a", '{"id":"x","method":"tools/list"}', key="k")) == ["echo", "read"]
    listed = await manager.request("a", "tools/list", on_progress=lambda *_: None)
    assert [each["name"] for each in listed["tools"]] == ["echo", "read"]
    with pytest.raises(ToolNotAllowedError, match="'delete' is forbidden"):
        await manager.call_fleet_tool("a__delete")
    with pytest.raises(ToolNotFoundError):
        await manager.call_fleet_tool("a__writ")


async def test_everything_else_in_a_list_stays_byte_for_byte(manager: McpManager, server: ScriptedServer) -> None:
    page = {"nextCursor": "2", "_meta": {"x": [1.50, "\u00e9"]}, "tools": TOOLS, "ttlMs": 5}
    server.script("tools/list", faults.Result(page))
    reply = await manager.execute_raw("a", b'{"id":9,"method":"tools/list"}')
    kept = json.dumps(TOOLS[2]).encode()
    assert kept in reply and json.dumps(page["_meta"]).encode() in reply
    assert json.loads(reply) == {"jsonrpc": "2.0", "id": 9, "result": {**page, "tools": TOOLS[2:]}}


async def test_a_list_without_forbidden_tools_is_passed_on_untouched(
    manager: McpManager, server: ScriptedServer
) -> None:
    server.script("tools/list", faults.Result({"tools": TOOLS[2:]}), times=2)
    reply = await manager.execute_raw("a", b'{"id":9,"method":"tools/list"}')
    assert json.dumps({"tools": TOOLS[2:]}).encode() in reply


@pytest.mark.parametrize("instances", [1, 2])
async def test_pages_are_filtered_one_by_one(bare: McpManager, server: ScriptedServer, instances: int) -> None:
    await bare.deploy("a", {"url": server.url, **CALM, "tools": RULES, "instances": instances})
    for number, tool in enumerate(TOOLS):
        more = {} if number == 3 else {"nextCursor": str(number)}
        server.script("tools/list", faults.Result({"tools": [tool], **more}))
    assert [tool.name for tool in await bare.list_tools("a")] == ["echo", "read"]
    assert [(each.params or {}).get("cursor") for each in server.requests_of("tools/list")] == [None, "0", "1", "2"]


@pytest.mark.parametrize("sse", [False, True])
async def test_kept_lists_of_stateless_servers_are_filtered_too(bare: McpManager, sse: bool) -> None:
    result = {"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "private", "tools": TOOLS}
    with StatelessServer(results={"tools/list": result}, sse=sse) as server:
        await bare.deploy("a", {"url": server.url, **CALM, "tools": RULES})
        for _ in range(2):
            reply = json.loads(await bare.execute_raw("a", b'{"method":"tools/list"}'))["result"]
            assert reply.items() >= {**result, "tools": TOOLS[2:]}.items()
            assert [tool.name for tool in await bare.list_tools("a")] == ["echo", "read"]
        assert len(server.requests_of("tools/list")) == 1
        with pytest.raises(ToolNotAllowedError):
            await bare.call_tool("a", "delete")
        await bare.redeploy("a", {"url": server.url, **CALM, "tools": {"deny": ["read"]}})
        assert [tool.name for tool in await bare.list_tools("a")] == ["delete", "delete_all", "echo"]
        await bare.undeploy("a")


@pytest.mark.parametrize("result", [{"tools": 5}, {"tools": {"delete": {}}}, ["delete"], {"tools": "delete"}])
async def test_a_list_that_cannot_be_read_is_not_passed_on(
    manager: McpManager, server: ScriptedServer, result: Any
) -> None:
    server.script("tools/list", faults.Result(result))
    with pytest.raises(ProtocolError, match="malformed, so the forbidden ones cannot be left out") as caught:
        await manager.execute_raw("a", b'{"method":"tools/list"}')
    assert caught.value.delivery == "answered"


async def test_a_list_beyond_the_limits_names_the_limit(bare: McpManager, server: ScriptedServer) -> None:
    server.script_always("tools/list", faults.Result({"tools": TOOLS * 2_000}))
    await bare.deploy("a", {"url": server.url, **CALM, "tools": RULES, "max_response_values": 1_000})
    with pytest.raises(ProtocolError, match="raise max_response_values"):
        await bare.execute_raw("a", b'{"method":"tools/list"}')
    await bare.redeploy("a", {"url": server.url, **CALM, "tools": RULES})
    assert names_in(await bare.execute_raw("a", b'{"method":"tools/list"}')) == ["echo", "read"] * 2_000


async def test_entries_without_a_name_are_left_out(manager: McpManager, server: ScriptedServer) -> None:
    server.script("tools/list", faults.Result({"tools": [{"nam": "delete"}, "delete", None, *TOOLS]}))
    assert names_in(await manager.execute_raw("a", b'{"method":"tools/list"}')) == ["echo", "read"]


async def test_errors_and_other_methods_are_passed_on(manager: McpManager, server: ScriptedServer) -> None:
    server.script("tools/list", faults.RpcErrorReply(-32603))
    assert json.loads(await manager.execute_raw("a", b'{"method":"tools/list"}'))["error"]["code"] == -32603
    server.script_always("prompts/list", faults.Result({"tools": TOOLS}))
    assert names_in(await manager.execute_raw("a", b'{"method":"prompts/list"}')) == list(NAMES)


# Fallbacks and selectors


async def test_the_rules_of_a_fallback_server_count(bare: McpManager, server: ScriptedServer) -> None:
    gone = {"url": f"http://127.0.0.1:{unused_port()}/mcp", **CALM, "tags": ["t"], "fallback": {"tag": "t"}}
    await bare.deploy("a", gone)
    await bare.deploy("strict", {"url": server.url, **CALM, "tags": ["t"], "tools": RULES, "priority": 9})
    with pytest.raises(ConnectError) as caught:
        await bare.execute_raw("a", DELETE, timeout=5)
    assert (caught.value.attempts, caught.value.delivery) == (1, "not_sent")
    assert server.requests_of("tools/call") == []
    await bare.deploy("free", {"url": server.url, **CALM, "tags": ["t"]})
    assert text_of(await bare.execute_raw("a", DELETE, timeout=5)) == "gone"
    assert server.executed == ["gone"]


async def test_nothing_stands_in_for_a_forbidden_call(bare: McpManager, server: ScriptedServer) -> None:
    static: dict[str, Any] = {"tools/call:delete": {"content": []}, "tools/call": {"content": []}}
    fallback = {"static": static, "stale_s": 60.0}
    await bare.deploy("a", {"url": server.url, **CALM, "tools": RULES, "fallback": fallback})
    with pytest.raises(ToolNotAllowedError):
        await bare.execute_raw("a", DELETE)


async def test_an_old_list_is_filtered_as_a_fresh_one(bare: McpManager, server: ScriptedServer) -> None:
    await bare.deploy("a", {"url": server.url, **CALM, "tools": RULES, "fallback": {"stale_s": 60.0}})
    await bare.execute_raw("a", b'{"method":"tools/list"}')
    server.script_always("tools/list", faults.Status(503))
    reply = await bare.execute_raw("a", b'{"method":"tools/list"}')
    assert json.loads(reply)["result"]["_meta"]["mcp-manager/fallback"] == "stale"
    assert names_in(reply) == ["echo", "read"]


async def test_a_selector_picks_no_server_that_forbids_the_tool(bare: McpManager, server: ScriptedServer) -> None:
    with ScriptedServer() as free:
        for number in range(20):
            settings = {"tags": ["t"], "tools": RULES, "priority": 1 + number % 5}
            await bare.deploy(f"strict-{number}", {"url": server.url, **CALM, **settings})
        await bare.deploy("free", {"url": free.url, **CALM, "tags": ["t"]})
        for _ in range(5):
            await bare.call_tool(Selector(tag="t"), "delete", {"text": "x"})
            await bare.execute_raw(Selector(tag="t"), DELETE)
        assert len(free.executed) == 10 and server.executed == []
        # The others still take what they permit.
        await bare.call_tool(Selector(tag="t"), "echo", {"text": "y"})
        assert server.executed == ["y"]
        await bare.undeploy("free")
    with pytest.raises(ToolNotAllowedError, match="'delete' is forbidden"):
        await bare.call_tool(Selector(tag="t"), "delete", {"text": "x"})


async def test_a_selector_by_tool_finds_those_that_permit_it(bare: McpManager, server: ScriptedServer) -> None:
    await bare.deploy("strict", {"url": server.url, **CALM, "tools": RULES, "priority": 9})
    await bare.deploy("free", {"url": server.url, **CALM})
    for _ in range(3):
        await bare.call_tool(Selector(tool="delete"), "delete", {"text": "x"})
    assert server.executed == ["x"] * 3
    await bare.redeploy("free", {"url": server.url, **CALM, "tools": RULES})
    with pytest.raises(CallError, match="forbidden"):
        await bare.call_tool(Selector(tool="delete"), "delete", {"text": "x"})
    assert server.executed == ["x"] * 3


# Changes


async def test_a_change_counts_at_once(bare: McpManager, server: ScriptedServer) -> None:
    free = ServerConfig(url=server.url, **CALM_CONFIG)
    await bare.apply(ManagerConfig(servers={"a": free}))
    assert len((await bare.list_all_tools()).tools) == 4
    await bare.call_fleet_tool("a__delete", {"text": "x"})
    strict = ServerConfig(url=server.url, tools=ToolsConfig(deny=("delete*",)), **CALM_CONFIG)
    await bare.apply(ManagerConfig(servers={"a": strict}))
    with pytest.raises(ToolNotAllowedError):
        await bare.call_fleet_tool("a__delete", {"text": "y"})
    assert [tool.name for tool in (await bare.list_all_tools()).tools] == ["a__echo", "a__read"]
    await bare.apply(ManagerConfig(servers={"a": free}))
    await bare.call_fleet_tool("a__delete", {"text": "z"})
    assert server.executed == ["x", "z"]


async def test_a_call_that_waits_meets_the_new_rules(bare: McpManager, server: ScriptedServer) -> None:
    limits = {"max_concurrent": 1, "max_wait_s": 20.0, "max_waiting": 5}
    await bare.deploy("a", {"url": server.url, **CALM, "limits": limits})
    hold = faults.Hold()
    server.script("tools/call", hold)
    running = asyncio.create_task(bare.execute_raw("a", echo("first")))
    await server.wait_for("tools/call")
    waiting = asyncio.create_task(bare.execute_raw("a", echo("second")))
    await eventually(lambda: bool(bare.snapshot().servers[0].waiting), "the second call")
    strict = {"url": server.url, **CALM, "limits": limits, "tools": {"deny": ["echo"]}}
    strict["fallback"] = {"static": {"tools/call": {"content": []}}}
    changing = asyncio.create_task(bare.redeploy("a", strict))
    await eventually(lambda: bare.server("a").tools is not None, "the change")
    hold.release()
    await changing
    assert text_of(await running) == "first"
    with pytest.raises(ToolNotAllowedError):
        await waiting
    assert server.executed == ["first"]
    assert bare.snapshot().servers[0].inflight == 0
    assert 'status="connect_error"' not in bare.metrics_text()


def fleet_of(server: ScriptedServer, **tools: Any) -> ManagerConfig:
    """One server ``a`` over one connection, with these rules."""
    one = ServerConfig(url=server.url, tools=ToolsConfig(**tools), **CALM_CONFIG)
    return ManagerConfig(servers={"a": one}, max_connections=1)


async def test_a_call_that_is_sent_again_on_a_new_session_meets_the_new_rules(
    bare: McpManager, server: ScriptedServer
) -> None:
    await bare.apply(fleet_of(server))
    await bare.execute_raw("a", echo("first"))
    server.expire_sessions()
    hold = faults.Hold()
    server.script("initialize", hold)
    repeated = asyncio.create_task(bare.execute_raw("a", echo("second")))
    await server.wait_for("initialize", 2)
    await bare.apply(fleet_of(server, deny=("echo",)))
    hold.release()
    with pytest.raises(ToolNotAllowedError):
        await repeated
    assert server.executed == ["first"]
    assert bare.snapshot().servers[0].inflight == 0


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("caller", [None, Caller("ann")])
async def test_a_call_that_waits_for_a_connection_meets_the_new_rules(
    server: ScriptedServer, lanes: bool, caller: Caller | None
) -> None:
    async with McpManager(ManagerConfig(max_connections=1, http_lanes=lanes)) as manager:
        await manager.apply(fleet_of(server))
        calls = manager if caller is None else manager.for_caller(caller)
        await calls.execute_raw("a", b'{"method":"ping"}')
        hold = faults.Hold()
        server.script("tools/call", hold)
        running = asyncio.create_task(calls.execute_raw("a", echo("first")))
        await server.wait_for("tools/call")
        waiting = asyncio.create_task(calls.execute_raw("a", echo("second")))
        await eventually(lambda: manager.snapshot().servers[0].inflight == 2, "the second call")
        await manager.apply(fleet_of(server, deny=("echo",)))
        hold.release()
        assert text_of(await running) == "first"
        with pytest.raises(ToolNotAllowedError):
            await waiting
        assert server.executed == ["first"]
        # The connection is of use to the next call.
        await manager.apply(fleet_of(server))
        assert text_of(await calls.execute_raw("a", echo("third"))) == "third"


class Gate:
    """Forward TCP connections to a port; while ``opened`` is clear, new ones are accepted and not forwarded yet."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.opened = asyncio.Event()
        self.opened.set()
        self.held = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_listening(self._server)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.held += not self.opened.is_set()
        await self.opened.wait()
        there = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(_forward(reader, there[1]), _forward(there[0], writer))


async def _forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 16):
            target.write(data)
    with contextlib.suppress(ConnectionError):
        target.close()
        await target.wait_closed()


@pytest.mark.both_loops
@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("caller", [None, Caller("ann")])
async def test_a_call_whose_connection_is_being_made_meets_the_new_rules(
    tmp_path: Path, lanes: bool, caller: Caller | None
) -> None:
    context, authority = make_context(tmp_path)
    with ScriptedServer(tls=context) as server:
        async with Gate(URL(server.url).port or 0) as gate, McpManager(ManagerConfig(http_lanes=lanes)) as manager:

            def fleet(**tools: Any) -> ManagerConfig:
                url = str(URL(server.url).with_port(gate.port))
                tls = TlsConfig(ca_file=str(authority))
                one = ServerConfig(url=url, tls=tls, tools=ToolsConfig(**tools), **CALM_CONFIG)
                return ManagerConfig(http_lanes=lanes, servers={"a": one})

            await manager.apply(fleet())
            calls = manager if caller is None else manager.for_caller(caller)
            await calls.execute_raw("a", b'{"method":"ping"}')
            # The connection there is stays busy, so that the next call needs another one.
            hold = faults.Hold()
            server.script("tools/call", hold)
            running = asyncio.create_task(calls.execute_raw("a", echo("first")))
            await server.wait_for("tools/call")
            gate.opened.clear()
            waiting = asyncio.create_task(calls.execute_raw("a", echo("second")))
            await eventually(lambda: gate.held > 0, "the new connection")
            await manager.apply(fleet(deny=("echo",)))
            gate.opened.set()
            with pytest.raises(ToolNotAllowedError) as caught:
                await waiting
            assert (caught.value.server_id, caught.value.delivery) == ("a", "not_sent")
            hold.release()
            assert text_of(await running) == "first"
            assert server.executed == ["first"]
            assert manager.snapshot().servers[0].inflight == 0
            await manager.apply(fleet())
            assert text_of(await calls.execute_raw("a", echo("third"))) == "third"


async def test_a_call_that_waits_for_its_user_meets_the_new_rules() -> None:
    asked = {"a": {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object"}}}}
    unfinished = {"resultType": "input_required", "inputRequests": asked, "requestState": "s"}
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(server_id: str, request: ElicitationRequest) -> Any:
        is_asked.set()
        await may_answer.wait()
        return request.accept({})

    with StatelessServer(results={"tools/call": unfinished}) as server:
        async with McpManager(handlers=Handlers(elicitation=answer)) as manager:
            await manager.apply(fleet_of(server))
            calling = asyncio.create_task(manager.call_tool("a", "echo", {"text": "x"}))
            await is_asked.wait()
            await manager.apply(fleet_of(server, deny=("echo",)))
            may_answer.set()
            with pytest.raises(ToolNotAllowedError) as caught:
                await calling
        # The server has asked for input, so it knows of the call.
        assert caught.value.delivery == "answered"
        assert len(server.requests_of("tools/call")) == 1


async def test_a_call_that_waits_for_a_program_to_read_meets_the_new_rules(bare: McpManager) -> None:
    program = scripted_stdio().config()

    def fleet(**tools: Any) -> ManagerConfig:
        one = ServerConfig(command=program["command"], args=program["args"], tools=ToolsConfig(**tools), **CALM_CONFIG)
        return ManagerConfig(servers={"a": one})

    await bare.apply(fleet())
    pid = bare.snapshot().servers[0].instances[0].pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        # More than a pipe takes, so that the next message waits.
        running = asyncio.create_task(bare.execute_raw("a", echo("x" * 4_000_000)))
        await eventually(lambda: bare.snapshot().servers[0].inflight == 1, "the first call")
        waiting = asyncio.create_task(bare.execute_raw("a", echo("second")))
        await eventually(lambda: bare.snapshot().servers[0].inflight == 2, "the second call")
        await bare.apply(fleet(deny=("echo",)))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(text_of(await running)) == 4_000_000
    with pytest.raises(ToolNotAllowedError):
        await waiting


# What an operator sees


async def test_views_show_the_rules(manager: McpManager, server: ScriptedServer) -> None:
    await manager.deploy("free", {"url": server.url, **CALM})
    assert manager.server("a").tools == ToolsConfig(deny=("delete*",))
    assert manager.server("free").tools is None
    assert [each.tools for each in manager.snapshot().servers] == [ToolsConfig(deny=("delete*",)), None]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "no tool of the server matches" in each.getMessage()]


async def test_a_rule_that_matches_no_tool_is_told_once_with_what_resembles_it(
    bare: McpManager, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    rules = {"allow": ["echo", "raed", "w?x*"], "deny": ["delte", "delete*", "[!a-z]"]}
    await bare.deploy("a", {"url": server.url, **CALM, "tools": rules})
    for _ in range(2):
        await bare.list_tools("a")
    assert told(caplog) == [
        "server 'a': no tool of the server matches: tools.allow has 'raed' (did you mean 'read'?); "
        "tools.allow has 'w?x*'; tools.deny has 'delte' (did you mean 'delete' or 'delete_all'?); "
        "tools.deny has '[!a-z]'"
    ]
    await bare.redeploy("a", {"url": server.url, **CALM, "tools": {"deny": ["delte"]}})
    await bare.list_tools("a")
    assert len(told(caplog)) == 2


async def test_only_a_whole_list_tells_that_a_rule_matches_nothing(
    bare: McpManager, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await bare.deploy("a", {"url": server.url, **CALM, "tools": {"deny": ["delete", "read", "other"]}})
    pages = [faults.Result({"tools": TOOLS[:2], "nextCursor": "2"}), faults.Result({"tools": TOOLS[2:]})]
    server.script("tools/list", pages[1], pages[0], *pages)
    await bare.request("a", "tools/list", {"cursor": "2"})
    await bare.request("a", "tools/list")
    assert told(caplog) == []
    await bare.list_tools("a")
    assert told(caplog) == ["server 'a': no tool of the server matches: tools.deny has 'other'"]


async def test_rules_that_match_are_not_told(
    manager: McpManager, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await manager.list_tools("a")
    assert told(caplog) == []
