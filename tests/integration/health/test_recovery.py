"""How a server comes back: by probes alone, soon, and without old news disturbing it."""

from __future__ import annotations

import asyncio

import pytest
from support.calls import echo, eventually, text_of

from mcp_manager import CallError, CircuitOpenError, McpManager, RpcError, ServerState
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Fault, ScriptedServer


async def test_a_circuit_closes_without_traffic_and_long_before_the_next_interval() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            # The probes' interval stays at its 30 s, which is longer than this test waits.
            breaker = {"open_s": 0.2, "consecutive_failures": 2, "half_open_successes": 3}
            await manager.deploy("a", {"url": server.url, "breaker": breaker, "health": {"settle_s": 0.05}})
            for number in range(3):
                await manager.execute_raw("a", echo(str(number)))
            server.script("tools/call", faults.Status(500), times=2)
            for _ in range(2):
                with pytest.raises(CallError):
                    await manager.execute_raw("a", echo("fails"))
            assert (manager.server("a").state, manager.server("a").circuit) == (ServerState.UNHEALTHY, "Open")
            calls = len(server.requests_of("tools/call"))
            await eventually(lambda: manager.server("a").state is ServerState.HEALTHY, "it recovers by itself")
            assert manager.server("a").circuit == "Closed"
            assert len(server.requests_of("tools/call")) == calls
            assert len(server.requests_of("ping")) >= 3
            assert text_of(await manager.execute_raw("a", echo("back"))) == "back"


async def test_the_failure_of_one_server_says_nothing_about_another_that_has_recovered() -> None:
    settings = {
        "breaker": {"open_s": 0.1, "open_max_s": 0.2, "consecutive_failures": 1},
        "health": {"interval_s": 0.1, "unhealthy_interval_s": 0.1, "unhealthy_interval_max_s": 0.1, "settle_s": 0.05},
    }
    with ScriptedServer() as server, ScriptedServer() as other:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **settings})
            await manager.deploy("b", {"url": other.url, **settings})
            server.script_always("ping", faults.Status(500))
            await eventually(lambda: manager.server("a").circuit == "Open", "a probe opens the circuit")
            server.script_always("ping", None)
            await eventually(lambda: manager.server("a").state is ServerState.HEALTHY, "it recovers")
            other.script("tools/call", faults.Status(500))
            with pytest.raises(CallError):
                await manager.execute_raw("b", echo("fails"))
            assert manager.server("a").state is ServerState.HEALTHY
            assert manager.server("b").state is ServerState.UNHEALTHY


@pytest.mark.parametrize("sse", [False, True])
async def test_errors_of_one_caller_shut_out_no_other(sse: bool) -> None:
    with ScriptedServer(sse=sse) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, "breaker": {"consecutive_failures": 2}})
            server.script("tools/call", faults.RpcErrorReply(-32603), times=9)
            for _ in range(9):
                with pytest.raises(RpcError):
                    await manager.call_tool("a", "echo", {})
            assert (manager.server("a").state, manager.server("a").circuit) == (ServerState.HEALTHY, "Closed")
            assert text_of(await manager.execute_raw("a", echo("another"))) == "another"


async def test_errors_whose_codes_are_named_open_the_circuit() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            breaker = {"consecutive_failures": 2, "rpc_errors": [-32603]}
            await manager.deploy("a", {"url": server.url, "breaker": breaker, "retry": {"attempts": 1}})
            server.script("tools/call", faults.RpcErrorReply(-32603), times=2)
            for _ in range(2):
                with pytest.raises(RpcError):
                    await manager.call_tool("a", "echo", {})
            assert manager.server("a").circuit == "Open"
            with pytest.raises(CircuitOpenError) as refused:
                await manager.call_tool("a", "echo", {})
            assert refused.value.retry_after_s is not None and refused.value.retry_after_s > 0


@pytest.mark.parametrize(
    "fault", [faults.Status(400), faults.Status(403), faults.Status(500), faults.Bytes(), faults.Reset()], ids=repr
)
async def test_a_server_whose_calls_all_fail_is_not_healthy_though_it_answers_pings(fault: Fault) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            health = {"interval_s": 0.03, "jitter": 0.0, "settle_s": 0.05}
            breaker = {"enabled": False}
            await manager.deploy("a", {"url": server.url, "health": health, "breaker": breaker})
            server.script_always("tools/call", fault)
            for _ in range(5):
                with pytest.raises(CallError):
                    await manager.execute_raw("a", echo("fails"))
            assert manager.server("a").state is ServerState.DEGRADED
            pings = len(server.requests_of("ping"))
            await server.wait_for("ping", pings + 5)
            assert (manager.server("a").state, manager.server("a").reasons) == (
                ServerState.DEGRADED,
                ("failing calls",),
            )
            server.script_always("tools/call", None)
            assert text_of(await manager.execute_raw("a", echo("back"))) == "back"
            await eventually(lambda: manager.server("a").state is ServerState.HEALTHY, "it is seen to serve again")


async def test_a_server_that_is_slow_to_answer_pings_is_not_down() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            health = {"interval_s": 0.05, "unhealthy_interval_s": 0.05, "timeout_s": 0.05, "fall": 2, "jitter": 0.0}
            await manager.deploy("a", {"url": server.url, "health": health, "request_timeout_s": 1.0})
            server.script_always("ping", faults.Hold())
            await server.wait_for("ping", 4)
            async with asyncio.timeout(15):
                while manager.server("a").reasons != ("slow probe",):
                    assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
                    await asyncio.sleep(0.02)
            assert (manager.server("a").state, manager.server("a").circuit) == (ServerState.DEGRADED, "Closed")
