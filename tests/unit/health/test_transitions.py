"""What is told of a server's state and circuits: every change once, in a chain, without flicker; on a clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager import ChildExited, ChildStarted, CircuitChanged, Event, EventStream, ServerState, ServerStateChanged
from mcp_manager.errors import CallError, ConnectionLostError, ServerExitedError
from mcp_manager.health.tally import Standing
from mcp_manager.health.transitions import Transitions
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.testing.virtual_time import run_in_virtual_time

HEALTHY, DEGRADED, UNHEALTHY = ServerState.HEALTHY, ServerState.DEGRADED, ServerState.UNHEALTHY
INITIALIZING = ServerState.INITIALIZING
FAILS = Act(error=lambda: ConnectionLostError("scripted", delivery="unknown"))
STEADY = {"min_calls": 1_000_000, "consecutive_failures": 1_000_000, "window_s": 10.0}
RESTART = {"initial_s": 1.0, "max_s": 60.0, "jitter": 0.0, "stable_after_s": 30.0}


@contextlib.asynccontextmanager
async def told(**settings: Any) -> AsyncIterator[tuple[ScriptedFleet, EventStream]]:
    """A fleet whose events are listened to from its beginning."""
    settings = {"breaker": STEADY, "retry": {"attempts": 1}, "connect": "eager", "health": {}, **settings}
    fleet = ScriptedFleet(**settings)
    stream = fleet.template.host.events.listen(None, (), 100_000, None)
    fleet.monitor.start()
    await fleet.connect()
    try:
        yield fleet, stream
    finally:
        await fleet.aclose()


def taken(stream: EventStream, kind: type[Event] = ServerStateChanged) -> list[Any]:
    """What has been told so far."""
    found = [each for each in stream._items if isinstance(each, kind)]
    stream._items.clear()
    return found


def chain(changes: list[ServerStateChanged]) -> list[str]:
    """The states that were told; each change must begin where the one before ended."""
    for before, after in itertools.pairwise(changes):
        assert after.previous is before.state
        assert after.state is not after.previous
    return [f"{each.state.value} ({', '.join(each.reasons)})" for each in changes]


def lines(caplog: pytest.LogCaptureFixture, event: str = "server_state") -> list[str]:
    return [f"{each.levelname} {each.getMessage()}" for each in caplog.records if getattr(each, "event", None) == event]


PROGRAM: dict[str, Any] = {"command": "server", "restart": RESTART}


def test_after_a_kill_there_is_one_warning_and_one_line_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mcp_manager")

    async def work() -> None:
        async with told(**PROGRAM) as (fleet, stream):
            await asyncio.sleep(100)
            assert chain(taken(stream)) == ["Healthy ()"]
            caplog.clear()
            fleet.kill(stderr="out of memory")
            await asyncio.sleep(100)
            warned, back = lines(caplog)
            assert warned == (
                "WARNING server 'a' is Unhealthy: restarting (the server process was killed by signal 9 (SIGKILL))"
            )
            # One second until the restart, and ten for it to settle.
            assert re.fullmatch(r"INFO server 'a' is Healthy again after 11\.\d s", back)
            assert lines(caplog, "child_exited") == [
                "WARNING server 'a' lost its program (instance 0): the server process was killed by signal 9 (SIGKILL); "
                "it is started again in 1.0 s; its stderr ends: out of memory"
            ]
            assert lines(caplog, "child_started")[0].startswith("INFO server 'a' has its program running again after")
            assert len(caplog.records) == 4

    run_in_virtual_time(work())


def test_nothing_flickers_after_a_kill_even_if_somebody_asks_all_the_time() -> None:
    async def work() -> None:
        async with told(**PROGRAM) as (fleet, stream):
            fleet.start_s = 0.5
            for _ in range(40):
                await fleet.tool()
            taken(stream)
            fleet.kill()
            for _ in range(3_000):
                await asyncio.sleep(0.01)
                fleet.monitor.state(fleet.supervisor)
            changes = taken(stream)
            assert chain(changes) == ["Unhealthy (restarting)", "Degraded (starting)", "Healthy ()"]
            assert [each.outage_s is not None for each in changes] == [False, False, True]

    run_in_virtual_time(work())


def test_how_long_things_lasted_is_told() -> None:
    async def work() -> None:
        async with told(health={"settle_s": 5.0, "interval_s": 30.0, "jitter": 0.0}) as (fleet, stream):
            await asyncio.sleep(20)
            fleet.acts.extend([FAILS] * 3)
            await asyncio.sleep(200)
            first, *changes = taken(stream)
            assert (first.previous, first.state, first.outage_s) == (INITIALIZING, HEALTHY, None)
            sick_at = next(each.at_s for each in fleet.sent if each.failure is not None)
            assert changes[0].duration_s == pytest.approx(sick_at - first.duration_s, abs=0.1)
            assert changes[-1].state is HEALTHY
            total = sum(each.duration_s for each in changes[1:])
            assert changes[-1].outage_s == pytest.approx(total, abs=0.01)
            assert changes[0].error == "scripted"
            assert changes[-1].error is None

    run_in_virtual_time(work())


def test_what_changes_back_within_one_turn_is_not_told() -> None:
    async def work() -> None:
        async with told() as (fleet, stream):
            await asyncio.sleep(1)
            taken(stream)
            for on in (True, False, True, False):
                fleet.supervisor.set_maintenance(on)
                fleet.monitor.reassess(fleet.supervisor)
            await asyncio.sleep(1)
            assert taken(stream) == []
            fleet.supervisor.set_maintenance(True)
            fleet.monitor.reassess(fleet.supervisor)
            await asyncio.sleep(1)
            assert chain(taken(stream)) == ["Maintenance (operator)"]

    run_in_virtual_time(work())


def test_many_changes_at_once_are_told_in_slices() -> None:
    async def work() -> None:
        async with told() as (fleet, stream):
            await asyncio.sleep(1)
            taken(stream)
            transitions = Transitions()
            standings = []
            for number in range(250):
                standing = Standing(0.0)
                standing.shown = UNHEALTHY, ("not connected",)
                standings.append(standing)
                transitions.note(cast(Supervisor, Named(fleet, str(number))), standing)
            counts = []
            for _ in range(4):
                await asyncio.sleep(0)
                counts.append(sum(each.told is UNHEALTHY for each in standings))
            assert counts == [100, 200, 250, 250]
            assert [each.server_id for each in taken(stream)] == [str(number) for number in range(250)]

    run_in_virtual_time(work())


class Named:
    """What is told of a server, under another name."""

    is_over = False
    instances = ()

    def __init__(self, fleet: ScriptedFleet, server_id: str) -> None:
        self.template = fleet.template
        self.server_id = server_id


def test_what_an_operator_does_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mcp_manager")

    async def work() -> None:
        async with told(max_instances=5) as (fleet, stream):
            await asyncio.sleep(1)
            caplog.clear()
            for number in (5, 2, 0, 1):
                fleet.supervisor.scale(number)
                await fleet.connect()
                await asyncio.sleep(20)
            assert {each.levelname for each in caplog.records} == {"INFO"}
            assert lines(caplog) == ["INFO server 'a' is Stopped: suspended", "INFO server 'a' is Healthy"]
            states = [each.state for each in taken(stream)]
            assert states[-1] is HEALTHY
            assert ServerState.STOPPED in states
            assert UNHEALTHY not in states

    run_in_virtual_time(work())


def test_a_first_connection_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        fleet = ScriptedFleet(command="server", restart=RESTART, health={}, connect="eager")
        stream = fleet.template.host.events.listen(None, (), 100, None)
        fleet.unreachable[0] = lambda: ServerExitedError(
            "the server process exited with status 1",
            server_id="a",
            exit_code=1,
            hint="its stderr ends: API_KEY is not set",
        )
        fleet.monitor.start()
        await fleet.monitor.probe(fleet.supervisor.instances[0])
        await asyncio.sleep(0)
        events = list(stream._items)
        exited = next(each for each in events if isinstance(each, ChildExited))
        assert (exited.exit_status, exited.signal, exited.was_ready) == (1, None, False)
        assert (exited.stderr, exited.restart_in_s, exited.uptime_s) == ("API_KEY is not set", 1.0, None)
        assert chain(taken(stream)) == ["Unhealthy (not connected)"]
        assert lines(caplog) == [
            "WARNING server 'a' is Unhealthy: not connected (the server process exited with status 1)"
        ]
        await fleet.aclose()

    run_in_virtual_time(work())


def test_a_loop_of_crashes_is_told_and_ends_with_the_truth(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mcp_manager")

    async def work() -> None:
        quick = {"initial_s": 0.05, "max_s": 0.05, "jitter": 0.0, "stable_after_s": 30.0}
        async with told(command="server", restart=quick) as (fleet, stream):
            for _ in range(2_000):
                while 0 not in fleet.running:
                    await asyncio.sleep(0.01)
                fleet.kill()
            crashed_s = fleet.passed_s
            kinds = [type(each) for each in stream._items]
            assert kinds.count(ChildExited) == 2_000
            assert kinds.count(ChildStarted) == 2_000
            chain(taken(stream))
            await asyncio.sleep(200)
            # Ten lines of each of three kinds within a minute, and a summary of each.
            assert len(caplog.records) <= 3 * 11 * (crashed_s // 60 + 3)
            assert "is Healthy again after" in lines(caplog)[-1]
            assert any(getattr(each, "left_out", 0) > 100 for each in caplog.records)

    run_in_virtual_time(work())


def test_a_program_that_dies_while_it_drains_is_not_said_to_be_started_again() -> None:
    async def work() -> None:
        async with told(**PROGRAM, drain_timeout_s=60.0) as (fleet, stream):
            fleet.acts.append(Act(takes_s=20.0))
            call = asyncio.create_task(fleet.failure("tools/call", {"name": "echo", "arguments": {}}))
            await asyncio.sleep(1)
            fleet.supervisor.scale(0)
            await asyncio.sleep(1)
            fleet.kill()
            await call
            [exited] = taken(stream, ChildExited)
            assert exited.restart_in_s is None

    run_in_virtual_time(work())


# Circuits


def circuits(stream: EventStream) -> list[tuple[str, str, str]]:
    return [(each.previous, each.circuit, each.reason) for each in taken(stream, CircuitChanged)]


def test_a_circuit_is_told_when_it_opens_fails_its_trial_and_closes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mcp_manager")

    async def work() -> None:
        breaker = {"consecutive_failures": 2, "open_s": 5.0, "jitter": 0.0}
        async with told(breaker=breaker, health={"interval_s": 1000.0, "settle_s": 0.0}) as (fleet, stream):
            fleet.acts.extend([FAILS] * 3)
            for _ in range(2):
                with contextlib.suppress(CallError):
                    await fleet.tool()
            await asyncio.sleep(0.2)
            assert circuits(stream) == [("Closed", "Open", "failures")]
            await asyncio.sleep(6)
            assert circuits(stream) == [("HalfOpen", "Open", "trial failed")]
            await asyncio.sleep(30)
            found = circuits(stream)
            assert found[-1] == ("HalfOpen", "Closed", "recovered")
            assert all(after[0] == before[1] for before, after in itertools.pairwise(found))
            said = lines(caplog, "circuit")
            assert [each.partition(" ")[0] for each in said] == ["WARNING", "INFO", "INFO"]
            assert "the next trial is in 5.0 s" in said[0]
            assert "the next trial is in 10.0 s" in said[1]

    run_in_virtual_time(work())


def test_the_circuit_of_a_program_that_ended_adds_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mcp_manager")

    async def work() -> None:
        async with told(**PROGRAM, breaker={}) as (fleet, stream):
            fleet.kill()
            await asyncio.sleep(60)
            assert circuits(stream) == [("Closed", "Open", "restart"), ("Open", "Closed", "restart")]
            assert lines(caplog, "circuit") == []

    run_in_virtual_time(work())
