"""A new configuration takes a share of the calls and is judged by what comes of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.calls import CALM, echo, eventually
from support.traffic import Traffic

from mcp_manager import (
    ManagerConfig,
    McpManager,
    McpManagerError,
    RolloutError,
    ServerNotFoundError,
    ToolNotAllowedError,
)
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Connection, Fault, Request, ScriptedServer

LONG = {"strategy": "canary", "canary_s": 3600.0}


@dataclass(frozen=True)
class Slow:
    """Answer properly, and late."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        await asyncio.sleep(0.1)
        await connection.answer(request)


@pytest.fixture
def old() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def new() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def manager(old: ScriptedServer) -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        await manager.deploy("a", settings(old, 4, name="old"))
        yield manager


def settings(server: ScriptedServer, instances: int = 4, **others: Any) -> dict[str, Any]:
    return {"url": server.url, **CALM, "instances": instances, **others}


def supervisor_of(manager: McpManager) -> Supervisor:
    [supervisor] = manager._servers.values()
    return supervisor


async def restored(manager: McpManager, name: str) -> None:
    """Wait until there is nothing of a canary any more."""
    await eventually(lambda: manager.server("a").draining == 0, "the end of the canary")
    view = manager.server("a")
    assert (view.name, view.desired, view.ready) == (name, 4, 4)
    handles = [each.backend for each in supervisor_of(manager).instances if each.backend is not None]
    assert {(handle.weight, handle.latencies) for handle in handles} == {(1.0, None)}


