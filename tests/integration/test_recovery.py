"""How a server comes back: by probes alone, soon, and without old news disturbing it."""

from __future__ import annotations

import pytest
from support import faults
from support.calls import echo, eventually, text_of
from support.scripted import ScriptedServer

from mcp_manager import CallError, McpManager, ServerState


async def test_a_circuit_closes_without_traffic_and_long_before_the_next_interval() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            # The probes' interval stays at its 30 s, which is longer than this test waits.
            breaker = {"open_s": 0.2, "consecutive_failures": 2, "half_open_successes": 3}
            await manager.deploy("a", {"url": server.url, "breaker": breaker})
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
        "health": {"interval_s": 0.1, "unhealthy_interval_s": 0.1, "unhealthy_interval_max_s": 0.1},
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
