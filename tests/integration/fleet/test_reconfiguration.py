"""A server whose settings change, by redeployment or in place, behaves as one that was deployed with the new ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.calls import CALM, echo

from mcp_manager import ManagerConfig, McpManager, OverloadedError
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import ScriptedServer

PROBED = {"interval_s": 0.05, "idle_interval_s": 0.05, "jitter": 0.0}
FREE = {"concurrency": "off"}
NARROW = {"concurrency": "gradient", "initial": 2, "max_waiting": 0}
AIMD = {"concurrency": "aimd"}
STRATEGIES = ["blue_green", "rolling", "in place"]


async def redeployed(
    manager: McpManager, server: ScriptedServer, before: dict[str, Any], after: dict[str, Any], strategy: str
) -> None:
    await manager.deploy("a", {"url": server.url, **CALM, **before})
    wanted = {"url": server.url, **CALM, **after}
    if strategy == "in place":
        applied = await manager.apply(ManagerConfig(servers={"a": wanted}))
        assert applied.updated == ("a",)
    else:
        await manager.redeploy("a", wanted, strategy=strategy)


async def arriving(manager: McpManager, server: ScriptedServer, calls: int, expected: int) -> list[BaseException]:
    """Make calls that are never answered, wait until as many as expected are there, and return why others are not."""
    tasks = [asyncio.ensure_future(manager.execute_raw("a", echo(str(each)))) for each in range(calls)]
    await server.wait_for("tools/call", expected)
    refused = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [outcome for task, outcome in zip(tasks, outcomes, strict=True) if task in refused]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("before", "after", "expected"), [(NARROW, FREE, 6), (NARROW, AIMD, 6), (AIMD, NARROW, 2), (FREE, NARROW, 2)]
)
async def test_the_limit_of_calls_is_that_of_the_new_settings(
    before: dict[str, Any], after: dict[str, Any], expected: int, strategy: str
) -> None:
    with ScriptedServer() as server:
        server.script_always("tools/call", Hold())
        async with McpManager() as manager:
            await redeployed(manager, server, {"limits": before}, {"limits": after}, strategy)
            refused = await arriving(manager, server, 6, expected)
            assert [type(each) for each in refused] == [OverloadedError] * (6 - expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_probing_begins_where_the_old_settings_had_none(strategy: str) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await redeployed(manager, server, {"health": {"enabled": False}}, {"health": PROBED}, strategy)
            await server.wait_for("ping", 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_probes_come_as_often_as_the_new_settings_say(strategy: str) -> None:
    seldom = {"interval_s": 3600.0, "idle_interval_s": 3600.0}
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await redeployed(manager, server, {"health": seldom}, {"health": PROBED}, strategy)
            await server.wait_for("ping", 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "before", [{"instances": 1, "health": {"outliers": True}}, {"instances": 5, "health": {"outliers": False}}]
)
async def test_outliers_are_looked_for_as_soon_as_there_may_be_any(before: dict[str, Any], strategy: str) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await redeployed(manager, server, before, {"instances": 5, "health": {"outliers": True}}, strategy)
            # A sweep comes every ten seconds: that it will is all there is to see.
            assert list(manager._monitor._sweeps) == [manager._servers["a"]]