@pytest.mark.parametrize(("percentage", "instances"), [(10.0, 1), (50.0, 2), (25.0, 1), (80.0, 3)])
@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
async def test_it_takes_the_share_that_was_asked_for(
    percentage: float, instances: int, policy: str, old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    await manager.redeploy("a", settings(old, name="old", balancing={"policy": policy}))
    async with Traffic(manager, "a") as traffic:
        changed = settings(new, balancing={"policy": policy})
        # No verdict: that of a busy machine would end the trial.
        unjudged: dict[str, Any] = {**LONG, "min_calls": 1_000_000}
        rollout = asyncio.create_task(manager.redeploy("a", changed, percentage=percentage, **unjudged))
        await new.wait_for("tools/call")
        before = len(old.executed), len(new.executed)
        await traffic.goes_on(800)
        tried, others = len(new.executed) - before[1], len(old.executed) - before[0]
        rollout.cancel()
        await asyncio.wait({rollout})
    # More than four standard deviations of 800 draws.
    assert abs(tried / (tried + others) - percentage / 100) < 0.08
    assert len({each.headers["mcp-session-id"] for each in new.requests_of("tools/call")}) == instances
    assert traffic.failures == {}
    await restored(manager, "old")


async def test_keys_that_do_not_belong_to_the_canary_stay_where_they_are(
    old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    consistent = {"balancing": {"policy": "consistent"}}
    await manager.redeploy("a", settings(old, name="old", **consistent))
    supervisor = supervisor_of(manager)
    keys = [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(1, 401)]

    def places() -> list[object]:
        leases = [manager._router.pick("a", "ping", 1, 0, key) for key in keys]
        for lease in leases:
            manager._router.done(lease, 2, 0, 1)
        return [lease.payload for lease in leases]

    before = places()
    rollout = asyncio.create_task(manager.redeploy("a", settings(new, **consistent), percentage=20, **LONG))
    await eventually(lambda: len(supervisor.instances) == 5, "the canary")
    [canary] = [each for each in supervisor.instances if each.template is not supervisor.template]
    after = places()
    moved = [place for place, was in zip(after, before, strict=True) if place is not was]
    assert 40 < len(moved) < 130
    assert set(moved) == {canary}
    rollout.cancel()
    await asyncio.wait({rollout})
    await restored(manager, "old")


async def test_a_good_one_is_promoted(old: ScriptedServer, new: ScriptedServer, manager: McpManager) -> None:
    async with Traffic(manager, "a") as traffic:
        await traffic.goes_on()
        await manager.redeploy(
            "a", settings(new, name="new"), strategy="canary", canary_s=0.5, percentage=50, min_calls=5
        )
        await traffic.goes_on()
    assert traffic.failures == {}
    assert sorted(old.executed + new.executed) == sorted(traffic.answered)
    await restored(manager, "new")


async def test_one_that_fails_its_calls_is_taken_back_at_once(
    old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    new.script_always("tools/call", faults.Status(500))
    async with Traffic(manager, "a") as traffic:
        with pytest.raises(RolloutError, match=r"calls failed \(100 %|calls failed \(100%") as caught:
            await manager.redeploy("a", settings(new), percentage=25, **LONG)
        assert caught.value.server_id == "a"
        # With those that were under way, it is over.
        await restored(manager, "old")
        failures = dict(traffic.failures)
        await traffic.goes_on()
    assert failures
    assert traffic.failures == failures


@pytest.mark.parametrize("fault", [faults.RpcErrorReply(-32603), faults.Status(403)], ids=["-32603", "HTTP 403"])
async def test_one_that_answers_without_results_is_taken_back(
    fault: Fault, old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    new.script_always("tools/call", fault)
    rollout = asyncio.create_task(manager.redeploy("a", settings(new), percentage=50, min_calls=5, **LONG))
    async with asyncio.timeout(30):
        while not rollout.done():
            # An answer opens no circuit, but the old one's calls had results.
            with contextlib.suppress(McpManagerError):
                await manager.call_tool("a", "echo", {"text": "x"})
            await asyncio.sleep(0.001)
    with pytest.raises(RolloutError, match="calls failed"):
        await rollout
    await restored(manager, "old")


async def test_one_whose_circuit_opens_is_taken_back(
    old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    new.script_always("tools/call", faults.Status(500))
    strict = {"breaker": {"enabled": True, "consecutive_failures": 2, "open_s": 3600, "open_max_s": 3600}}
    async with Traffic(manager, "a"):
        with pytest.raises(RolloutError, match="circuit opened"):
            await manager.redeploy("a", settings(new, **strict), percentage=50, min_calls=1_000_000, **LONG)
    await restored(manager, "old")


async def test_one_that_is_slow_is_taken_back(old: ScriptedServer, new: ScriptedServer, manager: McpManager) -> None:
    new.script_always("tools/call", Slow())
    async with Traffic(manager, "a", callers=16) as traffic:
        with pytest.raises(RolloutError, match="p95"):
            await manager.redeploy("a", settings(new), percentage=25, **LONG)
    assert traffic.failures == {}
    await restored(manager, "old")


async def test_one_that_nobody_called_is_not_promoted(new: ScriptedServer, manager: McpManager) -> None:
    with pytest.raises(RolloutError, match="0 calls"):
        await manager.redeploy("a", settings(new), strategy="canary", canary_s=0.05)
    await restored(manager, "old")


async def test_failures_of_the_old_one_do_not_count_against_it(
    old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    old.script_always("tools/call", faults.Status(500))
    async with Traffic(manager, "a"):
        await manager.redeploy(
            "a", settings(new, name="new"), strategy="canary", canary_s=0.5, percentage=50, min_calls=5
        )
    await restored(manager, "new")


async def test_scaling_meanwhile_leaves_it_in_peace(new: ScriptedServer, manager: McpManager) -> None:
    rollout = asyncio.create_task(manager.redeploy("a", settings(new), **LONG))
    await eventually(lambda: len(supervisor_of(manager).instances) == 5, "the canary")
    before = supervisor_of(manager).instances
    await manager.scale("a", 6)
    await manager.ping("a")
    assert supervisor_of(manager).instances == before
    rollout.cancel()
    await asyncio.wait({rollout})
    await eventually(lambda: manager.server("a").ready == 6, "six instances")


async def test_a_promoted_one_whose_others_do_not_start_is_taken_back(
    old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    new.script("initialize", faults.Answer())
    new.script_always("initialize", faults.Status(500))
    async with Traffic(manager, "a") as traffic:
        with pytest.raises(Exception, match="500"):
            await manager.redeploy("a", settings(new), strategy="canary", canary_s=0.05, min_calls=0)
        await traffic.goes_on()
    assert traffic.failures == {}
    await restored(manager, "old")


async def test_the_end_of_the_server_ends_it(new: ScriptedServer, manager: McpManager) -> None:
    rollout = asyncio.create_task(manager.redeploy("a", settings(new), **LONG))
    await eventually(lambda: len(supervisor_of(manager).instances) == 5, "the canary")
    await manager.execute_raw("a", echo("x"))
    await manager.undeploy("a")
    with pytest.raises(ServerNotFoundError):
        await rollout
    assert new.live_sessions == set()


async def ends_of_calls(manager: McpManager) -> set[str]:
    """Call a tool with and without keys, often enough to reach every instance; return how the calls end."""
    ends = set()
    for number in range(20):
        for key in (None, f"key {number}"):
            try:
                await manager.execute_raw("a", echo("x"), key=key)
                ends.add("answered")
            except ToolNotAllowedError:
                ends.add("refused")
    return ends


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("is_stricter", [True, False])
async def test_rules_of_tools_change_for_all_instances_when_it_is_promoted(
    lanes: bool, is_stricter: bool, old: ScriptedServer, new: ScriptedServer
) -> None:
    free, strict = {"deny": ["other"]}, {"deny": ["echo"]}
    rules = [free, strict] if is_stricter else [strict, free]
    before, after = ["answered", "refused"] if is_stricter else ["refused", "answered"]
    async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
        await manager.deploy("a", settings(old, tools=rules[0]))
        supervisor, changed = supervisor_of(manager), settings(new, tools=rules[1])
        rollout = asyncio.create_task(manager.redeploy("a", changed, percentage=50, **LONG))
        await eventually(lambda: len(supervisor.instances) == 6, "the canary")
        assert await ends_of_calls(manager) == {before}
        assert bool(new.executed) == is_stricter
        rollout.cancel()
        await asyncio.wait({rollout})
        assert await ends_of_calls(manager) == {before}

        trial = {"strategy": "canary", "canary_s": 0.1, "percentage": 50, "min_calls": 1}
        rollout = asyncio.create_task(manager.redeploy("a", changed, **trial))
        while not rollout.done():
            await manager.execute_raw("a", b'{"method":"ping"}')
        await rollout
        assert await ends_of_calls(manager) == {after}
        assert bool(new.executed)
        await manager.redeploy("a", settings(old, tools=rules[0]), strategy="rolling")
        assert await ends_of_calls(manager) == {before}


@pytest.mark.parametrize("lanes", [True, False])
async def test_rules_of_tools_stay_when_instances_are_replaced_one_by_one_and_restored(
    lanes: bool, old: ScriptedServer, new: ScriptedServer
) -> None:
    async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
        await manager.deploy("a", settings(old, 2))
        strict = settings(new, 2, tools={"deny": ["echo"]})
        supervisor, hold = supervisor_of(manager), faults.Hold()
        new.script("initialize", Slow(), hold)
        rollout = asyncio.create_task(manager.redeploy("a", strict, strategy="rolling", batch=1))
        await new.wait_for("initialize", 2)
        assert await ends_of_calls(manager) == {"answered"}
        assert new.executed
        rollout.cancel()
        await asyncio.wait({rollout})
        hold.release()
        assert await ends_of_calls(manager) == {"answered"}
        await manager.redeploy("a", strict, strategy="rolling")
        assert await ends_of_calls(manager) == {"refused"}
        for each in supervisor.instances:
            with pytest.raises(ToolNotAllowedError):
                each.template.check_frame(echo("x"))
