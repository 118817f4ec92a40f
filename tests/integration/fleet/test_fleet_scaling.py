"""A fleet of real processes grows, shrinks and is replaced at constant load: no call fails, none is executed twice.

The ledger that the programs share is held against what the callers saw at the end of every ``PacedCalls``. ``pytest -s``
shows how long each change took, and what it did to the latencies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.calls import SWIFT, eventually
from support.ledger import PacedCalls, noting_http, noting_stdio, read_ledger

from mcp_manager import CallError, McpManager, McpManagerError

# Calls take a while, so that whoever is taken away always has some.
TAKES_S = 0.03
SETTINGS: dict[str, Any] = {**SWIFT, "connect_timeout_s": 20.0}
STRATEGIES: dict[str, dict[str, Any]] = {
    "blue_green": {},
    "rolling": {},
    "rolling, two at a time": {"strategy": "rolling", "batch": 2},
    "canary": {"percentage": 30.0, "canary_s": 0.3, "min_calls": 10},
}
Took = Callable[[str, PacedCalls, float], None]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
async def manager() -> AsyncIterator[McpManager]:
    async with McpManager() as manager:
        yield manager


@pytest.fixture
def took(record_property: Callable[[str, object], None]) -> Took:
    """Note, and print, how long a change took, and the latencies of the calls that were under way or came meanwhile."""

    def note(what: str, calls: PacedCalls, began_s: float) -> None:
        now_s = time.monotonic()
        latencies = sorted(each.ended_s - each.began_s for each in calls.ended if each.ended_s >= began_s)
        p99_s = latencies[len(latencies) * 99 // 100]
        record_property(f"{what}: took_s", round(now_s - began_s, 3))
        record_property(f"{what}: p99_s", round(p99_s, 3))
        print(
            f"\n{what}: {now_s - began_s:.2f} s, {len(latencies)} calls meanwhile, p99 {1000 * p99_s:.0f} ms,"
            f" failed: {len(calls.failures)}"
        )

    return note


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def counts(manager: McpManager) -> tuple[int, int, int]:
    view = manager.server("a")
    return view.desired, view.ready, view.draining


async def test_children_are_scaled_from_one_to_eight_to_two(ledger: Path, manager: McpManager, took: Took) -> None:
    others = children()
    await manager.deploy("a", noting_stdio(ledger, seconds=TAKES_S).config(**SETTINGS))
    async with PacedCalls(manager, ledger) as calls:
        await calls.answered(20)
        began_s = time.monotonic()
        await manager.scale("a", 8)
        assert counts(manager) == (8, 8, 0)
        took("scale 1 to 8", calls, began_s)
        await eventually(lambda: len({each.pid for each in read_ledger(ledger)}) == 8, "all of them take calls")
        kept = set(manager.server("a").pids[:2])
        began_s = time.monotonic()
        await manager.scale("a", 2)
        await eventually(lambda: counts(manager) == (2, 2, 0), "the others have drained")
        took("scale 8 to 2", calls, began_s)
        executed = len(read_ledger(ledger))
        await calls.answered(20)
    assert [each.error for each in calls.failures] == []
    assert children() - others == kept
    assert {entry.pid for entry in read_ledger(ledger)[executed:]} <= kept


async def test_servers_of_a_list_are_scaled_from_one_to_three_to_one(
    ledger: Path, manager: McpManager, took: Took
) -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(noting_http(ledger, seconds=TAKES_S)) for _ in range(3)]
        urls = [server.url for server in servers]
        await manager.deploy("a", {"url": urls, "instances": 1, **SETTINGS})
        async with PacedCalls(manager, ledger) as calls:
            await calls.answered(20)
            began_s = time.monotonic()
            await manager.scale("a", 3)
            await eventually(lambda: len({each.pid for each in read_ledger(ledger)}) == 3, "all of them take calls")
            await manager.scale("a", 1)
            await eventually(lambda: counts(manager) == (1, 1, 0), "the others have drained")
            took("scale a list of URLs 1 to 3 to 1", calls, began_s)
            executed = len(read_ledger(ledger))
            await calls.answered(20)
        assert [each.error for each in calls.failures] == []
        assert {entry.pid for entry in read_ledger(ledger)[executed:]} == {servers[0].pid}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
async def test_a_new_release_replaces_all_instances(ledger: Path, manager: McpManager, took: Took, name: str) -> None:
    others = children()
    plan = {"strategy": name, **STRATEGIES[name]}
    await manager.deploy("a", noting_stdio(ledger, seconds=TAKES_S).config(instances=4, **SETTINGS))
    old = set(manager.server("a").pids)
    async with PacedCalls(manager, ledger) as calls:
        await calls.answered(20)
        began_s = time.monotonic()
        # Quicker than the old one by more than a busy machine delays its calls, or a canary would be sent away for it.
        release = noting_stdio(ledger, seconds=TAKES_S / 10, release="2").config(instances=4, **SETTINGS)
        await manager.redeploy("a", release, verify_tools="same", **plan)
        took(f"redeploy, {name}", calls, began_s)
        executed = len(read_ledger(ledger))
        await calls.answered(40)
    assert [each.error for each in calls.failures] == []
    assert counts(manager) == (4, 4, 0)
    assert len(children() - others) == 4
    assert not children() & old
    assert {entry.release for entry in read_ledger(ledger)[executed:]} == {"2"}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
async def test_a_release_that_does_not_start_leaves_the_old_one_serving(
    ledger: Path, manager: McpManager, name: str
) -> None:
    plan = {"strategy": name, **STRATEGIES[name]}
    await manager.deploy("a", noting_stdio(ledger, seconds=TAKES_S).config(instances=3, **SETTINGS))
    old = set(manager.server("a").pids)
    broken = noting_stdio(ledger.parent / "no such directory" / "ledger").config(instances=3, **SETTINGS)
    async with PacedCalls(manager, ledger) as calls:
        await calls.answered(20)
        with pytest.raises(CallError):
            await manager.redeploy("a", broken, **plan)
        await calls.answered(20)
    assert [each.error for each in calls.failures] == []
    assert set(manager.server("a").pids) == old


async def test_growing_shrinking_and_replacing_at_the_same_time_still_lose_nothing(
    ledger: Path, manager: McpManager
) -> None:
    def release(number: int) -> dict[str, Any]:
        return noting_stdio(ledger, seconds=TAKES_S, release=str(number)).config(instances=2, **SETTINGS)

    await manager.deploy("a", release(1))
    async with PacedCalls(manager, ledger) as calls:
        await calls.answered(20)
        async with asyncio.TaskGroup() as changes:
            changes.create_task(manager.redeploy("a", release(2), strategy="rolling"))
            for instances in (5, 1, 3):
                changes.create_task(manager.scale("a", instances))
                await calls.more(10)
        await eventually(lambda: counts(manager) == (3, 3, 0), "what was asked for last holds")
        await calls.answered(20)
    assert [each.error for each in calls.failures] == []


@pytest.mark.parametrize("strategy", ["blue_green", "rolling"])
async def test_servers_at_other_addresses_take_over(
    ledger: Path, manager: McpManager, took: Took, strategy: Any
) -> None:
    with contextlib.ExitStack() as stack:
        old = [stack.enter_context(noting_http(ledger, seconds=TAKES_S)) for _ in range(2)]
        new = [stack.enter_context(noting_http(ledger, seconds=TAKES_S, release="2")) for _ in range(2)]
        await manager.deploy("a", {"url": [server.url for server in old], **SETTINGS})
        async with PacedCalls(manager, ledger) as calls:
            await calls.answered(20)
            began_s = time.monotonic()
            await manager.redeploy("a", {"url": [server.url for server in new], **SETTINGS}, strategy=strategy)
            took(f"redeploy to other URLs, {strategy}", calls, began_s)
            executed = len(read_ledger(ledger))
            for server in old:
                # Nobody needs them any more.
                server.kill()
            await calls.answered(40)
        assert [each.error for each in calls.failures] == []
        assert {entry.release for entry in read_ledger(ledger)[executed:]} == {"2"}


async def test_an_instance_that_dies_during_a_rolling_replacement_costs_its_own_calls_alone(
    ledger: Path, manager: McpManager
) -> None:
    await manager.deploy("a", noting_stdio(ledger, seconds=TAKES_S).config(instances=4, **SETTINGS))
    old = manager.server("a").pids
    async with PacedCalls(manager, ledger) as calls:
        await calls.answered(20)
        release = noting_stdio(ledger, seconds=TAKES_S, release="2").config(instances=4, **SETTINGS)
        change = asyncio.create_task(manager.redeploy("a", release, strategy="rolling"))
        await eventually(lambda: any(entry.release == "2" for entry in read_ledger(ledger)), "the first new one serves")
        victim = next(pid for pid in manager.server("a").pids if pid in old)
        os.kill(victim, signal.SIGKILL)
        await change
        await eventually(lambda: counts(manager) == (4, 4, 0), "the fleet is whole")
        executed = len(read_ledger(ledger))
        await calls.answered(40)
    assert len(calls.failures) <= 8
    assert {entry.release for entry in read_ledger(ledger)[executed:]} == {"2"}
    assert victim not in manager.server("a").pids


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_happens_in_whatever_order_the_accounts_are_right_in_the_end(
    ledger: Path, manager: McpManager, seed: int
) -> None:
    chance = random.Random(seed)
    print(f"\nseed {seed}")
    settings = {**SETTINGS, "breaker": {"open_s": 0.1, "open_max_s": 0.2, "timeout_floor_s": 0.1}}

    def release(number: int) -> dict[str, Any]:
        return noting_stdio(ledger, seconds=TAKES_S, release=str(number)).config(instances=3, **settings)

    def strike(number: int) -> None:
        pids = manager.server("a").pids
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(pids), number)

    async def replace(number: int) -> None:
        # Which is refused if a new one is struck before it serves.
        with contextlib.suppress(McpManagerError):
            await manager.redeploy("a", release(number), strategy="rolling")

    await manager.deploy("a", release(0))
    async with PacedCalls(manager, ledger, timeout_s=1.0) as calls:
        await calls.answered(10)
        async with asyncio.TaskGroup() as changes:
            for step in range(12):
                match chance.choice(["kill", "kill", "halt", "scale", "replace"]):
                    case "kill":
                        strike(signal.SIGKILL)
                    case "halt":
                        strike(signal.SIGSTOP)
                    case "scale":
                        changes.create_task(manager.scale("a", chance.randrange(1, 5)))
                    case "replace":
                        changes.create_task(replace(step))
                await calls.more(20)
                for pid in manager.server("a").pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
        await manager.scale("a", 3)
        await eventually(lambda: counts(manager) == (3, 3, 0), "the fleet is whole")
        await calls.answered(30)
    print(f"{len(calls.ended)} calls, {len(calls.failures)} failed")
