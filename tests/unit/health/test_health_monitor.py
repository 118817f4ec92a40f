"""When the monitor probes, what it finds, and what it shows, on a clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager.errors import CallError, ConnectionLostError
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.types import ServerState

HEALTHY, DEGRADED, UNHEALTHY = ServerState.HEALTHY, ServerState.DEGRADED, ServerState.UNHEALTHY
FAILS = Act(error=lambda: ConnectionLostError("scripted", delivery="unknown"))
NEVER_TRIPS = {"min_calls": 1_000_000, "consecutive_failures": 1_000_000, "window_s": 10.0}


@contextlib.asynccontextmanager
async def probed(
    *, instances: int = 1, breaker: dict[str, Any] | None = None, **health: Any
) -> AsyncIterator[ScriptedFleet]:
    fleet = ScriptedFleet(
        instances=instances, health=health, breaker=breaker or NEVER_TRIPS, retry={"attempts": 1}, connect="eager"
    )
    fleet.monitor.start()
    await fleet.connect()
    try:
        yield fleet
    finally:
        await fleet.aclose()


def shown(fleet: ScriptedFleet) -> ServerState | None:
    """What is kept, without anything being judged for the question."""
    standing = fleet.monitor.tally.standing(fleet.supervisor)
    tally = fleet.monitor.tally
    state = standing.state if standing is not None else None
    assert tally.counts == (1, state is HEALTHY, state is UNHEALTHY)
    return state


def reasons(fleet: ScriptedFleet) -> tuple[str, ...]:
    standing = fleet.monitor.tally.standing(fleet.supervisor)
    return standing.reasons if standing is not None else ()


def test_an_idle_instance_is_probed_seldom_and_never_by_a_call_of_a_tool() -> None:
    async def work() -> None:
        async with probed() as fleet:
            assert shown(fleet) is HEALTHY
            await asyncio.sleep(600)
            assert {each.method for each in fleet.sent} == {"ping"}
            assert fleet.sent[0].at_s <= 30.1
            assert all(54.0 <= gap <= 66.1 for gap in fleet.gaps_s)
            assert len(fleet.sent) >= 9

    run_in_virtual_time(work())


def test_those_that_start_together_are_not_probed_together() -> None:
    async def work() -> None:
        async with probed(instances=40) as fleet:
            await asyncio.sleep(30.5)
            times = sorted(each.at_s for each in fleet.sent)
            assert len(times) == 40
            assert times[0] < 10 < 20 < times[-1]

    run_in_virtual_time(work())


def test_where_traffic_speaks_nothing_is_probed() -> None:
    async def work() -> None:
        async with probed() as fleet:
            for _ in range(100):
                await fleet.tool()
                await asyncio.sleep(9)
            assert {each.method for each in fleet.sent} == {"tools/call"}

    run_in_virtual_time(work())


def test_a_failing_one_is_probed_ever_less_and_shown_as_well_only_when_it_has_stayed_so() -> None:
    async def work() -> None:
        async with probed(jitter=0.0) as fleet:
            fleet.acts.extend([FAILS] * 6)
            seen: list[tuple[ServerState | None, tuple[str, ...]]] = []
            while fleet.passed_s < 400:
                await asyncio.sleep(0.05)
                now = (shown(fleet), reasons(fleet))
                if not seen or seen[-1] != now:
                    seen.append(now)
                    if now[0] is HEALTHY and len(seen) > 1:
                        break
            assert seen == [
                (HEALTHY, ()),
                (DEGRADED, ("probe failed",)),
                (UNHEALTHY, ("probes failing",)),
                (DEGRADED, ("recovering",)),
                (DEGRADED, ("settling",)),
                (HEALTHY, ()),
            ]
            gaps = [round(gap) for gap in fleet.gaps_s]
            assert gaps[:6] == [5, 10, 20, 40, 60, 60]
            assert 10.0 <= fleet.passed_s - fleet.sent[7].at_s <= 10.2

    run_in_virtual_time(work())


def test_failing_calls_show_and_pass_without_anybody_asking() -> None:
    async def work() -> None:
        async with probed() as fleet:
            fleet.acts.extend([Act()] * 38 + [FAILS] * 2)
            for _ in range(40):
                with contextlib.suppress(CallError):
                    await fleet.tool()
            await asyncio.sleep(0.2)
            assert (shown(fleet), reasons(fleet)) == (DEGRADED, ("failing calls",))
            await asyncio.sleep(23)
            assert shown(fleet) is HEALTHY

    run_in_virtual_time(work())


def test_an_open_circuit_shows_when_it_opens_and_when_it_is_due() -> None:
    async def work() -> None:
        breaker = {"consecutive_failures": 2, "open_s": 5.0, "jitter": 0.0}
        async with probed(breaker=breaker, interval_s=1000.0, settle_s=0.0) as fleet:
            fleet.acts.extend([FAILS] * 2)
            for _ in range(2):
                await fleet.failure("tools/call", {"name": "echo", "arguments": {}})
            assert (shown(fleet), reasons(fleet)) == (UNHEALTHY, ("circuit open",))
            fleet.acts.append(Act(takes_s=3.0))
            await asyncio.sleep(5.1)
            assert (shown(fleet), reasons(fleet)) == (DEGRADED, ("circuit half open",))
            await asyncio.sleep(5.0)
            assert shown(fleet) is HEALTHY

    run_in_virtual_time(work())


def test_calls_that_take_longer_than_they_long_have_show() -> None:
    async def work() -> None:
        async with probed() as fleet:
            for _ in range(120):
                fleet.acts.append(Act(takes_s=0.05))
                await fleet.tool()
                await asyncio.sleep(1)
            assert shown(fleet) is HEALTHY
            for _ in range(60):
                fleet.acts.append(Act(takes_s=0.5))
                await fleet.tool()
                await asyncio.sleep(1)
            assert (shown(fleet), reasons(fleet)) == (DEGRADED, ("slow",))
            for _ in range(150):
                fleet.acts.append(Act(takes_s=0.05))
                await fleet.tool()
                await asyncio.sleep(1)
            assert shown(fleet) is HEALTHY

    run_in_virtual_time(work())


def test_no_more_are_probed_at_once_than_may_be() -> None:
    async def work() -> None:
        async with probed(instances=8, interval_s=1.0) as fleet:
            fleet.acts.extend([Act(takes_s=0.7)] * 200)
            busiest = 0
            while fleet.passed_s < 30:
                await asyncio.sleep(0.05)
                busiest = max(busiest, fleet.under_way)
            assert busiest == 1
            assert {each.instance for each in fleet.sent} == set(range(8))

    run_in_virtual_time(work())


def test_one_that_is_removed_while_its_turn_waits_is_not_probed() -> None:
    async def work() -> None:
        async with probed(instances=2, interval_s=1.0) as fleet:
            fleet.acts_of[0].append(Act(takes_s=20.0))
            # Its probe keeps the other, which is due by now, waiting.
            await asyncio.sleep(5.0)
            assert fleet.under_way == 1
            fleet.sent.clear()
            fleet.monitor.instance_removed(fleet.supervisor.instances[1])
            await asyncio.sleep(60.0)
            assert {each.instance for each in fleet.sent} == {0}

    run_in_virtual_time(work())


def test_a_server_that_was_never_used_costs_no_turn_and_its_first_call_makes_it() -> None:
    async def work() -> None:
        fleet = ScriptedFleet(connect="lazy", health={})
        fleet.monitor.start()
        try:
            assert fleet.supervisor.is_inactive
            assert fleet.supervisor.instances == ()
            assert fleet.monitor._timer is None
            assert (shown(fleet), fleet.monitor.state(fleet.supervisor)) == (
                None,
                (ServerState.INITIALIZING, ("unprobed",)),
            )
            await fleet.tool()
            assert shown(fleet) is HEALTHY
            assert not fleet.supervisor.is_inactive
            counts = fleet.router.server_counts("a", 0).methods[0].counts
            assert (counts[0], sum(counts)) == (1, 1)
        finally:
            await fleet.aclose()

    run_in_virtual_time(work())


def test_an_instance_that_fails_more_than_the_others_is_taken_out_and_comes_back() -> None:
    async def work() -> None:
        async with probed(instances=6, outliers=True, settle_s=0.0, breaker={**NEVER_TRIPS, "window_s": 30.0}) as fleet:
            fleet.acts_of[3].extend([FAILS] * 10_000)
            bad = fleet.supervisor.instances[3].backend
            assert bad is not None
            now_ns = fleet.loop.clock()
            for each in fleet.supervisor.instances:
                assert each.backend is not None
                for _ in range(150):
                    lease = fleet.router.pick_on(each.backend, "tools/call", now_ns)
                    fleet.router.done(lease, int(each.backend is bad), int(each.backend is bad), now_ns)
            await asyncio.sleep(10.1)
            assert bad.ejected_until_ns > fleet.loop.clock()
            assert round((bad.ejected_until_ns - now_ns) / 1e9) in (40, 41)
            assert (shown(fleet), set(reasons(fleet))) == (DEGRADED, {"failing calls", "ejected"})
            await asyncio.sleep(33)
            assert shown(fleet) in (HEALTHY, DEGRADED)
            assert "ejected" not in reasons(fleet)

    run_in_virtual_time(work())


def test_nothing_becomes_slow_by_time_alone() -> None:
    async def work(pause_s: float) -> None:
        async with probed(interval_s=1000.0, idle_interval_s=1000.0) as fleet:
            # So many quick ones that a few slow ones, as after a crash, do not show; and then none at all.
            for _ in range(1_000):
                fleet.acts.append(Act(takes_s=0.002))
                await fleet.tool()
            await asyncio.sleep(pause_s)
            fleet.acts.extend([Act(takes_s=1.3)] * 10 + [Act(takes_s=0.002)] * 20)
            await asyncio.gather(*(fleet.tool() for _ in range(10)))
            for _ in range(20):
                await fleet.tool()
            assert fleet.monitor.state(fleet.supervisor) == (HEALTHY, ())
            while fleet.passed_s < 200:
                await asyncio.sleep(0.5)
                assert fleet.monitor.state(fleet.supervisor) == (HEALTHY, ()), fleet.passed_s

    # Wherever the windows of the latencies begin.
    for pause_s in range(0, 30, 3):
        run_in_virtual_time(work(float(pause_s)))


def test_what_stays_slow_shows_as_long_as_it_is_and_no_longer() -> None:
    async def work() -> None:
        async with probed(settle_s=0.0) as fleet:
            for _ in range(120):
                fleet.acts.append(Act(takes_s=0.01))
                await fleet.tool()
                await asyncio.sleep(1)
            shows = 0
            for _ in range(300):
                fleet.acts.append(Act(takes_s=0.5))
                await fleet.tool()
                await asyncio.sleep(0.5)
                shows += fleet.monitor.state(fleet.supervisor) == (DEGRADED, ("slow",))
            assert shows > 200
            await asyncio.sleep(70)
            assert (shown(fleet), reasons(fleet)) == (HEALTHY, ())

    run_in_virtual_time(work())
