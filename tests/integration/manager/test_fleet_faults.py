"""What a fleet makes of real faults in real processes under load: no lost call, none executed twice, and how soon it is over.

The ledger that the servers share is held against what the callers saw at the end of every ``PacedCalls``. ``pytest -s``
shows the recovery times; they are properties of the tests in a JUnit report, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calls import SWIFT, eventually
from support.ledger import PacedCalls, noting_http, noting_stdio, read_ledger
from support.processes import HttpServerProcess

from mcp_manager import McpManager, ServerState

# Deadlines of a few tenths of a second count against a server here.
QUICK: dict[str, Any] = {
    **SWIFT,
    "breaker": {"open_s": 0.1, "open_max_s": 0.2, "timeout_floor_s": 0.1},
    "connect_timeout_s": 10.0,
}
# A call is noted before it takes this long: whatever is killed has some that were executed and not answered.
TAKES_S = 0.03
Recovered = Callable[[str, PacedCalls, float], None]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def recovered(record_property: Callable[[str, object], None]) -> Recovered:
    """Note, and print, how long after a fault the last call failed, and how many did."""

    def note(what: str, calls: PacedCalls, fault_s: float) -> None:
        seconds = calls.recovery_s(fault_s)
        record_property(f"{what}: recovery_s", round(seconds, 3))
        record_property(f"{what}: failed calls", len(calls.failures))
        errors = Counter(f"{type(each.error).__name__}, {each.error.delivery}" for each in calls.failures if each.error)
        print(f"\n{what}: last failure after {1000 * seconds:.0f} ms; {len(calls.ended)} calls, failed: {dict(errors)}")

    return note


@contextlib.contextmanager
def fleet_of_three(ledger: Path, *, first_takes_s: float = TAKES_S) -> Iterator[list[HttpServerProcess]]:
    with contextlib.ExitStack() as stack:
        takes_s = (first_takes_s, TAKES_S, TAKES_S)
        yield [stack.enter_context(noting_http(ledger, seconds=seconds)) for seconds in takes_s]


def urls(servers: list[HttpServerProcess]) -> dict[str, Any]:
    return {"url": [server.url for server in servers]}


def go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


async def is_whole(manager: McpManager, instances: int) -> None:
    def look() -> bool:
        view = manager.server("a")
        return view.ready == instances and view.state is ServerState.HEALTHY

    await eventually(look, f"all {instances} instances are back")


async def test_a_child_that_is_killed_is_replaced_and_the_others_go_on(ledger: Path, recovered: Recovered) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", noting_stdio(ledger, seconds=TAKES_S).config(instances=3, **QUICK))
        async with PacedCalls(manager, ledger) as calls:
            await calls.answered(20)
            victim = manager.server("a").pids[1]
            fault_s = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            await eventually(lambda: victim not in manager.server("a").pids, "the death is noticed")
            await is_whole(manager, 3)
            await calls.answered(40)
        recovered("kill -9, one child of three", calls, fault_s)
        # What was under way on it, and no more: the others take the rest.
        assert len(calls.failures) <= 8
        assert victim not in manager.server("a").pids


async def test_calls_that_do_no_harm_twice_are_all_answered_when_one_child_of_three_is_killed(ledger: Path) -> None:
    async with McpManager() as manager:
        config = noting_stdio(ledger, seconds=TAKES_S).config(instances=3, retry={"tools": {"look": "safe"}}, **QUICK)
        await manager.deploy("a", config)
        async with PacedCalls(manager, ledger, tool="look") as calls:
            for _ in range(3):
                await calls.answered(40)
                victim = manager.server("a").pids[1]
                os.kill(victim, signal.SIGKILL)
                await eventually(lambda victim=victim: victim not in manager.server("a").pids, "the death is noticed")
                await is_whole(manager, 3)
        assert [each.error for each in calls.failures] == []


async def test_an_only_child_that_is_killed_again_and_again_comes_back_each_time(
    ledger: Path, recovered: Recovered
) -> None:
    async with McpManager() as manager:
        await manager.deploy("a", noting_stdio(ledger, seconds=TAKES_S).config(**QUICK))
        async with PacedCalls(manager, ledger) as calls:
            for _ in range(3):
                await calls.answered(20)
                [victim] = manager.server("a").pids
                fault_s = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                await eventually(lambda victim=victim: manager.server("a").pids not in ((), (victim,)), "another runs")
                await calls.answered(10)
        recovered("kill -9, an only child", calls, fault_s)


async def test_a_server_that_is_killed_and_started_again_on_its_port_is_found_again(
    ledger: Path, recovered: Recovered
) -> None:
    with noting_http(ledger, seconds=TAKES_S) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **QUICK})
            async with PacedCalls(manager, ledger) as calls:
                await calls.answered(20)
                server.kill()
                await calls.fails()
                await asyncio.to_thread(server.start)
                restarted_s = time.monotonic()
                await calls.answered(40)
                await is_whole(manager, 1)
            recovered("restart of an only server, since it serves again", calls, restarted_s)


async def test_a_server_that_forgot_its_sessions_between_two_calls_fails_none(ledger: Path) -> None:
    with noting_http(ledger, seconds=TAKES_S) as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **QUICK})
            async with PacedCalls(manager, ledger) as calls:
                await calls.answered(20)
            # Nothing is under way, and only the next call finds out.
            await asyncio.to_thread(server.restart)
            async with PacedCalls(manager, ledger, first=len(calls.ended)) as later:
                await later.answered(20)
            assert [each.error for each in later.failures] == []


async def test_one_server_of_three_that_is_killed_hurts_what_it_had_and_no_more(
    ledger: Path, recovered: Recovered
) -> None:
    with fleet_of_three(ledger) as servers:
        async with McpManager() as manager:
            await manager.deploy("a", {**urls(servers), **QUICK})
            async with PacedCalls(manager, ledger) as calls:
                await calls.answered(30)
                fault_s = time.monotonic()
                servers[0].kill()
                await calls.answered(60)
                recovered("kill -9, one server of three", calls, fault_s)
                await asyncio.to_thread(servers[0].start)
                back = servers[0].pid
                await eventually(lambda: any(e.pid == back for e in read_ledger(ledger)), "it takes calls again")
                await is_whole(manager, 3)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_one_of_three_that_is_halted_fails_its_calls_at_their_deadline_and_serves_again_when_it_goes_on(
    ledger: Path, recovered: Recovered, transport: str
) -> None:
    with contextlib.ExitStack() as stack:
        if transport == "http":
            servers = stack.enter_context(fleet_of_three(ledger))
            config, pid = urls(servers), servers[0].pid
        else:
            config, pid = noting_stdio(ledger, seconds=TAKES_S).config(instances=3), 0
        async with McpManager() as manager:
            await manager.deploy("a", {**config, **QUICK, "health": {**SWIFT["health"], "timeout_s": 0.3}})
            pid = pid or manager.server("a").pids[0]
            async with PacedCalls(manager, ledger, timeout_s=0.4) as calls:
                await calls.answered(30)
                os.kill(pid, signal.SIGSTOP)
                stack.callback(go_on, pid)
                fault_s = time.monotonic()
                await calls.fails()
                await calls.answered(60)
                recovered(f"SIGSTOP, one of three over {transport}", calls, fault_s)
                executed = len(read_ledger(ledger))
                go_on(pid)
                await eventually(
                    lambda: any(entry.pid == pid for entry in read_ledger(ledger)[executed:]), "it serves again"
                )
                await is_whole(manager, 3)
                await calls.answered(40)


@pytest.mark.slow
async def test_a_slow_instance_gets_few_of_the_calls(ledger: Path) -> None:
    with fleet_of_three(ledger, first_takes_s=0.5) as servers:
        async with McpManager() as manager:
            await manager.deploy("a", {**urls(servers), **QUICK})
            async with PacedCalls(manager, ledger) as calls:
                await calls.answered(300)
            assert calls.failures == []
            shares = Counter(entry.pid for entry in read_ledger(ledger))
            print(f"\nslow instance: {shares[servers[0].pid]} of {shares.total()} calls")
            assert 1 <= shares[servers[0].pid] <= shares.total() // 10


@pytest.mark.slow
async def test_a_flapping_server_loses_no_call_and_serves_whenever_it_is_up(ledger: Path, recovered: Recovered) -> None:
    with fleet_of_three(ledger) as servers:
        async with McpManager() as manager:
            await manager.deploy("a", {**urls(servers), **QUICK})
            async with PacedCalls(manager, ledger) as calls:
                await calls.answered(20)
                fault_s = time.monotonic()
                for _ in range(4):
                    servers[1].kill()
                    await calls.answered(20)
                    await asyncio.to_thread(servers[1].start)
                    await calls.answered(20)
                await is_whole(manager, 3)
            recovered("flapping, one server of three", calls, fault_s)
            assert len({entry.pid for entry in read_ledger(ledger)}) >= 4
