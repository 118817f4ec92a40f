"""Whatever was applied or done before, and whatever else goes on: the fleet becomes what was applied last."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.calls import CALM, eventually
from support.examples import examples
from support.traffic import Traffic

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import McpManagerError
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.testing.scripted import ScriptedServer

NAMES = ["a", "b", "c", "d"]
POLICIES: dict[str, Any] = {
    "tags": st.lists(st.sampled_from(["x", "y"]), max_size=2, unique=True),
    "priority": st.integers(0, 2),
    "server_type": st.sampled_from(["mcp", "search"]),
    "request_timeout_s": st.sampled_from([5.0, 60.0]),
    "instances": st.integers(0, 3),
    "connect": st.sampled_from(["eager", "lazy"]),
    "breaker": st.fixed_dictionaries(
        {"enabled": st.booleans(), "half_open_permits": st.integers(1, 3), "window_s": st.sampled_from([1.0, 10.0])}
    ),
    "balancing": st.fixed_dictionaries(
        {
            "policy": st.sampled_from(["p2c", "weighted", "consistent"]),
            "tiers": st.lists(st.integers(0, 2), max_size=3),
            "weights": st.lists(st.sampled_from([0.5, 2.0]), max_size=3),
        }
    ),
    "limits": st.fixed_dictionaries(
        {"concurrency": st.sampled_from(["aimd", "gradient", "off"]), "max_concurrent": st.sampled_from([0, 50])}
    ),
    "health": st.fixed_dictionaries({"enabled": st.booleans(), "fall": st.integers(1, 3)}),
    "hedge": st.fixed_dictionaries({"enabled": st.booleans()}),
    "cache": st.booleans(),
}
SOME = st.fixed_dictionaries({}, optional={**POLICIES, "headers": st.just({"X-A": "1"})})
ALL = st.fixed_dictionaries(POLICIES)
FLEETS = st.one_of(
    st.fixed_dictionaries({"a": ALL}, optional={"b": SOME}), st.dictionaries(st.sampled_from(NAMES), SOME, max_size=3)
)
PAUSES = st.integers(0, 40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), FLEETS, PAUSES),
        st.tuples(st.just("cancel"), FLEETS, PAUSES),
        st.tuples(st.just("deploy"), st.sampled_from(NAMES), PAUSES),
        st.tuples(st.just("undeploy"), st.sampled_from(NAMES), PAUSES),
        st.tuples(st.just("redeploy"), st.sampled_from(NAMES), PAUSES),
        st.tuples(st.just("scale"), st.sampled_from(NAMES), PAUSES),
    ),
    min_size=1,
    max_size=8,
)

slowly = settings(max_examples=examples(30), suppress_health_check=[HealthCheck.too_slow])


def fleet(server: ScriptedServer, servers: dict[str, dict[str, Any]]) -> ManagerConfig:
    # On a busy machine a handshake may take long.
    base = {"url": server.url, **CALM, "connect_timeout_s": 30.0}
    return ManagerConfig(servers={each: {**base, **servers[each]} for each in servers})  # type: ignore[misc]


def registered(supervisor: Supervisor) -> list[tuple[object, ...]]:
    """What the router knows of a server's instances, apart from what it has learned."""
    return [
        (each.index, backend.weight, backend.tier, repr(backend.settings), backend.limit, backend.channel is None)
        for each in supervisor.instances
        if (backend := each.backend) is not None
    ]


def shown(manager: McpManager) -> dict[str, tuple[object, ...]]:
    """What can be seen of the fleet, apart from what it has been through."""
    found: dict[str, tuple[object, ...]] = {}
    for view in manager.servers():
        supervisor = manager._servers[view.id]
        found[view.id] = (
            (view.name, view.server_type, view.tags, view.priority, view.desired, view.ready, view.state),
            supervisor.config,
            supervisor.record.max_concurrent,
            supervisor.request_timeout_ns,
            registered(supervisor),
        )
    return found


