"""What is told of a server is a chain that ends with its present state, whatever happens to it and whoever looks."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager import ChildExited, ChildStarted, CircuitChanged, Event, ServerState, ServerStateChanged
from mcp_manager.errors import CallError, ConnectError, ConnectionLostError
from mcp_manager.testing.virtual_time import run_in_virtual_time

FAILS = Act(error=lambda: ConnectionLostError("scripted", delivery="unknown"))
RECOVERY_S = 2_000.0

actions = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.05, 0.3, 1.0, 4.0, 11.0, 40.0])),
        st.tuples(st.just("fail"), st.integers(1, 8)),
        st.tuples(st.just("call"), st.integers(1, 8)),
        st.tuples(st.just("kill"), st.integers(0, 2)),
        st.tuples(st.just("reach"), st.booleans()),
        st.tuples(st.just("maintain"), st.booleans()),
        st.tuples(st.just("scale"), st.integers(0, 3)),
        st.tuples(st.just("look"), st.integers(1, 3)),
    ),
    max_size=25,
)


async def act(fleet: ScriptedFleet, what: str, value: Any) -> None:
    supervisor = fleet.supervisor
    match what:
        case "pass":
            await asyncio.sleep(value)
        case "fail":
            fleet.acts.extend([FAILS] * value)
        case "call":
            for _ in range(value):
                try:
                    await fleet.tool(timeout_s=2.0)
                except CallError:
                    continue
        case "kill" if value in fleet.running and fleet.config.transport == "stdio":
            fleet.kill(value)
        case "reach":
            fleet.unreachable = (
                {} if value else {index: lambda: ConnectError("no way", server_id="a") for index in range(3)}
            )
        case "maintain":
            supervisor.set_maintenance(value)
            fleet.monitor.reassess(supervisor)
        case "scale":
            for instance in supervisor.scale(value):
                supervisor.spawn(probed(fleet, instance))
        case "look":
            for _ in range(value):
                fleet.monitor.state(supervisor)


async def probed(fleet: ScriptedFleet, instance: Any) -> None:
    await fleet.monitor.probe(instance)


async def story(steps: list[tuple[str, Any]], settings: dict[str, Any]) -> None:
    fleet = ScriptedFleet(
        instances=1, max_instances=3, connect="eager", health={}, breaker={"consecutive_failures": 3}, **settings
    )
    stream = fleet.template.host.events.listen(None, (), 100_000, None)
    fleet.monitor.start()
    await fleet.connect()
    for step in steps:
        await act(fleet, *step)
    await asyncio.sleep(0.01)
    changes = of_kind(stream._items, ServerStateChanged)
    before = ServerState.INITIALIZING
    for each in changes:
        assert each.previous is before
        assert each.state is not before
        assert each.duration_s >= 0
        before = each.state
    assert fleet.monitor.shown(fleet.supervisor)[0] is before
    # Once everything is well again, that is what is told last.
    fleet.unreachable, fleet.acts = {}, type(fleet.acts)()
    fleet.supervisor.set_maintenance(False)
    for instance in fleet.supervisor.scale(1):
        await probed(fleet, instance)
    fleet.monitor.reassess(fleet.supervisor)
    await asyncio.sleep(RECOVERY_S)
    changes = of_kind(stream._items, ServerStateChanged)
    assert changes[-1].state is ServerState.HEALTHY
    check_programs(list(stream._items))
    check_circuits(list(stream._items))
    await fleet.aclose()
    stream.close()


def of_kind(events: Any, kind: type[Any]) -> list[Any]:
    return [each for each in events if isinstance(each, kind)]


def check_programs(events: list[Event]) -> None:
    """A program exits only after it was started, unless that is what failed."""
    up: set[int] = set()
    for event in events:
        if isinstance(event, ChildStarted):
            up.add(event.instance)
        elif isinstance(event, ChildExited) and event.was_ready:
            assert event.instance in up
            up.discard(event.instance)


def check_circuits(events: list[Event]) -> None:
    for event in of_kind(events, CircuitChanged):
        assert event.previous != event.circuit
        assert (event.retry_after_s > 0) <= (event.circuit == "Open")


@given(actions)
def test_of_urls(steps: list[tuple[str, Any]]) -> None:
    run_in_virtual_time(story(steps, {}))


@given(actions)
def test_of_programs(steps: list[tuple[str, Any]]) -> None:
    logging.getLogger("mcp_manager").setLevel(logging.CRITICAL)
    try:
        run_in_virtual_time(story(steps, {"command": "server", "restart": {"initial_s": 0.5, "max_s": 8.0}}))
    finally:
        logging.getLogger("mcp_manager").setLevel(logging.NOTSET)
