"""Whatever is asked for, in whatever order and however much of it at once: calls are answered once, and what is wanted comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.calls import CALM, eventually
from support.examples import examples
from support.traffic import Traffic

from mcp_manager import McpManager, RolloutError
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.testing.scripted import ScriptedServer

PLANS = st.sampled_from(
    [
        {"strategy": "blue_green"},
        {"strategy": "rolling"},
        {"strategy": "rolling", "batch": 3},
        {"strategy": "canary", "canary_s": 0.02, "min_calls": 0, "percentage": 30},
    ]
)
PAUSES = st.integers(0, 60)
SCALES = st.tuples(st.just("scale"), st.integers(0, 5), st.none(), PAUSES)
REDEPLOYS = st.tuples(st.just("redeploy"), st.integers(0, 4), PLANS, PAUSES)
CANCELLED = st.tuples(st.just("cancel"), st.integers(1, 4), PLANS, PAUSES)
STEPS = st.lists(st.one_of(SCALES, REDEPLOYS, CANCELLED), min_size=1, max_size=8)

slowly = settings(max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow])


def check_places(supervisor: Supervisor) -> None:
    """No two instances of one configuration take traffic in one place, and no two of any have one number."""
    places = Counter((id(each.template), each.index) for each in supervisor.instances)
    assert max(places.values(), default=1) == 1, places
    numbers = [each.number for each in supervisor.instances]
    assert len(set(numbers)) == len(numbers)
    if supervisor.rollout is None:
        assert [each.index for each in supervisor.instances] == list(range(supervisor.desired))


async def watch(supervisor: Supervisor) -> None:
    while True:
        check_places(supervisor)
        await asyncio.sleep(0)


class World:
    """A server that is asked for everything at once, by callers and by its operator."""

    def __init__(self, server: ScriptedServer, manager: McpManager) -> None:
        self.server = server
        self.manager = manager
        self.under_way: list[asyncio.Task[None]] = []
        self.has_been_empty = False
        self.number = 0

    def config(self, instances: int) -> dict[str, Any]:
        self.number += 1
        self.has_been_empty |= instances == 0
        # The observer below never pauses: on a busy machine a handshake beside it may take seconds.
        patient = {"connect_timeout_s": 60.0}
        return {"url": self.server.url, **CALM, **patient, "instances": instances, "name": f"version {self.number}"}

    async def take(self, what: str, instances: int, plan: dict[str, Any] | None, passes: int) -> None:
        self.has_been_empty |= instances == 0
        if what == "scale":
            work = self.manager.scale("a", instances)
        else:
            work = self.manager.redeploy("a", self.config(instances), **(plan or {}))
        task = asyncio.create_task(work)
        self.under_way.append(task)
        for _ in range(passes):
            await asyncio.sleep(0)
        if what == "cancel":
            task.cancel()

    async def end(self) -> None:
        outcomes = await asyncio.gather(*self.under_way, return_exceptions=True)
        # On a busy machine a canary may be found too slow: then it is as if it had never been.
        failures = [each for each in outcomes if isinstance(each, Exception)]
        assert [each for each in failures if not isinstance(each, RolloutError)] == []


async def live_through(steps: list[tuple[str, int, dict[str, Any] | None, int]], finally_wanted: int) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            world = World(server, manager)
            await manager.deploy("a", world.config(2))
            [supervisor] = manager._servers.values()
            watching = asyncio.create_task(watch(supervisor))
            async with Traffic(manager, "a", callers=3) as traffic:
                for step in steps:
                    await world.take(*step)
                await world.end()
                await manager.scale("a", finally_wanted)
                if finally_wanted:
                    await traffic.goes_on(5)
            watching.cancel()
            await asyncio.wait({watching})
            assert watching.cancelled(), watching.exception()
            if not world.has_been_empty and finally_wanted:
                assert traffic.failures == {}
            # Refused for want of an instance, a call has gone nowhere.
            assert {error.delivery for error in traffic.failures.values()} <= {"not_sent"}
            assert Counter(server.executed) == Counter(traffic.answered)
            assert manager.server("a").desired == finally_wanted
            await eventually(lambda: manager.server("a").ready == finally_wanted, "what is wanted")
            await eventually(lambda: manager.server("a").draining == 0, "the end of what drains")
            check_places(supervisor)
            used = {each.headers["mcp-session-id"] for each in server.requests_of("tools/call")}
            # Of the sessions that were broken off in their handshake, none was ever called on.
            assert len(server.live_sessions & used) <= finally_wanted


@slowly
@given(STEPS, st.integers(0, 4))
def test_no_call_is_lost_or_made_twice_and_what_is_wanted_comes(
    steps: list[tuple[str, int, dict[str, Any] | None, int]], finally_wanted: int
) -> None:
    asyncio.run(live_through(steps, finally_wanted))


@settings(max_examples=examples(50), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20)), min_size=1, max_size=12))
def test_of_many_numbers_the_last_one_holds(numbers: list[tuple[int, int]]) -> None:
    async def scale_often() -> None:
        with ScriptedServer() as server:
            async with McpManager() as manager:
                await manager.deploy("a", {"url": server.url, **CALM})
                under_way = []
                for number, passes in numbers:
                    under_way.append(asyncio.create_task(manager.scale("a", number)))
                    for _ in range(passes):
                        await asyncio.sleep(0)
                await asyncio.gather(*under_way)
                last = numbers[-1][0]
                assert (manager.server("a").desired, manager.server("a").ready) == (last, last)
                await eventually(lambda: manager.server("a").draining == 0, "the end of what drains")

    asyncio.run(scale_often())
