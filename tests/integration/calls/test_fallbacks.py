"""What a caller gets when every attempt has failed: another server's answer, an old one, or one from the settings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, failure_of, text_of

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import AuthError, ConfigError, ConnectError, ConnectionLostError, OverloadedError
from mcp_manager.session.knowledge.kept_results import KeptResults
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

STATIC = {"content": [{"type": "text", "text": "from the settings"}]}


@pytest.fixture
def servers() -> Iterator[list[ScriptedServer]]:
    with ScriptedServer() as first, ScriptedServer() as second, ScriptedServer() as third:
        yield [first, second, third]


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[McpManager]:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        yield manager


def meta_of(reply: bytes) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(reply)["result"]["_meta"]
    return meta


async def deploy(manager: McpManager, servers: list[ScriptedServer], **of_first: Any) -> None:
    """Deploy the first as ``a`` with a fallback to the others, ``b`` before ``c``."""
    tags = {"tags": ["group"], "fallback": {"tag": "group"}}
    await manager.deploy("a", {"url": servers[0].url, **CALM, **tags, **of_first})
    await manager.deploy("c", {"url": servers[2].url, **CALM, **tags, "priority": 1})
    await manager.deploy("b", {"url": servers[1].url, **CALM, **tags, "priority": 5})


async def test_the_server_of_the_highest_priority_answers_for_another(
    manager: McpManager, servers: list[ScriptedServer]
) -> None:
    await deploy(manager, servers)
    servers[0].script_always("tools/call", faults.Status(401))
    reply = await manager.execute_raw("a", echo("x", 7), timeout=5)
    assert json.loads(reply)["id"] == 7
    assert text_of(reply) == "x"
    assert meta_of(reply) == {"mcp-manager/fallback": "server", "mcp-manager/fallback-server": "b"}
    assert [server.executed for server in servers] == [[], ["x"], []]


async def test_the_next_one_is_asked_and_none_twice(manager: McpManager, servers: list[ScriptedServer]) -> None:
    await deploy(manager, servers)
    for server in servers[:2]:
        server.script_always("tools/call", faults.Status(401))
    assert meta_of(await manager.execute_raw("a", echo("x"), timeout=5))["mcp-manager/fallback-server"] == "c"
    servers[2].script_always("tools/call", faults.Status(401))
    error = await failure_of(manager, "a", echo("y"), timeout=5)
    assert isinstance(error, AuthError)
    assert (error.delivery, error.attempts) == ("rejected", 3)
    assert [len(server.requests_of("tools/call")) for server in servers] == [2, 2, 2]


async def test_what_may_have_run_is_asked_elsewhere_only_if_safe(
    manager: McpManager, servers: list[ScriptedServer]
) -> None:
    await deploy(manager, servers)
    servers[0].script("tools/call", faults.Reset())
    error = await failure_of(manager, "a", echo("once"), timeout=5)
    assert isinstance(error, ConnectionLostError) and error.delivery == "unknown"
    assert [len(server.requests_of("tools/call")) for server in servers] == [1, 0, 0]
    servers[0].script("resources/read", faults.Reset())
    servers[1].script("resources/read", faults.Result({"contents": []}))
    read = json.dumps({"method": "resources/read", "params": {"uri": "x:y"}}).encode()
    assert meta_of(await manager.execute_raw("a", read, timeout=5))["mcp-manager/fallback-server"] == "b"


async def test_an_unsafe_call_ends_with_the_server_that_may_have_run_it(
    manager: McpManager, servers: list[ScriptedServer]
) -> None:
    await deploy(manager, servers)
    servers[0].script("tools/call", faults.Status(429))
    servers[1].script("tools/call", faults.Reset())
    error = await failure_of(manager, "a", echo("once"), timeout=5)
    assert isinstance(error, OverloadedError) and error.delivery == "unknown"
    assert [len(server.requests_of("tools/call")) for server in servers] == [1, 1, 0]


async def test_what_another_server_refuses_is_no_answer(manager: McpManager, servers: list[ScriptedServer]) -> None:
    await deploy(manager, servers)
    servers[0].script_always("tools/call", faults.Status(401))
    servers[1].script("tools/call", faults.RpcErrorReply(-32602))
    assert meta_of(await manager.execute_raw("a", echo("x"), timeout=5))["mcp-manager/fallback-server"] == "c"
    servers[1].script("tools/call", faults.RpcErrorReply(-32603))
    error = await failure_of(manager, "a", echo("y"), timeout=5)
    assert isinstance(error, AuthError) and error.delivery == "unknown"
    assert "y" not in servers[2].executed


@pytest.mark.parametrize("method", ["tools/list", "ping", "logging/setLevel"])
async def test_no_other_server_answers_what_is_about_one(
    method: str, manager: McpManager, servers: list[ScriptedServer]
) -> None:
    await deploy(manager, servers)
    servers[0].script(method, faults.Status(401))
    with pytest.raises(AuthError):
        await manager.request("a", method, {"level": "info"} if method == "logging/setLevel" else None, timeout=5)
    assert [server.requests_of(method) for server in servers[1:]] == [[], []]


async def test_a_result_from_before_is_given_and_marked(manager: McpManager, servers: list[ScriptedServer]) -> None:
    settings = {"retry": {"attempts": 1, "tools": {"echo": "safe"}}, "fallback": {"stale_s": 60.0}}
    await manager.deploy("a", {"url": servers[0].url, **CALM, **settings})
    await manager.call_tool("a", "echo", {"text": "kept"}, on_progress=lambda *_: None)
    await manager.execute_raw("a", echo("quick"))
    servers[0].script_always("tools/call", faults.Reset())
    assert meta_of(await manager.execute_raw("a", echo("quick"), timeout=5))["mcp-manager/fallback"] == "stale"
    reply = await manager.execute_raw("a", echo("kept", 1), timeout=5)
    assert text_of(reply) == "kept"
    meta = meta_of(reply)
    assert meta["mcp-manager/fallback"] == "stale"
    assert 0 <= meta["mcp-manager/stale-age-s"] < 60
    assert isinstance(await failure_of(manager, "a", echo("never asked"), timeout=5), ConnectionLostError)
    assert servers[0].executed == ["kept", "quick"]


async def test_a_result_that_is_too_old_is_not_given(manager: McpManager, servers: list[ScriptedServer]) -> None:
    await manager.deploy("a", {"url": servers[0].url, **CALM, "fallback": {"stale_s": 0.001}})
    await manager.list_tools("a")
    await asyncio.sleep(0.01)
    servers[0].script_always("tools/list", faults.Reset())
    with pytest.raises(ConnectionLostError):
        await manager.list_tools("a", timeout=5)


@pytest.mark.parametrize("failures", [0, 1], ids=["at once", "after a retry"])
async def test_the_result_of_a_call_with_a_key_is_not_kept(
    manager: McpManager, servers: list[ScriptedServer], failures: int
) -> None:
    settings = {"retry": {"attempts": 2, "tools": {"echo": "safe"}}, "fallback": {"stale_s": 60.0}}
    await manager.deploy("a", {"url": servers[0].url, **CALM, **settings})
    for _ in range(failures):
        servers[0].script("tools/call", faults.Reset())
    assert text_of(await manager.execute_raw("a", echo("mine"), key="me", timeout=5)) == "mine"
    servers[0].script_always("tools/call", faults.Status(401))
    for key in ("me", "you", None):
        error = await failure_of(manager, "a", echo("mine"), timeout=5, key=key)
        assert isinstance(error, AuthError)


async def test_what_a_tool_has_done_is_not_claimed_again(manager: McpManager, servers: list[ScriptedServer]) -> None:
    await manager.deploy("a", {"url": servers[0].url, **CALM, "fallback": {"stale_s": 60.0}})
    await manager.execute_raw("a", echo("done"))
    servers[0].script_always("tools/call", faults.Reset())
    assert isinstance(await failure_of(manager, "a", echo("done"), timeout=5), ConnectionLostError)


async def test_results_of_the_settings_come_last(manager: McpManager, servers: list[ScriptedServer]) -> None:
    static = {"tools/call:echo": STATIC, "tools/call": {"content": []}, "prompts/list": {"prompts": []}}
    await manager.deploy("a", {"url": servers[0].url, **CALM, "fallback": {"static": static}})
    servers[0].refuse_connections()
    reply = await manager.execute_raw("a", echo("x", "mine"), timeout=5)
    assert json.loads(reply)["id"] == "mine"
    assert text_of(reply) == "from the settings"
    assert meta_of(reply) == {"mcp-manager/fallback": "static"}
    other = json.dumps({"method": "tools/call", "params": {"name": "other"}}).encode()
    assert json.loads(await manager.execute_raw("a", other, timeout=5))["result"]["content"] == []
    assert await manager.list_prompts("a", timeout=5) == []
    with pytest.raises((ConnectError, ConnectionLostError)):
        await manager.list_tools("a", timeout=5)


async def test_an_answer_needs_no_fallback(manager: McpManager, servers: list[ScriptedServer]) -> None:
    await deploy(manager, servers, fallback={"tag": "group", "stale_s": 60.0, "static": {"tools/call": STATIC}})
    servers[0].script("tools/call", faults.RpcErrorReply(-32603))
    assert json.loads(await manager.execute_raw("a", echo("x"), timeout=5))["error"]["code"] == -32603
    assert "_meta" not in json.loads(await manager.execute_raw("a", echo("y"), timeout=5))["result"]


@pytest.mark.parametrize(
    ("fallback", "where"),
    [
        ({"tag": ""}, "fallback.tag"),
        ({"static": {"": {}}}, "fallback.static"),
        ({"static": {"notifications/cancelled": {}}}, "fallback.static"),
        ({"static": {"tools/call:": {}}}, "fallback.static"),
        ({"static": {"prompts/get:x": {}}}, "fallback.static"),
        ({"static": {"tools/call:x": []}}, "fallback.static"),
        ({"static": {"tools/call:x": {"a": object()}}}, "fallback.static"),
    ],
)
async def test_a_fallback_that_cannot_work_is_refused(fallback: dict[str, Any], where: str) -> None:
    async with McpManager() as manager:
        with pytest.raises(ConfigError, match=where):
            await manager.deploy("a", {"url": "http://127.0.0.1:9/mcp", **CALM, "fallback": fallback})


def test_requests_are_told_apart_by_what_they_ask_for() -> None:
    kept = KeptResults()
    kept.keep("m", b'{"a":1,"b":[1,2],"_meta":{"progressToken":"t"}}', b"{}", 5)
    assert kept.find("m", b'{ "b": [1, 2], "a": 1 }') == (5, b"{}")
    assert kept.find("m", b'{"a":1,"b":[2,1]}') is None
    assert kept.find("n", b'{"a":1,"b":[1,2]}') is None
    assert kept.find("m", b'{"a":1,"b":[1,2],"_meta":{"other":1}}') is None
    assert kept.find("m", b"{") is None


@pytest.mark.parametrize("result", [b'{"isError":true}', b"[]", b'"x"'])
def test_a_failure_is_not_kept(result: bytes) -> None:
    kept = KeptResults()
    kept.keep("m", None, result, 0)
    assert kept.find("m", None) is None


def test_what_is_kept_is_bounded() -> None:
    kept = KeptResults()
    big = b'{"x":"' + b"y" * (1 << 20) + b'"}'
    for number in range(20):
        kept.keep("m", str(number).encode(), big, number)
    found = [number for number in range(20) if kept.find("m", str(number).encode()) is not None]
    assert found == list(range(20 - len(found), 20))
    assert 0 < len(found) * len(big) <= 8 << 20
    for number in range(1500):
        kept.keep("n", str(number).encode(), b"{}", number)
    assert kept.find("n", b"499") is None
    assert kept.find("n", b"500") is not None
    assert kept.find("m", b"19") is None
