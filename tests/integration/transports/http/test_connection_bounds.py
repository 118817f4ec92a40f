"""Bounds of connections, for each origin and in all: calls wait their turn, and no server is blamed for it."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Iterator

import pytest
from support.calls import CALM, deployed, echo, failure_of, text_of, tool_call

from benchmarks.calls.children import LoopbackServer
from mcp_manager import DeadlineExceededError, ManagerConfig, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.transports.http.connections.limit import default_limit

pytestmark = pytest.mark.both_loops

MANY = 10_000
# Beyond the bound of an origin, for what must not wait for calls to end.
CONTROL_PLACES = 4
STRICT = {"consecutive_failures": 1, "timeout_floor_s": 0.001}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.mark.slow
async def test_ten_thousand_calls_at_once_by_default(server: ScriptedServer) -> None:
    async with McpManager() as manager:
        # Encoding all calls blocks the loop for seconds on a busy machine.
        await manager.deploy("a", {"url": server.url, "retry": {"attempts": 1}, "connect_timeout_s": 60})
        calls = (manager.execute_raw("a", echo(str(number)), timeout=60) for number in range(MANY))
        assert [text_of(reply) for reply in await asyncio.gather(*calls)] == [str(number) for number in range(MANY)]
        assert manager.server("a").circuit == "Closed"
    assert server.peak_connections <= 100 + CONTROL_PLACES
    assert len(server.requests_of("initialize")) == 1


@pytest.mark.parametrize("lanes", [True, False], ids=["lane", "ordinary"])
async def test_the_bound_of_an_origin_holds(server: ScriptedServer, lanes: bool) -> None:
    config = ManagerConfig(max_connections_per_origin=3, http_lanes=lanes)
    async with deployed(server, config) as manager:
        texts = [str(number) for number in range(200)]
        replies = await asyncio.gather(*(manager.execute_raw("a", echo(text), timeout=20) for text in texts))
        assert [text_of(reply) for reply in replies] == texts
    # aiohttp closes a connection a moment after its place was given to another.
    assert server.peak_connections <= 3 + CONTROL_PLACES


async def test_calls_are_made_in_the_order_in_which_they_came(server: ScriptedServer) -> None:
    hold = faults.Hold()
    server.script("tools/call", hold)
    texts = [str(number) for number in range(50)]
    async with deployed(server, ManagerConfig(max_connections_per_origin=1)) as manager:
        calls = []
        for text in texts:
            calls.append(asyncio.create_task(manager.execute_raw("a", echo(text), timeout=20)))
            await asyncio.sleep(0)
        await server.wait_for("tools/call")
        hold.release()
        await asyncio.gather(*calls)
    assert server.executed == texts


@pytest.mark.parametrize("lanes", [True, False], ids=["lane", "ordinary"])
@pytest.mark.parametrize(
    ("bounds", "field"),
    [({"max_connections_per_origin": 1}, "max_connections_per_origin"), ({"max_connections": 1}, "max_connections")],
    ids=["origin", "all"],
)
async def test_who_waits_too_long_is_told_why_and_the_server_is_not_blamed(
    server: ScriptedServer, bounds: dict[str, int], field: str, lanes: bool
) -> None:
    server.script("tools/call", faults.Hold())
    config = ManagerConfig(**bounds, http_lanes=lanes)
    async with deployed(server, config, breaker=STRICT) as manager:
        first = asyncio.create_task(manager.execute_raw("a", echo("first"), timeout=20))
        await server.wait_for("tools/call")
        for _ in range(3):
            error = await failure_of(manager, "a", echo("late"), timeout=0.05)
            assert isinstance(error, DeadlineExceededError)
            assert error.delivery == "not_sent"
            assert f"raise {field}," in error.hint
            assert error.retryable
        assert manager.server("a").circuit == "Closed"
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert text_of(await manager.execute_raw("a", echo("next"), timeout=5)) == "next"
    assert "late" not in server.executed


async def test_an_origin_with_many_callers_takes_nothing_from_another(server: ScriptedServer) -> None:
    with ScriptedServer() as other:
        server.script_always("tools/call", faults.Hold())
        config = ManagerConfig(max_connections=6, max_connections_per_origin=3)
        async with McpManager(config) as manager:
            await manager.deploy("busy", {"url": server.url, **CALM})
            await manager.deploy("calm", {"url": other.url, **CALM})
            waiting = [asyncio.create_task(manager.execute_raw("busy", echo("x"), timeout=60)) for _ in range(200)]
            await server.wait_for("tools/call", 3)
            for number in range(20):
                assert text_of(await manager.execute_raw("calm", echo(str(number)), timeout=5)) == str(number)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
    assert len(server.requests_of("tools/call")) == 3


async def test_what_looks_after_a_server_does_not_wait_for_its_calls(server: ScriptedServer) -> None:
    server.script("tools/call", *[faults.Hold()] * 2)
    async with deployed(server, ManagerConfig(max_connections_per_origin=2)) as manager:
        calls = [asyncio.create_task(manager.execute_raw("a", echo("x"), timeout=60)) for _ in range(2)]
        await server.wait_for("tools/call", 2)
        await manager.ping("a", timeout=5)
        await manager.execute_raw("a", b'{"method":"notifications/roots/list_changed"}', timeout=5)
        calls[0].cancel()
        await server.wait_for("notifications/cancelled")
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback server waits with epoll")
@pytest.mark.parametrize("lanes", [True, False], ids=["lane", "ordinary"])
async def test_a_process_without_descriptors_makes_do_with_what_it_has(lanes: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    config = ManagerConfig(max_connections=0, max_connections_per_origin=0, http_lanes=lanes)
    call = tool_call("get", {"text": "x"})
    async with LoopbackServer(None) as server, McpManager(config) as manager:
        await manager.deploy("a", {"url": server.url("/json/100"), **CALM, "breaker": STRICT})
        await manager.execute_raw("a", call, timeout=5)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_highest_descriptor() + 6, hard))
            replies = await asyncio.gather(*(manager.execute_raw("a", call, timeout=30) for _ in range(200)))
            assert len(replies) == 200
            assert manager.server("a").circuit == "Closed"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback server waits with epoll")
async def test_a_process_without_any_descriptor_says_so() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    call = tool_call("get", {"text": "x"})
    async with LoopbackServer(None) as server, McpManager() as manager:
        await manager.deploy("a", {"url": server.url("/json/100"), **CALM, "breaker": STRICT})
        await manager.execute_raw("a", call, timeout=5)
        for lanes in list(manager._http._lanes.values()):
            # As after seconds without a call: nothing idle is left.
            lanes.wires.sweep()
            lanes.wires.sweep()
        await asyncio.sleep(0)
        taken = _all_descriptors(_highest_descriptor() + 2)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
            for _ in range(3):
                error = await failure_of(manager, "a", call, timeout=0.2)
                assert isinstance(error, DeadlineExceededError)
                assert error.delivery == "not_sent"
                assert "no descriptor left" in error.message
                assert "ulimit -n" in error.hint
            assert manager.server("a").circuit == "Closed"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)
        await manager.execute_raw("a", call, timeout=5)


def test_the_default_follows_the_descriptors_of_the_process() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for limit, expected in ((1024, 448), (256, 64), (140, 16), (4096, 1984)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            assert default_limit() == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _highest_descriptor() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd"))


def _all_descriptors(up_to: int) -> list[int]:
    """Take every free descriptor below one."""
    taken = []
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) < up_to:
        taken.append(descriptor)
    os.close(descriptor)
    return taken
