"""A policy that is applied in place decides from then on; sessions, programs and calls under way go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support.calls import CALM, SWIFT, echo, eventually, failure_of, text_of
from support.processes import scripted_stdio
from support.traffic import Traffic

from mcp_manager import Applied, ManagerConfig, McpManager, Selector, ServerState
from mcp_manager.config import parse_server_config
from mcp_manager.errors import CircuitOpenError, DeadlineExceededError, OverloadedError, RpcError
from mcp_manager.testing import faults
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import ScriptedServer

LISTING = b'{"method":"tools/list"}'


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def fleet(server: ScriptedServer, **settings: Any) -> ManagerConfig:
    return ManagerConfig(servers={"a": {"url": server.url, **CALM, **settings}})  # type: ignore[dict-item]


async def updated(manager: McpManager, server: ScriptedServer, **settings: Any) -> Applied:
    """Apply settings that must be changed in place: the sessions before and after are the same."""
    before = server.live_sessions
    applied = await manager.apply(fleet(server, **settings))
    assert applied.updated == ("a",), applied
    assert (applied.redeployed, applied.failed) == ((), {})
    assert before <= server.live_sessions
    return applied


async def test_a_time_limit_of_calls(server: ScriptedServer) -> None:
    server.script_always("tools/call", Hold())
    async with McpManager(fleet(server)) as manager:
        await updated(manager, server, request_timeout_s=0.05)
        with pytest.raises(DeadlineExceededError):
            await manager.execute_raw("a", echo("x"))
    assert len(server.requests_of("initialize")) == 1


async def test_a_call_under_way_keeps_its_time_limit(server: ScriptedServer) -> None:
    held = Hold()
    server.script("tools/call", held)
    async with McpManager(fleet(server)) as manager:
        call = asyncio.create_task(manager.execute_raw("a", echo("x")))
        await server.wait_for("tools/call")
        await updated(manager, server, request_timeout_s=0.001, limits={"max_concurrent": 1}, tags=["new"])
        assert manager._servers["a"].record.inflight == 1
        held.release()
        assert text_of(await call) == "x"
        assert manager._servers["a"].record.inflight == 0


async def test_calls_that_wait_are_admitted_by_a_higher_limit(server: ScriptedServer) -> None:
    server.script_always("tools/call", Hold())
    narrow = {"max_concurrent": 2, "max_waiting": 10, "max_wait_s": 30.0}
    async with McpManager(fleet(server, limits=narrow)) as manager:
        calls = [asyncio.create_task(manager.execute_raw("a", echo(str(each)))) for each in range(6)]
        await server.wait_for("tools/call", 2)
        await eventually(lambda: manager._servers["a"].record.waiting == 4, "four calls in the queue")
        await updated(manager, server, limits={**narrow, "max_concurrent": 5})
        await server.wait_for("tools/call", 5)
        await updated(manager, server, limits={"concurrency": "off"})
        await server.wait_for("tools/call", 6)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_a_call_that_comes_as_the_limit_is_lifted_is_not_refused(server: ScriptedServer) -> None:
    server.script_always("tools/call", Hold())
    narrow = {"max_concurrent": 1, "max_waiting": 1, "max_wait_s": 30.0}
    async with McpManager(fleet(server, limits=narrow)) as manager:
        calls = [asyncio.create_task(manager.execute_raw("a", echo(str(each)))) for each in range(2)]
        await server.wait_for("tools/call", 1)
        await eventually(lambda: manager._servers["a"].record.waiting == 1, "a call in the queue")
        # Its turn comes after the change, but before those that waited have been admitted.
        calls.append(asyncio.create_task(manager.execute_raw("a", echo("2"))))
        wanted = parse_server_config(
            {"url": server.url, **CALM, "limits": {"concurrency": "off", "max_waiting": 0}}, server_id="a"
        )
        manager._fleet.adjust(manager._servers["a"], wanted)
        await server.wait_for("tools/call", 3)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_the_threshold_of_a_circuit_and_its_end(server: ScriptedServer) -> None:
    patient = {"consecutive_failures": 100, "min_calls": 1000, "open_s": 60.0}
    async with McpManager(fleet(server, breaker=patient)) as manager:
        server.script_always("tools/call", faults.Status(500))
        for _ in range(3):
            await failure_of(manager, "a", echo("x"))
        await updated(manager, server, breaker={**patient, "consecutive_failures": 4})
        # The three failures before count.
        await failure_of(manager, "a", echo("x"))
        assert isinstance(await failure_of(manager, "a", echo("x")), CircuitOpenError)
        server.script_always("tools/call", None)
        await updated(manager, server, breaker={"enabled": False})
        assert text_of(await manager.execute_raw("a", echo("y"))) == "y"
    assert len(server.requests_of("initialize")) == 1


async def test_the_circuit_of_a_server_that_had_none(server: ScriptedServer) -> None:
    async with McpManager(fleet(server)) as manager:
        server.script_always("tools/call", faults.Status(500))
        for _ in range(10):
            await failure_of(manager, "a", echo("x"))
        await updated(manager, server, breaker={"consecutive_failures": 2, "open_s": 60.0})
        for _ in range(2):
            assert not isinstance(await failure_of(manager, "a", echo("x")), CircuitOpenError)
        assert isinstance(await failure_of(manager, "a", echo("x")), CircuitOpenError)


async def test_how_calls_are_shared(server: ScriptedServer) -> None:
    async with McpManager(fleet(server, instances=3, balancing={"policy": "random"})) as manager:
        await updated(manager, server, instances=3, balancing={"policy": "round_robin"})
        for each in range(12):
            await manager.execute_raw("a", echo(str(each)))
        shares = Counter(each.headers["mcp-session-id"] for each in server.requests_of("tools/call"))
        assert sorted(shares.values()) == [4, 4, 4]
        server.forget()
        await updated(manager, server, instances=3, balancing={"policy": "consistent"})
        for each in range(12):
            await manager.execute_raw("a", echo(str(each)), key="the same")
        assert len({each.headers["mcp-session-id"] for each in server.requests_of("tools/call")}) == 1
        server.forget()
        await updated(manager, server, instances=3, balancing={"policy": "random", "tiers": [1, 0, 1]})
        for each in range(12):
            await manager.execute_raw("a", echo(str(each)))
        assert len({each.headers["mcp-session-id"] for each in server.requests_of("tools/call")}) == 1


async def test_a_key_that_has_become_hard_reports_the_loss_of_its_session(server: ScriptedServer) -> None:
    async with McpManager(fleet(server, balancing={"affinity": "soft"})) as manager:
        await manager.execute_raw("a", echo("x"), key="k")
        await updated(manager, server, balancing={"affinity": "hard"})
        await manager.execute_raw("a", echo("y"), key="k")
        server.expire_sessions()
        error = await failure_of(manager, "a", echo("z"), key="k")
        assert "session of this key is lost" in str(error)


async def test_a_key_that_is_no_longer_hard_may_go_to_another_server(server: ScriptedServer) -> None:
    with ScriptedServer() as other:
        group = Selector(tags=("group",))

        def both(affinity: str) -> ManagerConfig:
            shared = {**CALM, "tags": ["group"], "balancing": {"affinity": affinity}}
            return ManagerConfig(servers={"a": {"url": server.url, **shared}, "b": {"url": other.url, **shared}})  # type: ignore[dict-item]

        async with McpManager(both("hard")) as manager:
            await manager.execute_raw(group, echo("1"), key="k")
            pinned, free = (server, other) if server.executed else (other, server)
            pinned.script_always("tools/call", faults.Status(429))
            with pytest.raises(OverloadedError):
                await manager.execute_raw(group, echo("2"), key="k")
            await manager.apply(both("none"))
            assert text_of(await manager.execute_raw(group, echo("3"), key="k")) == "3"
            assert (pinned.executed, free.executed) == (["1"], ["3"])


async def test_tags_types_and_priorities(server: ScriptedServer) -> None:
    with ScriptedServer() as other:

        def both(**of_first: Any) -> ManagerConfig:
            second = {"url": other.url, **CALM, "priority": 5, "tags": ["group"]}
            return ManagerConfig(servers={"a": {"url": server.url, **CALM, **of_first}, "b": second})  # type: ignore[dict-item]

        async with McpManager(both()) as manager:
            group = Selector(tags=("group",))
            await manager.execute_raw(group, echo("1"))
            await manager.apply(both(tags=["group"], priority=9))
            await manager.execute_raw(group, echo("2"))
            await manager.apply(both(tags=["group"], priority=1))
            await manager.execute_raw(group, echo("3"))
            await manager.apply(both(tags=["alone"], server_type="search", name="A"))
            await manager.execute_raw(Selector(server_type="search"), echo("4"))
            assert (server.executed, other.executed) == (["2", "4"], ["1", "3"])
            view = manager.server("a")
            assert (view.name, view.server_type, view.tags, view.priority) == ("A", "search", ("alone",), 0)
    assert len(server.requests_of("initialize")) == 1


async def test_retries(server: ScriptedServer) -> None:
    async with McpManager(fleet(server)) as manager:
        server.script("tools/call", faults.Status(429))
        await failure_of(manager, "a", echo("x"))
        await updated(manager, server, retry={"attempts": 3, "backoff_s": 0.001})
        server.script("tools/call", faults.Status(429))
        assert text_of(await manager.execute_raw("a", echo("y"))) == "y"


async def test_the_last_good_results_are_kept_from_now_on_and_then_no_longer(server: ScriptedServer) -> None:
    # The compiled path, which keeps no results, must be left, and taken again.
    async with McpManager(fleet(server)) as manager:
        await manager.execute_raw("a", LISTING)
        (instance,) = manager._servers["a"].instances
        assert instance.backend is not None
        assert instance.backend.channel is not None
        await updated(manager, server, fallback={"stale_s": 60.0})
        assert instance.backend.channel is None
        await manager.execute_raw("a", LISTING)
        server.script_always("tools/list", faults.Status(500))
        assert b"stale" in await manager.execute_raw("a", LISTING)
        await updated(manager, server, name="another")
        assert instance.backend.channel is not None
        await failure_of(manager, "a", LISTING)
        # What was kept before is forgotten.
        await updated(manager, server, fallback={"stale_s": 60.0})
        await failure_of(manager, "a", LISTING)
    assert len(server.requests_of("initialize")) == 1


async def test_hedges(server: ScriptedServer) -> None:
    hedge = {"enabled": True, "min_samples": 1, "max_share": 1.0, "quantile": 0.5, "min_delay_s": 0.01}
    async with McpManager(fleet(server, instances=2)) as manager:
        await updated(manager, server, instances=2, hedge=hedge)
        for _ in range(10):
            await manager.execute_raw("a", LISTING, timeout=10)
        server.forget()
        server.script("tools/list", Hold())
        await manager.execute_raw("a", LISTING, timeout=10)
        assert len(server.requests_of("tools/list")) == 2


async def test_texts_to_hide(server: ScriptedServer) -> None:
    async with McpManager(fleet(server)) as manager:
        server.script_always("tools/call", faults.RpcErrorReply(-32000, "the word is sesame"))
        with pytest.raises(RpcError, match="sesame"):
            await manager.call_tool("a", "echo", {"text": "x"})
        await updated(manager, server, hidden_texts=["sesame"])
        with pytest.raises(RpcError, match=r"the word is \*\*\*"):
            await manager.call_tool("a", "echo", {"text": "x"})


async def test_texts_to_hide_in_what_a_program_writes() -> None:
    script = {"on": {"tools/call": [[{"do": "stderr", "text": "the word is sesame\n"}, {"do": "exit"}]]}}
    program = scripted_stdio(script)

    def config(**settings: Any) -> ManagerConfig:
        spec = program.config(**{**CALM, "restart": {"initial_s": 0.01}, **settings})
        return ManagerConfig(servers={"a": spec})  # type: ignore[dict-item]

    async with McpManager(config()) as manager:
        await manager.wait_ready(timeout=15)
        applied = await manager.apply(config(hidden_texts=["sesame"]))
        assert applied.updated == ("a",)
        error = await failure_of(manager, "a", echo("x"))
        assert "the word is ***" in str(error)


async def test_the_delay_of_a_restart_that_has_begun() -> None:
    program = scripted_stdio({"on": {"tools/call": [[{"do": "exit"}]]}})

    def config(delay_s: float) -> ManagerConfig:
        settings = {**CALM, "restart": {"initial_s": delay_s, "max_s": delay_s, "jitter": 0.0}}
        return ManagerConfig(servers={"a": program.config(**settings)})  # type: ignore[dict-item]

    async with McpManager(config(3600.0)) as manager:
        await manager.wait_ready(timeout=15)
        await failure_of(manager, "a", echo("x"))
        await eventually(lambda: manager.server("a").reasons == ("restarting",), "the wait for the restart")
        await manager.apply(config(0.01))
        await manager.wait_ready(timeout=15)


async def test_a_lazy_server_becomes_eager_and_an_eager_one_lazy(server: ScriptedServer) -> None:
    async with McpManager(fleet(server, connect="lazy", instances=2)) as manager:
        assert server.requests_of("initialize") == []
        await updated(manager, server, connect="eager", instances=2)
        assert len(server.requests_of("initialize")) == 2
        assert manager.server("a").ready == 2
        await updated(manager, server, connect="lazy", instances=2)
        assert manager.server("a").ready == 2
    assert len(server.requests_of("initialize")) == 2


async def test_the_number_of_instances(server: ScriptedServer) -> None:
    async with McpManager(fleet(server)) as manager:
        await updated(manager, server, instances=3)
        assert (manager.server("a").ready, len(server.live_sessions)) == (3, 3)
        await manager.scale("a", 5)
        # What scale() has set stays, as long as the configured number does not change.
        await updated(manager, server, instances=3, tags=["x"])
        assert (manager.server("a").desired, manager.server("a").ready) == (5, 5)
        await updated(manager, server, instances=3, max_instances=4)
        assert manager.server("a").desired == 4
        applied = await manager.apply(fleet(server, instances=2, max_instances=4))
        assert applied.updated == ("a",)
        await eventually(lambda: len(server.live_sessions) == 2, "the end of what is too many")
        applied = await manager.apply(fleet(server, instances=0))
        assert manager.server("a").state is ServerState.STOPPED
        applied = await manager.apply(fleet(server, instances=1))
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
    assert len(server.requests_of("initialize")) == 6


async def test_probes_begin_and_end(server: ScriptedServer) -> None:
    async with McpManager(fleet(server)) as manager:
        await updated(manager, server, health={"interval_s": 0.02, "idle_interval_s": 0.02})
        await server.wait_for("ping", 3)
        await updated(manager, server, health={"enabled": False})
        turn = manager._monitor._watches[manager._servers["a"].instances[0]]
        await eventually(lambda: turn.turn is None and turn.in_flight is None, "the end of the probes")


async def test_the_time_limit_of_probes(server: ScriptedServer) -> None:
    patient = {"interval_s": 3600.0, "idle_interval_s": 3600.0, "timeout_s": 3600.0}
    hasty = {"interval_s": 0.02, "idle_interval_s": 0.02, "unhealthy_interval_s": 0.02, "timeout_s": 0.05, "fall": 2}
    async with McpManager(fleet(server, health=patient)) as manager:
        # The deployment's own probe is over: no other one has begun.
        server.script_always("ping", Hold())
        await updated(manager, server, health=hasty)
        await eventually(lambda: manager.server("a").state is ServerState.UNHEALTHY, "probes that fail")


async def test_a_state_that_the_new_settings_would_not_show() -> None:
    # Unhealthy by the old threshold, and by the new one not yet.
    with ScriptedServer() as server:
        health = {
            **SWIFT["health"],
            "fall": 1,
            "interval_s": 0.02,
            "idle_interval_s": 0.02,
            "unhealthy_interval_s": 3600.0,
        }
        health["unhealthy_interval_max_s"] = 3600.0
        async with McpManager(fleet(server, health=health)) as manager:
            server.script("ping", faults.Status(500), faults.Reset(), times=50)
            await eventually(lambda: manager.server("a").state is ServerState.UNHEALTHY, "a failed probe")
            await updated(manager, server, health={**health, "fall": 50})
            assert manager.server("a").state is ServerState.DEGRADED


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_no_call_is_lost_however_often_the_settings_change(server: ScriptedServer, transport: str) -> None:
    program = scripted_stdio()
    base: dict[str, Any] = {"url": server.url, **CALM} if transport == "http" else program.config(**CALM)
    changes: list[dict[str, Any]] = [
        {"tags": ["x"], "priority": 4},
        {"limits": {"concurrency": "gradient", "initial": 3, "max_waiting": 100, "max_wait_s": 30.0}},
        {"limits": {"max_concurrent": 2, "max_waiting": 100, "max_wait_s": 30.0}},
        {"breaker": {"half_open_permits": 3, "window_s": 1.0}},
        {"balancing": {"policy": "consistent", "tiers": [1]}},
        {"hedge": {"enabled": True}, "fallback": {"stale_s": 5.0}},
        {"health": {"interval_s": 0.01, "idle_interval_s": 0.01}, "restart": {"max_s": 5.0}},
        {},
    ]
    async with McpManager(ManagerConfig(servers={"a": base})) as manager:  # type: ignore[dict-item]
        await manager.wait_ready(timeout=15)
        pids = manager.server("a").pids
        async with Traffic(manager, "a", callers=6) as traffic:
            for _ in range(3):
                for change in changes:
                    applied = await manager.apply(ManagerConfig(servers={"a": {**base, **change}}))  # type: ignore[dict-item]
                    assert applied.updated == ("a",)
                    await traffic.goes_on(8)
        assert traffic.failures == {}
        if transport == "http":
            assert Counter(server.executed) == Counter(traffic.answered)
            assert len(server.requests_of("initialize")) == 1
        assert manager.server("a").pids == pids
        assert manager._servers["a"].record.inflight == 0
        assert [each.backend.inflight for each in manager._servers["a"].instances if each.backend] == [0]
