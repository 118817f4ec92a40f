"""When to come back is the truth: a caller that waits as long as it was told gets an attempt, whatever was in the way."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager.errors import (
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    OverloadedError,
    ServerExitedError,
)
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.types import CircuitState, ServerState

RESTART = {"initial_s": 1.0, "max_s": 60.0, "jitter": 0.0, "stable_after_s": 30.0}
KILLED = "the server process was killed by signal 9 (SIGKILL)"


@contextlib.asynccontextmanager
async def fleet_of(*, instances: int = 1, start: bool = True, **given: Any) -> AsyncIterator[ScriptedFleet]:
    defaults: dict[str, Any] = {"health": {}, "breaker": {}, "retry": {"attempts": 1}, "connect": "eager"}
    fleet = ScriptedFleet(instances=instances, **(defaults | given))
    fleet.monitor.start()
    if start:
        await fleet.connect()
    try:
        yield fleet
    finally:
        await fleet.aclose()


def children(**given: Any) -> contextlib.AbstractAsyncContextManager[ScriptedFleet]:
    return fleet_of(**{"command": "server", "restart": RESTART, **given})


def circuit(fleet: ScriptedFleet, index: int = 0) -> CircuitState:
    backend = fleet.supervisor.instances[index].backend
    assert backend is not None
    return CircuitState(fleet.router.breaker_state(backend, fleet.loop.clock()))


async def refusal(fleet: ScriptedFleet) -> tuple[CallError, float]:
    error = await fleet.failure("tools/call", {"name": "echo"})
    assert error.retry_after_s is not None and error.retry_after_s > 0
    return error, error.retry_after_s


def exits() -> CallError:
    text = "the server process exited with status 1"
    return ServerExitedError(text, server_id="a", exit_code=1, hint="its stderr ends: API_KEY is not set")


# Child processes


def test_every_error_says_how_the_child_ended_and_when_it_is_back_and_then_it_is() -> None:
    async def work() -> None:
        async with children() as fleet:
            await fleet.tool()
            fleet.start_s = 2.0
            fleet.kill(stderr="out of memory")
            assert (fleet.monitor.state(fleet.supervisor)[0], circuit(fleet)) == (
                ServerState.UNHEALTHY,
                CircuitState.OPEN,
            )
            for wait_s in (1.0, 0.7, 0.4):
                error, told_s = await refusal(fleet)
                assert (type(error), error.delivery) == (CircuitOpenError, "not_sent")
                assert error.message == f"{KILLED}; it is started again in {wait_s:.1f} s"
                assert error.hint == "its stderr ends: out of memory"
                assert told_s == pytest.approx(wait_s, abs=0.01)
                await asyncio.sleep(0.3)
            await asyncio.sleep(0.1)
            began_s = fleet.passed_s
            # All of them wait for the start: none is the trial of the others.
            replies = await asyncio.gather(*(fleet.tool() for _ in range(50)))
            assert all(reply.error_code is None for reply in replies)
            assert fleet.passed_s - began_s == pytest.approx(2.0, abs=0.1)
            assert circuit(fleet) is CircuitState.CLOSED
            assert len(fleet.starts) == 2

    run_in_virtual_time(work())


def test_calls_under_way_are_told_as_well_and_those_that_may_be_tried_again_are_when_it_is_back() -> None:
    async def work() -> None:
        async with children(retry={}) as fleet:
            fleet.acts.extend([Act(takes_s=9.0)] * 2)
            safe = asyncio.ensure_future(fleet.call("tools/list"))
            unsafe = asyncio.ensure_future(fleet.failure("tools/call", {"name": "echo"}))
            await asyncio.sleep(0.5)
            assert sum(each.method != "ping" for each in fleet.sent) == 2
            fleet.kill()
            error = await unsafe
            assert (type(error), error.delivery, error.message) == (ServerExitedError, "unknown", KILLED)
            assert error.retry_after_s == pytest.approx(1.0, abs=0.01)
            assert "it is started again in 1.0 s; it wrote nothing to stderr" in error.hint
            assert fleet.passed_s == pytest.approx(0.5)
            assert (await safe).error_code is None
            assert fleet.passed_s == pytest.approx(1.5, abs=0.1)

    async def later() -> None:
        async with children(retry={}) as fleet:
            fleet.kill()
            await asyncio.sleep(0.3)
            assert (await fleet.tool()).error_code is None
            assert fleet.passed_s == pytest.approx(1.0, abs=0.1)

    run_in_virtual_time(work())
    run_in_virtual_time(later())


def test_one_that_exits_at_its_start_has_an_open_circuit_and_is_tried_as_often_as_it_says() -> None:
    async def work() -> None:
        async with children(start=False) as fleet:
            fleet.unreachable[0] = exits
            fleet.start_s = 0.5
            assert not await fleet.monitor.probe(fleet.supervisor.instances[0])
            waits: list[float] = []
            for starts in range(1, 9):
                assert fleet.monitor.state(fleet.supervisor)[0] is ServerState.UNHEALTHY
                assert circuit(fleet) is CircuitState.OPEN
                error, told_s = await refusal(fleet)
                assert "the server process exited with status 1; it is started again in" in error.message
                assert "API_KEY is not set" in str(error)
                assert (type(error), error.delivery) == (CircuitOpenError, "not_sent")
                assert len(fleet.starts) == starts
                waits.append(round(told_s))
                await asyncio.sleep(told_s)
                error, _ = await refusal(fleet)
                assert (type(error), error.delivery) == (ServerExitedError, "not_sent")
                assert len(fleet.starts) == starts + 1
            assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
            del fleet.unreachable[0]
            _, told_s = await refusal(fleet)
            await asyncio.sleep(told_s)
            assert (await fleet.tool()).error_code is None
            assert circuit(fleet) is CircuitState.CLOSED

    run_in_virtual_time(work())


def test_without_a_breaker_the_same_is_said_and_holds() -> None:
    async def work() -> None:
        async with children(breaker={"enabled": False}) as fleet:
            fleet.kill()
            error, told_s = await refusal(fleet)
            assert (type(error), error.delivery) == (ServerExitedError, "not_sent")
            assert error.message == f"{KILLED}; it is started again in 1.0 s"
            assert circuit(fleet) is CircuitState.CLOSED
            await asyncio.sleep(told_s)
            assert (await fleet.tool()).error_code is None

    run_in_virtual_time(work())


def test_where_one_of_several_has_crashed_the_others_take_the_calls() -> None:
    async def work() -> None:
        breaker = {"open_s": 0.5, "jitter": 0.0, "probe_grace_s": 0.0, "consecutive_failures": 1}
        async with children(instances=3, breaker=breaker) as fleet:
            fleet.kill(1)
            fleet.start_s = 9.0
            for _ in range(50):
                await fleet.tool()
            assert {each.instance for each in fleet.sent} == {0, 2}
            # Where the others refuse, whoever takes calls first decides what is said.
            for index in (0, 2):
                backend = fleet.supervisor.instances[index].backend
                assert backend is not None
                fleet.router.trip(backend, fleet.loop.clock())
            error, told_s = await refusal(fleet)
            assert (told_s, error.message) == (pytest.approx(0.5), "the circuit is open after repeated failures")
            for index in (0, 2):
                fleet.kill(index)
            error, told_s = await refusal(fleet)
            assert told_s == pytest.approx(0.95, abs=0.01)
            assert error.message.startswith(f"{KILLED}; it is started again in ")

    run_in_virtual_time(work())


def test_an_operator_is_told_of_nothing_else_in_maintenance() -> None:
    async def work() -> None:
        async with children() as fleet:
            fleet.kill()
            fleet.supervisor.set_maintenance(True)
            error = await fleet.failure("tools/call", {"name": "echo"})
            assert isinstance(error, OverloadedError)
            assert "maintenance" in error.message

    run_in_virtual_time(work())


@settings(max_examples=examples(60), deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from(["works", "exits", "is killed"]), st.floats(0.0, 3.0), st.floats(0.0, 20.0)),
        min_size=1,
        max_size=8,
    ),
    jitter=st.sampled_from([0.0, 0.2]),
    instances=st.integers(1, 2),
    is_probed=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_whoever_waits_as_told_has_the_child_started_for_the_call(
    plan: list[tuple[str, float, float]], jitter: float, instances: int, is_probed: bool, seed: int
) -> None:
    async def work() -> None:
        given = {"restart": {**RESTART, "jitter": jitter}, "health": {"enabled": is_probed}}
        async with children(instances=instances, **given) as fleet:
            for kind, start_s, quiet_s in plan:
                fleet.start_s = start_s
                fleet.unreachable = dict.fromkeys(range(instances), exits) if kind == "exits" else {}
                if kind == "is killed":
                    for index in list(fleet.running):
                        fleet.kill(index)
                await asyncio.sleep(quiet_s)
                try:
                    assert (await fleet.tool()).error_code is None
                except CallError as error:
                    assert error.delivery == "not_sent"
                    assert "the server process " in error.message
                    assert error.retry_after_s is not None and error.retry_after_s > 0
                    await asyncio.sleep(error.retry_after_s)
                    began_s = fleet.passed_s
                    try:
                        assert (await fleet.tool()).error_code is None
                    except ServerExitedError as again:
                        # It was started, for this call or by then, and has exited once more.
                        assert max(at_s for _, at_s in fleet.starts) >= began_s - start_s - 0.02
                        assert again.retry_after_s is not None
                        assert kind == "exits"

    random.seed(seed)
    run_in_virtual_time(work())


# Servers elsewhere


def test_a_trial_comes_when_it_is_said_to() -> None:
    async def work(is_probed: bool) -> None:
        breaker = {"consecutive_failures": 2, "open_s": 5.0, "jitter": 0.0}
        async with fleet_of(breaker=breaker, health={"enabled": is_probed}) as fleet:
            for _ in range(3):
                fleet.acts.extend([Act(error=lambda: ConnectError("refused"))] * 2)
                for _ in range(2):
                    await fleet.failure("tools/call", {"name": "echo"})
                error, told_s = await refusal(fleet)
                assert isinstance(error, CircuitOpenError)
                assert told_s == pytest.approx(7.0 if is_probed else 5.0)
                await asyncio.sleep(told_s)
                assert (await fleet.tool()).error_code is None
                assert (await fleet.tool()).error_code is None
                assert circuit(fleet) is CircuitState.CLOSED
                # The next time is the first one again.
                await asyncio.sleep(40)

    for is_probed in (True, False):
        run_in_virtual_time(work(is_probed))


def test_a_pause_is_as_long_as_it_is_said_to_be() -> None:
    async def work() -> None:
        async with fleet_of() as fleet:
            fleet.acts.append(Act(error=lambda: OverloadedError("HTTP 429", retry_after_s=20.0)))
            error, told_s = await refusal(fleet)
            await asyncio.sleep(3.0)
            error, told_s = await refusal(fleet)
            assert (type(error), told_s) == (OverloadedError, pytest.approx(17.0))
            assert [each.method for each in fleet.sent].count("tools/call") == 1
            await asyncio.sleep(told_s)
            assert (await fleet.tool()).error_code is None

    run_in_virtual_time(work())


def test_nothing_is_said_of_a_circuit_that_is_held_open() -> None:
    async def work() -> None:
        async with fleet_of() as fleet:
            backend = fleet.supervisor.instances[0].backend
            assert backend is not None
            fleet.router.set_breaker_mode(backend, "forced_open", fleet.loop.clock())
            error = await fleet.failure("tools/call", {"name": "echo"})
            assert (type(error), error.retry_after_s, error.hint) == (CircuitOpenError, None, "")

    run_in_virtual_time(work())


def test_a_lost_connection_names_no_time_where_there_is_none() -> None:
    async def work() -> None:
        async with fleet_of() as fleet:
            fleet.acts.append(Act(error=lambda: ConnectionLostError("reset", delivery="unknown")))
            error = await fleet.failure("tools/call", {"name": "echo"})
            assert error.retry_after_s is None

    run_in_virtual_time(work())
