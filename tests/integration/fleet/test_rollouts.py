"""A configuration is replaced while the server is called without a pause: not one call is lost, whatever goes wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
import pytest
from support.calls import CALM, echo, eventually, text_of
from support.traffic import Traffic

from mcp_manager import CallError, ConfigError, ConnectError, McpManager, RolloutError, ServerNotFoundError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

DEMO = {"command": sys.executable, "args": ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]}
PATIENT = {**CALM, "connect_timeout_s": 20.0}
TOOL = {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
REORDERED = {"inputSchema": {"properties": {"text": {"type": "string"}}, "type": "object"}, "name": "echo"}
OTHER = {"name": "other", "inputSchema": {"type": "object"}}
STRATEGIES = ("blue_green", "rolling", "canary")


@pytest.fixture
def old() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def new() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        yield manager


def settings(server: ScriptedServer, instances: int = 3, **others: Any) -> dict[str, Any]:
    return {"url": server.url, **CALM, "instances": instances, **others}


def plan(strategy: str) -> dict[str, Any]:
    """A strategy without anything to wait for."""
    return {"strategy": strategy, **({"canary_s": 0.05, "min_calls": 0} if strategy == "canary" else {})}


def counts(manager: McpManager) -> tuple[int, int, int]:
    view = manager.server("a")
    return view.desired, view.ready, view.draining


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("before", "after"), [(3, 3), (1, 4), (4, 1), (0, 2), (2, 0)])
async def test_not_one_call_is_lost_and_none_is_made_twice(
    strategy: str, before: int, after: int, old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", settings(old, before, name="old"))
    async with Traffic(manager, "a") as traffic:
        await traffic.goes_on()
        await manager.redeploy("a", settings(new, after, name="new"), **plan(strategy))
        assert (manager.server("a").name, counts(manager)) == ("new", (after, after, 0))
        await traffic.goes_on()
    executed = old.executed + new.executed
    assert sorted(executed) == sorted(traffic.answered)
    if before and after:
        assert traffic.failures == {}
        assert old.executed
    assert bool(after) == bool(new.executed)
    assert {error.delivery for error in traffic.failures.values()} <= {"not_sent"}
    assert (len(old.live_sessions), len(new.live_sessions)) == (0, after)


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_real_programs_are_replaced_under_load(strategy: str, manager: McpManager) -> None:
    await manager.deploy("a", {**DEMO, **PATIENT, "instances": 2})
    before = set(manager.server("a").pids)
    async with Traffic(manager, "a") as traffic:
        await traffic.goes_on()
        await manager.redeploy("a", {**DEMO, **PATIENT, "instances": 2, "name": "new"}, **plan(strategy))
        await traffic.goes_on()
    assert traffic.failures == {}
    assert not before & set(manager.server("a").pids)
    assert not before & {child.pid for child in psutil.Process().children()}


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_calls_under_way_end_on_the_instance_that_has_them(
    strategy: str, old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", settings(old, 2, shutdown_grace_s=0.0))
    hold = faults.Hold()
    old.script_always("tools/call", hold)
    calls = [asyncio.create_task(manager.execute_raw("a", echo(str(number)), timeout=20)) for number in range(6)]
    await old.wait_for("tools/call", 6)
    rollout = asyncio.create_task(manager.redeploy("a", settings(new, 2), **plan(strategy)))
    await eventually(lambda: manager.server("a").draining > 0, "the draining of the old ones")
    assert text_of(await manager.execute_raw("a", echo("meanwhile"))) == "meanwhile"
    assert not rollout.done()
    hold.release()
    assert [text_of(reply) for reply in await asyncio.gather(*calls)] == [str(number) for number in range(6)]
    await rollout
    assert new.executed == ["meanwhile"]


async def test_rolling_never_has_fewer_than_are_wanted(
    old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", settings(old, 4))
    [supervisor] = manager._servers.values()
    seen: list[tuple[int, int]] = []
    mixed: list[tuple[int, int]] = []

    async def look() -> None:
        while True:
            ready = sum(each.session is not None for each in supervisor.instances)
            if not seen or seen[-1] != (ready, len(supervisor.instances)):
                seen.append((ready, len(supervisor.instances)))
            fresh = sum(each.template.config.name == "new" for each in supervisor.instances)
            if not mixed or mixed[-1] != (len(supervisor.instances) - fresh, fresh):
                mixed.append((len(supervisor.instances) - fresh, fresh))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await manager.redeploy("a", settings(new, 4, name="new"), strategy="rolling", batch=2)
    looking.cancel()
    assert min(ready for ready, _ in seen) == 4
    assert max(total for _, total in seen) <= 6
    assert (2, 2) in mixed


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_what_does_not_connect_changes_nothing(strategy: str, old: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", settings(old, 2, name="old"))
    pids = {child.pid for child in psutil.Process().children()}
    async with Traffic(manager, "a") as traffic:
        await traffic.goes_on()
        with pytest.raises(ConnectError):
            await manager.redeploy("a", {"command": "/no/such/program", "instances": 5}, **plan(strategy))
        assert (manager.server("a").name, counts(manager)) == ("old", (2, 2, 0))
        await traffic.goes_on()
    assert traffic.failures == {}
    assert {child.pid for child in psutil.Process().children()} == pids


async def test_a_rolling_replacement_that_fails_half_way_is_taken_back(
    old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", settings(old, 4, name="old"))
    # The first two of the new ones come up, the third does not.
    new.script("initialize", faults.Answer(), faults.Answer(), faults.Status(500))
    new.script_always("initialize", faults.Status(500))
    async with Traffic(manager, "a") as traffic:
        await traffic.goes_on()
        rollout = asyncio.create_task(manager.redeploy("a", settings(new, 4), strategy="rolling"))
        ready: list[int] = []
        while not rollout.done():
            ready.append(manager.server("a").ready)
            await asyncio.sleep(0)
        with pytest.raises(CallError, match="500"):
            await rollout
        assert (manager.server("a").name, counts(manager)[:2]) == ("old", (4, 4))
        await traffic.goes_on()
    assert min(ready) == 4
    assert traffic.failures == {}
    assert new.executed
    assert sorted(old.executed + new.executed) == sorted(traffic.answered)
    await eventually(lambda: counts(manager) == (4, 4, 0), "the end of the new instances")
    assert (len(old.live_sessions), len(new.live_sessions)) == (4, 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("check", "tools", "complaint"),
    [
        ("off", [], ""),
        ("superset", [REORDERED], ""),
        ("superset", [OTHER, TOOL], ""),
        ("superset", [OTHER], "lacks echo"),
        ("superset", [{**TOOL, "inputSchema": {"type": "object"}}, OTHER], "changes the arguments of echo"),
        ("same", [REORDERED], ""),
        ("same", [TOOL, OTHER], "adds other"),
        ("same", [], "lacks echo"),
    ],
)
async def test_tools_are_verified_before_anything_changes(
    strategy: str, check: Any, tools: list[Any], complaint: str, old: ScriptedServer, new: ScriptedServer, manager: Any
) -> None:
    old.script_always("tools/list", faults.Result({"tools": [TOOL]}))
    new.script_always("tools/list", faults.Result({"tools": tools}))
    await manager.deploy("a", settings(old, 2, name="old"))
    replacing = manager.redeploy("a", settings(new, 2, name="new"), **plan(strategy), verify_tools=check)
    if not complaint:
        await replacing
    else:
        with pytest.raises(RolloutError, match=complaint) as caught:
            await replacing
        assert caught.value.server_id == "a"
    assert manager.server("a").name == ("old" if complaint else "new")
    await eventually(lambda: counts(manager) == (2, 2, 0), "two instances")
    await manager.ping("a")


async def test_an_old_one_that_cannot_list_its_tools_leaves_nothing_to_compare(
    new: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", {"command": "/no/such/program", **CALM})
    await manager.redeploy("a", settings(new, 1), verify_tools="same")
    await manager.ping("a")


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_scaling_meanwhile_holds(
    strategy: str, old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", settings(old, 2))
    hold = faults.Hold()
    new.script_always("initialize", hold)
    rollout = asyncio.create_task(manager.redeploy("a", settings(new, 3), **plan(strategy)))
    await new.wait_for("initialize")
    assert manager.server("a").desired == 3
    await manager.scale("a", 5)
    assert manager.server("a").desired == 5
    hold.release()
    await rollout
    await eventually(lambda: counts(manager) == (5, 5, 0), "five instances")
    assert len(new.live_sessions) == 5


async def test_scaling_while_a_replacement_fails_holds(old: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", settings(old, 2))
    with ScriptedServer() as new:
        hold = faults.Hold()
        new.script_always("initialize", hold)
        rollout = asyncio.create_task(manager.redeploy("a", settings(new, 3)))
        await new.wait_for("initialize")
        await manager.scale("a", 4)
        new.refuse_connections()
        with pytest.raises(CallError):
            await rollout
    await eventually(lambda: counts(manager) == (4, 4, 0), "four instances")


async def test_one_replacement_waits_for_another(old: ScriptedServer, new: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", settings(old, 2))
    async with Traffic(manager, "a") as traffic:
        names = [f"new {number}" for number in range(4)]
        await asyncio.gather(
            *(
                manager.redeploy("a", settings(new, 1 + number, name=name), **plan(STRATEGIES[number % 3]))
                for number, name in enumerate(names)
            )
        )
        await traffic.goes_on()
    assert traffic.failures == {}
    assert (manager.server("a").name, counts(manager)) == ("new 3", (4, 4, 0))


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_cancelled_it_is_taken_back(
    strategy: str, old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", settings(old, 3, name="old"))
    for passes in (0, 1, 2, 5, 10, 20, 40, 80):
        async with Traffic(manager, "a", name=f"{passes}") as traffic:
            await traffic.goes_on(4)
            rollout = asyncio.create_task(manager.redeploy("a", settings(new, 3, name="new"), **plan(strategy)))
            for _ in range(passes):
                await asyncio.sleep(0)
            rollout.cancel()
            await asyncio.wait({rollout})
            await traffic.goes_on(4)
        assert traffic.failures == {}
        await eventually(lambda: counts(manager) == (3, 3, 0), "three instances")
        # Handshakes that were broken off may have left sessions at the new server.
        assert len(old.live_sessions) == (0 if manager.server("a").name == "new" else 3)
        if manager.server("a").name == "new":
            await manager.redeploy("a", settings(old, 3, name="old"))


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_removing_the_server_ends_it(
    strategy: str, old: ScriptedServer, new: ScriptedServer, manager: McpManager
) -> None:
    await manager.deploy("a", settings(old, 2))
    new.script_always("initialize", faults.Hold())
    rollouts = [asyncio.create_task(manager.redeploy("a", settings(new, 2), **plan(strategy))) for _ in range(2)]
    await new.wait_for("initialize")
    await manager.undeploy("a")
    for rollout in rollouts:
        with pytest.raises(ServerNotFoundError):
            await rollout
    assert manager.servers() == []


async def test_stopping_ends_it(old: ScriptedServer, new: ScriptedServer) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", settings(old, 2))
        new.script_always("initialize", faults.Hold())
        rollout = asyncio.create_task(manager.redeploy("a", settings(new, 2)))
        await new.wait_for("initialize")
    with pytest.raises(ConnectError, match="being stopped"):
        await rollout


async def test_maintenance_outlasts_it(old: ScriptedServer, new: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", settings(old, 1))
    await manager.set_maintenance("a", True)
    await manager.redeploy("a", settings(new, 2))
    assert manager.server("a").state == "Maintenance"
    await manager.set_maintenance("a", False)
    await manager.ping("a")


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "red"},
        {"verify_tools": "all"},
        {"batch": 0},
        {"batch": True},
        {"batch": 1.5},
        {"min_calls": -1},
        {"percentage": 0},
        {"percentage": 100},
        {"percentage": float("nan")},
        {"canary_s": 0.0},
        {"canary_s": float("inf")},
    ],
)
async def test_what_cannot_be_is_refused(wrong: dict[str, Any], old: ScriptedServer, manager: McpManager) -> None:
    await manager.deploy("a", settings(old, 1, name="old"))
    with pytest.raises(ConfigError):
        await manager.redeploy("a", settings(old, 1, name="new"), **wrong)
    assert manager.server("a").name == "old"