async def seen_after(server: ScriptedServer, *fleets: dict[str, dict[str, Any]]) -> dict[str, tuple[object, ...]]:
    async with McpManager() as manager:
        # From the first look-up on, the index follows what changes.
        manager._fleet.index.group(("x",), None)
        for each in fleets:
            assert (await manager.apply(fleet(server, each))).failed == {}
        again = await manager.apply(fleet(server, fleets[-1]))
        assert again.unchanged == len(fleets[-1])
        assert (again.deployed, again.updated, again.redeployed, again.undeployed) == ((), (), (), ())
        await eventually(lambda: all(each.draining == 0 for each in manager.servers()), "the end of what drains")
        index = manager._fleet.index.group(("x",), None).by_priority()
        tagged = {each for level in index.values() for each in level}
        assert tagged == {view.id for view in manager.servers() if "x" in view.tags}
        return shown(manager)


def comparable(seen: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Leave out the sessions that a lazy server has because it was an eager one before."""
    found = {}
    for server_id, (view, config, *rest) in seen.items():
        is_lazy = config.connect == "lazy"  # type: ignore[attr-defined]
        found[server_id] = (view[:5] if is_lazy else view, config, *(rest[:2] if is_lazy else rest))  # type: ignore[index]
    return found


@slowly
@given(first=FLEETS, second=FLEETS, third=FLEETS)
def test_what_was_there_before_makes_no_difference(
    first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]], third: dict[str, dict[str, Any]]
) -> None:
    with ScriptedServer() as server:
        after_others = asyncio.run(seen_after(server, first, second, third))
        at_once = asyncio.run(seen_after(server, third))
    assert comparable(after_others) == comparable(at_once)


async def live_through(steps: list[tuple[str, Any, int]], last: dict[str, dict[str, Any]]) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            base = fleet(server, {"x": {}}).servers["x"]
            under_way: list[asyncio.Task[Any]] = []
            applying: list[asyncio.Task[Any]] = []
            await manager.deploy("always", base)
            async with Traffic(manager, "always", callers=2) as traffic:
                for what, value, passes in steps:
                    match what:
                        case "apply" | "cancel":
                            task = asyncio.create_task(manager.apply(fleet(server, {**value, "always": {}})))
                            applying.append(task)
                        case "deploy":
                            task = asyncio.create_task(manager.deploy(value, base))
                        case "undeploy":
                            task = asyncio.create_task(manager.undeploy(value))
                        case "redeploy":
                            task = asyncio.create_task(manager.redeploy(value, base))
                        case _:
                            task = asyncio.create_task(manager.scale(value, 2))
                    under_way.append(task)
                    for _ in range(passes):
                        await asyncio.sleep(0)
                    if what == "cancel":
                        task.cancel()
                await asyncio.wait(under_way)
                for task in under_way:
                    with contextlib.suppress(McpManagerError, asyncio.CancelledError):
                        task.result()
                # Whatever the others did, no application of a configuration has failed.
                for task in applying:
                    assert task.cancelled() or task.result().failed == {}
                applied = await manager.apply(fleet(server, {**last, "always": {}}))
                assert applied.failed == {}
                await traffic.goes_on(3)
            assert traffic.failures == {}
            assert sorted(view.id for view in manager.servers()) == sorted([*last, "always"])
            for server_id, wanted in last.items():
                supervisor = manager._servers[server_id]
                assert supervisor.config.tags == tuple(wanted.get("tags", ()))
                assert supervisor.config.headers == wanted.get("headers", {})
            assert (await manager.apply(fleet(server, {**last, "always": {}}))).unchanged == len(last) + 1


@slowly
@given(steps=STEPS, last=FLEETS)
def test_everything_at_once(steps: list[tuple[str, Any, int]], last: dict[str, dict[str, Any]]) -> None:
    asyncio.run(live_through(steps, last))
