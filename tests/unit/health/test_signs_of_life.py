"""What an answer says of a server, whatever it is: that it is alive; and what shows all the same where no call succeeds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager._core.histogram import LatencyWindow
from mcp_manager.errors import AuthError, CallError, ConnectionLostError, OverloadedError, ProtocolError
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.types import CallStatus, CircuitState, ServerState

HEALTHY, DEGRADED, UNHEALTHY = ServerState.HEALTHY, ServerState.DEGRADED, ServerState.UNHEALTHY
LOST = Act(error=lambda: ConnectionLostError("scripted", delivery="unknown"))
REFUSED = Act(error=lambda: ProtocolError("HTTP 400", delivery="rejected"))


@contextlib.asynccontextmanager
async def probed(*, instances: int = 1, **settings: Any) -> AsyncIterator[ScriptedFleet]:
    fleet = ScriptedFleet(
        instances=instances, **{"health": {}, "breaker": {}, "retry": {"attempts": 1}, "connect": "eager", **settings}
    )
    fleet.monitor.start()
    await fleet.connect()
    try:
        yield fleet
    finally:
        await fleet.aclose()


def shown(fleet: ScriptedFleet) -> tuple[ServerState, tuple[str, ...]]:
    return fleet.monitor.state(fleet.supervisor)


def circuit(fleet: ScriptedFleet, index: int = 0) -> CircuitState:
    backend = fleet.supervisor.instances[index].backend
    assert backend is not None
    return CircuitState(fleet.router.breaker_state(backend, fleet.loop.clock()))


async def answered_with(fleet: ScriptedFleet, code: int, times: int) -> None:
    fleet.acts.extend([Act(rpc_error=code)] * times)
    for _ in range(times):
        assert (await fleet.tool()).error_code == code


@pytest.mark.parametrize("code", [-32603, -32600, -32000, 7])
def test_errors_shut_nobody_out(code: int) -> None:
    async def work() -> None:
        async with probed(limits={"shedding": True}) as fleet:
            await answered_with(fleet, code, 9)
            assert circuit(fleet) is CircuitState.CLOSED
            assert (await fleet.tool()).error_code is None
            assert shown(fleet) == (HEALTHY, ())
            await answered_with(fleet, code, 200)
            backend = fleet.supervisor.instances[0].backend
            assert backend is not None and backend.limit is None
            assert (await fleet.tool()).error_code is None
            counts = fleet.router.server_counts("a", fleet.loop.clock()).methods[0].counts
            assert counts[CallStatus.RPC_ERROR] == 209
            assert counts[CallStatus.CIRCUIT_OPEN] == counts[CallStatus.OVERLOADED] == 0

    run_in_virtual_time(work())


def test_codes_that_the_configuration_names_count() -> None:
    async def work() -> None:
        async with probed(breaker={"rpc_errors": [-32603, -32050]}) as fleet:
            await answered_with(fleet, -32602, 9)
            assert circuit(fleet) is CircuitState.CLOSED
            await answered_with(fleet, -32603, 4)
            assert circuit(fleet) is CircuitState.CLOSED
            await answered_with(fleet, -32050, 1)
            assert circuit(fleet) is CircuitState.OPEN
            error = await fleet.failure("tools/call", {"name": "echo"})
            assert "circuit is open" in error.message

    run_in_virtual_time(work())


def test_an_instance_that_answers_with_errors_is_not_ejected() -> None:
    async def work() -> None:
        async with probed(instances=6, health={"outliers": True}, breaker={"window_s": 30.0}) as fleet:
            fleet.acts_of[3].extend([Act(rpc_error=-32603)] * 10_000)
            for _ in range(1_200):
                await fleet.tool()
            await asyncio.sleep(11)
            bad = fleet.supervisor.instances[3].backend
            assert bad is not None and bad.fruitless >= 100
            assert bad.ejected_until_ns == 0

    run_in_virtual_time(work())


@pytest.mark.parametrize(
    "answer",
    [
        Act(rpc_error=-32601),
        Act(rpc_error=-32603),
        REFUSED,
        Act(error=lambda: OverloadedError("HTTP 429", retry_after_s=5.0)),
    ],
    ids=["unknown method", "internal error", "HTTP 400", "HTTP 429"],
)
def test_a_probe_that_is_answered_is_a_sign_of_life(answer: Act) -> None:
    async def work() -> None:
        async with probed(health={"jitter": 0.0}) as fleet:
            fleet.acts.extend([answer] * 100)
            await asyncio.sleep(600)
            assert {each.method for each in fleet.sent} == {"ping"} and len(fleet.sent) >= 9
            assert shown(fleet) == (HEALTHY, ())
            assert circuit(fleet) is CircuitState.CLOSED

    run_in_virtual_time(work())


def test_refused_credentials_are_no_sign_of_health() -> None:
    async def work() -> None:
        async with probed(health={"jitter": 0.0}) as fleet:
            fleet.acts.extend([Act(error=lambda: AuthError("HTTP 401"))] * 4)
            await asyncio.sleep(60)
            assert shown(fleet)[1] in [("auth failing",), ("circuit open",)]

    run_in_virtual_time(work())


def test_a_circuit_on_trial_takes_come_back_later_for_a_no() -> None:
    async def work() -> None:
        breaker = {"consecutive_failures": 2, "open_s": 5.0, "jitter": 0.0}
        async with probed(breaker=breaker) as fleet:
            fleet.acts.extend([LOST] * 2 + [Act(error=lambda: OverloadedError("HTTP 429"))])
            for _ in range(2):
                await fleet.failure("tools/call", {"name": "echo"})
            await asyncio.sleep(5.1)
            assert fleet.sent[-1].method == "ping"
            assert circuit(fleet) is CircuitState.OPEN

    run_in_virtual_time(work())


# Where no call succeeds


def lost() -> CallError:
    return ConnectionLostError("reset", delivery="unknown")


def never(error: Callable[[], CallError]) -> Act:
    return Act(error=error)


@pytest.mark.parametrize(
    ("act", "times"),
    [
        (REFUSED, 3),
        (never(lambda: AuthError("HTTP 403")), 3),
        (never(lambda: ProtocolError("not JSON", delivery="unknown")), 3),
        (never(lost), 5),
        (never(lambda: OverloadedError("HTTP 429")), 10),
        (Act(rpc_error=-32603), 10),
        (Act(rpc_error=-32000), 10),
    ],
    ids=["HTTP 400", "HTTP 403", "not JSON", "reset", "HTTP 429", "-32603", "-32000"],
)
def test_a_server_whose_calls_all_fail_is_not_shown_as_healthy(act: Act, times: int) -> None:
    async def work() -> None:
        # Of what counts for it, the circuit has its own opinion.
        async with probed(breaker={"consecutive_failures": 100, "failure_rate": 1.0}) as fleet:
            await fleet.tool()
            for number in range(times):
                assert shown(fleet) == (HEALTHY, ()), number
                fleet.acts.append(act)
                with contextlib.suppress(CallError):
                    await fleet.tool()
            assert shown(fleet) == (DEGRADED, ("failing calls",))
            assert circuit(fleet) is CircuitState.CLOSED
            # Pings are answered all the time. What got no answer may be over, and is forgotten sooner.
            await asyncio.sleep(50 if act.error is lost else 120)
            assert fleet.sent[-1].method == "ping" or act.error is lost
            assert shown(fleet) == (DEGRADED, ("failing calls",))
            assert (await fleet.tool()).error_code is None
            await asyncio.sleep(9.5)
            standing = fleet.monitor.tally.standing(fleet.supervisor)
            assert standing is not None and standing.state is DEGRADED and standing.reasons == ("settling",)
            await asyncio.sleep(3)
            assert shown(fleet) == (HEALTHY, ())

    run_in_virtual_time(work())


def test_that_nobody_calls_any_more_is_held_against_nobody_for_ever() -> None:
    async def work() -> None:
        async with probed() as fleet:
            fleet.acts.extend([REFUSED] * 3)
            for _ in range(3):
                await fleet.failure("tools/call", {"name": "echo"})
            await asyncio.sleep(290)
            assert shown(fleet) == (DEGRADED, ("failing calls",))
            await asyncio.sleep(30)
            assert shown(fleet) == (HEALTHY, ())

    run_in_virtual_time(work())


def test_a_server_that_is_back_is_not_held_to_what_its_end_broke() -> None:
    async def work(comes_back: str) -> None:
        breaker = {"consecutive_failures": 6, "open_s": 2.0}
        async with probed(breaker=breaker, health={"settle_s": 1.0}) as fleet:
            await fleet.tool()
            times = 6 if comes_back == "its circuit closes" else 5
            fleet.acts.extend([LOST] * times)
            for _ in range(times):
                await fleet.failure("tools/call", {"name": "echo"})
            assert shown(fleet)[0] is (UNHEALTHY if times == 6 else DEGRADED)
            if comes_back == "a new session":
                [instance] = fleet.supervisor.instances
                assert instance.session is not None
                instance.lose(instance.session, ConnectionLostError("its stream ended"))
                await instance.ready_session(1 << 62)
            elif comes_back == "time":
                await asyncio.sleep(60)
            await asyncio.sleep(12)
            assert shown(fleet) == (HEALTHY, ())

    for comes_back in ("a new session", "its circuit closes", "time"):
        run_in_virtual_time(work(comes_back))


# Where calls go, and what is measured


def test_quick_errors_attract_no_calls() -> None:
    async def work() -> None:
        async with probed() as fleet:
            backend = fleet.supervisor.instances[0].backend
            assert backend is not None
            # As long as there was no result, nobody knows how long one takes.
            await answered_with(fleet, -32603, 2)
            assert fleet.router.backend_reading(backend, fleet.loop.clock()).latency_s is None
            fleet.acts.append(Act(takes_s=0.2))
            await fleet.tool()
            for _ in range(30):
                fleet.acts.append(Act(takes_s=0.0001, rpc_error=-32603))
                await fleet.tool()
                await asyncio.sleep(1)
            fleet.acts.append(Act(takes_s=0.0001, rpc_error=-32603))
            await fleet.tool()
            estimate_s = fleet.router.backend_reading(backend, fleet.loop.clock()).latency_s
            assert estimate_s == pytest.approx(0.2, rel=0.01)
            # What takes long does so whatever it brings.
            fleet.acts.append(Act(takes_s=0.5, rpc_error=-32603))
            await fleet.tool()
            estimate_s = fleet.router.backend_reading(backend, fleet.loop.clock()).latency_s
            assert estimate_s == pytest.approx(0.5, rel=0.01)

    run_in_virtual_time(work())


def test_whoever_watches_an_instance_sees_every_call_without_a_result_fail() -> None:
    async def work() -> None:
        async with probed() as fleet:
            backend = fleet.supervisor.instances[0].backend
            assert backend is not None
            backend.latencies = watched = LatencyWindow()
            await fleet.tool()
            await answered_with(fleet, -32603, 3)
            fleet.acts.append(REFUSED)
            await fleet.failure("tools/call", {"name": "echo"})
            summary = watched.summary(fleet.loop.clock())
            assert (summary.count, summary.failures) == (5, 4)
            assert fleet.router.window_of(fleet.supervisor.record, fleet.loop.clock()).failures == 0

    run_in_virtual_time(work())
