"""Calls to any server that matches: by tag, type and tool, by priority and load, and on to another one in good time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.calls import CALM, echo, text_of
from support.processes import unused_port

from mcp_manager import (
    CallError,
    CircuitOpenError,
    ConnectError,
    DeadlineExceededError,
    InvalidRequestError,
    McpManager,
    OverloadedError,
    ProtocolError,
    PyMcpManager,
    RpcError,
    Selector,
    ServerNotFoundError,
    SessionLostError,
)
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

RED = Selector(tag="red")


@pytest.fixture
def high() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def low() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        yield manager


def gone_url() -> str:
    return f"http://127.0.0.1:{unused_port()}/mcp"


async def deploy(manager: McpManager, server_id: str, url: str, priority: int = 0, **more: Any) -> None:
    settings = {**CALM, "retry": {"attempts": 1}, "tags": ["red"], "priority": priority, **more}
    await manager.deploy(server_id, {"url": url, **settings})


def test_a_selector_says_what_it_wants() -> None:
    assert str(Selector(tag="b", tags=("a", "b"), server_type="t", tool="x")) == (
        "tag 'a', tag 'b', server_type 't', tool 'x'"
    )
    assert Selector(tag="a") == Selector(tags=("a", "a"))
    assert hash(Selector(tags=("b", "a"))) == hash(Selector(tag="a", tags=("b",)))
    with pytest.raises(ValueError, match="needs a tag, a server_type or a tool"):
        Selector()
    with pytest.raises(ValueError, match="sequence of strings"):
        Selector(tags="red")  # type: ignore[arg-type]


async def test_every_verb_that_may_go_anywhere_takes_one(manager: McpManager, high: ScriptedServer) -> None:
    await deploy(manager, "a", high.url)
    assert text_of(await manager.execute_raw(RED, echo("raw"))) == "raw"
    assert text_of(await manager.execute_text(RED, echo("text").decode())) == "text"
    assert (await manager.call_tool(RED, "echo", {"text": "typed"})).text == "typed"
    assert await manager.request(RED, "ping") == {}
    for verb in (
        manager.read_resource(RED, "x://y"),
        manager.get_prompt(RED, "p"),
        manager.complete(RED, {"type": "ref/prompt", "name": "p"}, "a", "v"),
    ):
        with pytest.raises(RpcError) as caught:
            await verb
        assert caught.value.server_id == "a"
    assert await manager.execute_raw(RED, b'{"method":"notifications/x"}') == b"null"


def test_the_bindings_take_one(high: ScriptedServer) -> None:
    with PyMcpManager() as manager:
        manager.deploy_server("a", json.dumps({"url": high.url, "tags": ["red"], **CALM}))
        assert text_of(manager.execute(RED, echo("x").decode())) == "x"
        with pytest.raises(ValueError, match="Server with tag 'blue' not found"):
            manager.execute(Selector(tag="blue"), echo("x").decode())


async def test_the_highest_priority_takes_all_as_long_as_it_is_ready(
    manager: McpManager, high: ScriptedServer, low: ScriptedServer
) -> None:
    await deploy(manager, "low", low.url, 1)
    await deploy(manager, "high", high.url, 9)
    for _ in range(10):
        await manager.call_tool(RED, "echo", {"text": "x"})
    assert (len(high.executed), len(low.executed)) == (10, 0)
    await manager.set_maintenance("high", True)
    await manager.call_tool(RED, "echo", {"text": "spared"})
    assert low.executed == ["spared"]
    await manager.set_maintenance("high", False)
    await manager.call_tool(RED, "echo", {"text": "back"})
    await manager.undeploy("high")
    await manager.call_tool(RED, "echo", {"text": "gone"})
    assert (high.executed[-1], low.executed) == ("back", ["spared", "gone"])


async def test_equals_share_and_the_busier_one_is_spared(
    manager: McpManager, high: ScriptedServer, low: ScriptedServer
) -> None:
    await deploy(manager, "one", high.url)
    await deploy(manager, "two", low.url)
    # At once: one after the other, they would all go to whichever answered the first one sooner.
    await asyncio.gather(*(manager.call_tool(RED, "echo", {"text": "x"}) for _ in range(20)))
    assert high.executed
    assert low.executed
    held = [faults.Hold() for _ in range(8)]
    high.script("tools/call", *held)
    busy = [asyncio.create_task(manager.call_tool("one", "echo", {"text": "held"})) for _ in held]
    await high.wait_until(lambda: len(high.requests_of("tools/call")) - len(high.executed) == len(held))
    before = len(low.executed)
    for _ in range(10):
        await manager.call_tool(RED, "echo", {"text": "x"})
    assert len(low.executed) - before == 10
    for each in held:
        each.release()
    await asyncio.gather(*busy)


async def test_what_was_not_executed_goes_to_another_server(
    manager: McpManager, high: ScriptedServer, low: ScriptedServer
) -> None:
    await deploy(manager, "gone", gone_url(), 9, connect="lazy")
    await deploy(manager, "high", high.url, 5)
    await deploy(manager, "low", low.url, 1)
    assert (await manager.call_tool(RED, "echo", {"text": "x"})).text == "x"
    high.script("tools/call", faults.Status(429))
    assert (await manager.call_tool(RED, "echo", {"text": "y"})).text == "y"
    assert (high.executed, low.executed) == (["x"], ["y"])


async def test_what_may_have_been_executed_goes_nowhere_else(
    manager: McpManager, high: ScriptedServer, low: ScriptedServer
) -> None:
    await deploy(manager, "high", high.url, 5)
    await deploy(manager, "low", low.url, 1)
    high.script("tools/call", faults.Status(500))
    with pytest.raises(ProtocolError) as caught:
        await manager.call_tool(RED, "echo", {"text": "x"})
    assert (caught.value.server_id, caught.value.delivery) == ("high", "unknown")
    assert low.executed == []


async def test_what_does_no_harm_twice_goes_on_even_so(
    manager: McpManager, high: ScriptedServer, low: ScriptedServer
) -> None:
    await deploy(manager, "high", high.url, 5, retry={"attempts": 1, "tools": {"echo": "safe"}})
    await deploy(manager, "low", low.url, 1)
    high.script("tools/call", faults.Reset(), times=3)
    high.script("ping", faults.Reset())
    await manager.call_tool(RED, "echo", {"text": "typed"})
    await manager.execute_raw(RED, echo("raw"))
    await manager.request(RED, "tools/call", {"name": "echo", "arguments": {"text": "plain"}})
    await manager.request(RED, "ping")
    assert (high.executed, low.executed) == ([], ["typed", "raw", "plain"])
    assert len(low.requests_of("ping")) == 1


async def test_no_more_goes_on_than_the_retry_budget_has(
    manager: McpManager, high: ScriptedServer, low: ScriptedServer
) -> None:
    budget = {"budget": {"ratio": 0.0, "min_per_s": 0.0}}
    await deploy(manager, "high", high.url, 5, retry={"attempts": 1, **budget})
    await deploy(manager, "low", low.url, 1)
    high.script("tools/call", faults.Status(429))
    with pytest.raises(OverloadedError) as caught:
        await manager.call_tool(RED, "echo", {"text": "x"})
    assert caught.value.server_id == "high"
    assert low.executed == []


async def test_an_open_circuit_is_passed_by(manager: McpManager, high: ScriptedServer, low: ScriptedServer) -> None:
    await deploy(manager, "high", high.url, 5, breaker={"consecutive_failures": 1, "open_s": 60.0})
    await deploy(manager, "low", low.url, 1)
    high.script("tools/call", faults.Status(500))
    with pytest.raises(CallError):
        await manager.call_tool(RED, "echo", {"text": "x"})
    for _ in range(3):
        await manager.call_tool(RED, "echo", {"text": "y"})
    assert low.executed == ["y"] * 3
    refused = [each for each in manager.flight_records() if each.status == "circuit_open"]
    assert refused == []


async def test_where_none_is_ready_the_error_is_that_of_the_highest_priority(
    manager: McpManager, high: ScriptedServer
) -> None:
    await deploy(manager, "stopped", gone_url(), 9, instances=0)
    await deploy(manager, "tripped", high.url, 9, breaker={"consecutive_failures": 1, "open_s": 60.0})
    await deploy(manager, "gone", gone_url(), 1)
    high.script("tools/call", faults.Status(500))
    with pytest.raises(ProtocolError):
        await manager.call_tool(RED, "echo", {"text": "x"})
    with pytest.raises(CircuitOpenError) as caught:
        await manager.call_tool(RED, "echo", {"text": "x"})
    assert caught.value.server_id == "tripped"
    assert caught.value.retry_after_s
    await manager.undeploy("tripped")
    with pytest.raises(OverloadedError, match="suspended"):
        await manager.call_tool(RED, "echo", {"text": "x"})
    await manager.undeploy("stopped")
    with pytest.raises(ConnectError) as gone:
        await manager.call_tool(RED, "echo", {"text": "x"})
    assert gone.value.server_id == "gone"


async def test_few_are_tried_of_each_priority_and_the_first_error_is_told(
    manager: McpManager, low: ScriptedServer
) -> None:
    for number in range(9):
        await deploy(manager, f"gone-{number}", gone_url(), 9, connect="lazy")
    with pytest.raises(ConnectError) as caught:
        await manager.call_tool(RED, "echo", {"text": "x"})
    tried = [each.server_id for each in manager.flight_records()]
    assert len(set(tried)) == len(tried) == 3
    assert caught.value.server_id == tried[0]
    await deploy(manager, "low", low.url, 1)
    assert (await manager.call_tool(RED, "echo", {"text": "x"})).text == "x"


async def test_nothing_matches(manager: McpManager, high: ScriptedServer) -> None:
    await deploy(manager, "a", high.url)
    for selector in (Selector(tag="blue"), Selector(tags=("red", "blue")), Selector(tag="red", server_type="other")):
        with pytest.raises(ServerNotFoundError, match=f"Server with {selector} not found"):
            await manager.execute_raw(selector, echo("x"))
    with pytest.raises(InvalidRequestError):
        await manager.execute_raw(RED, echo("x"), timeout=-1)
    with pytest.raises(InvalidRequestError):
        await manager.execute_raw(RED, b"no JSON")


async def test_a_new_configuration_is_selected_by_at_once(
    manager: McpManager, high: ScriptedServer, low: ScriptedServer
) -> None:
    await deploy(manager, "a", high.url, 9)
    await deploy(manager, "b", low.url, 1)
    blue = Selector(tag="blue", server_type="search")
    with pytest.raises(ServerNotFoundError):
        await manager.execute_raw(blue, echo("x"))
    await manager.redeploy(
        "b", {"url": low.url, **CALM, "tags": ["blue", "red"], "server_type": "search", "priority": 10}
    )
    await manager.execute_raw(blue, echo("typed"))
    await manager.execute_raw(RED, echo("first now"))
    assert (high.executed, low.executed) == ([], ["typed", "first now"])


async def test_one_deadline_holds_for_all_servers(
    manager: McpManager, high: ScriptedServer, low: ScriptedServer
) -> None:
    await deploy(manager, "high", high.url, 5)
    await deploy(manager, "low", low.url, 1)
    high.script("tools/call", faults.Hold())
    with pytest.raises(DeadlineExceededError):
        await manager.call_tool(RED, "echo", {"text": "x"}, timeout=0.2)
    assert low.executed == []


async def test_a_key_stays_on_its_server(manager: McpManager, high: ScriptedServer, low: ScriptedServer) -> None:
    hard = {"balancing": {"affinity": "hard"}}
    await deploy(manager, "one", high.url, **hard)
    await deploy(manager, "two", low.url, **hard)
    for _ in range(3):
        for number in range(12):
            await manager.call_tool(RED, "echo", {"text": str(number)}, key=f"key-{number}")
    assert set(high.executed).isdisjoint(low.executed)
    assert len(high.executed) + len(low.executed) == 36
    mine, other = (high, low) if "0" in high.executed else (low, high)
    await manager.undeploy("one" if mine is high else "two")
    with pytest.raises(SessionLostError):
        await manager.call_tool(RED, "echo", {"text": "0"}, key="key-0")
    await manager.call_tool(RED, "echo", {"text": "anew"}, key="key-0")
    assert other.executed[-1] == "anew"


# By tool


def tools(*names: str) -> faults.Result:
    return faults.Result({"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]})


async def test_servers_are_found_by_their_tools(manager: McpManager, high: ScriptedServer, low: ScriptedServer) -> None:
    await deploy(manager, "high", high.url, 9)
    await deploy(manager, "low", low.url, 1)
    low.script_always("tools/list", tools("echo", "search"))
    await manager.call_tool(Selector(tool="search"), "echo", {"text": "x"})
    await manager.call_tool(Selector(tool="search", tag="red"), "echo", {"text": "y"})
    await manager.call_tool(Selector(tool="echo"), "echo", {"text": "z"})
    assert (high.executed, low.executed) == (["z"], ["x", "y"])
    assert len(low.requests_of("tools/list")) == len(high.requests_of("tools/list")) == 1
    with pytest.raises(ServerNotFoundError, match="Server with tool 'nothing' not found"):
        await manager.call_tool(Selector(tool="nothing"), "echo", {})


async def test_what_is_known_of_a_tool_is_not_looked_up_again(manager: McpManager, low: ScriptedServer) -> None:
    await deploy(manager, "low", low.url)
    selector = Selector(tool="echo")
    await manager.call_tool(selector, "echo", {"text": "x"})
    lookup = manager._routing._holders[selector].task
    assert lookup is not None
    await manager.call_tool(selector, "echo", {"text": "y"})
    assert manager._routing._holders[selector].task is lookup


async def test_the_groups_by_tool_that_are_kept_are_bounded(manager: McpManager, low: ScriptedServer) -> None:
    await deploy(manager, "low", low.url)
    for number in range(258):
        with pytest.raises(ServerNotFoundError):
            await manager.call_tool(Selector(tool=f"nobody-has-{number}"), "echo", {})
    kept = list(manager._routing._holders)
    # Those that were asked for last.
    assert [each.tool for each in kept] == [f"nobody-has-{number}" for number in range(2, 258)]
    assert len(low.requests_of("tools/list")) == 1


async def test_a_server_that_is_down_does_not_keep_the_others_tools_back(
    manager: McpManager, low: ScriptedServer
) -> None:
    await deploy(manager, "gone", gone_url(), 9)
    await deploy(manager, "low", low.url, 1)
    await manager.call_tool(Selector(tool="echo"), "echo", {"text": "x"})
    assert low.executed == ["x"]


async def test_the_listing_is_waited_for_within_the_timeout(manager: McpManager, low: ScriptedServer) -> None:
    await deploy(manager, "low", low.url)
    held = faults.Hold()
    low.script("tools/list", held)
    with pytest.raises(DeadlineExceededError) as caught:
        await manager.call_tool(Selector(tool="echo"), "echo", {"text": "x"}, timeout=0.1)
    assert caught.value.delivery == "not_sent"
    held.release()
    await manager.call_tool(Selector(tool="echo"), "echo", {"text": "y"})
    assert low.executed == ["y"]


async def test_a_manager_that_stops_leaves_no_listing_behind(low: ScriptedServer) -> None:
    manager = McpManager()
    await manager.start()
    await deploy(manager, "low", low.url)
    low.script("tools/list", faults.Hold())
    call = asyncio.create_task(manager.call_tool(Selector(tool="echo"), "echo", {"text": "x"}))
    await low.wait_for("tools/list")
    await manager.stop()
    with pytest.raises(CallError) as caught:
        await call
    assert caught.value.delivery == "not_sent"
