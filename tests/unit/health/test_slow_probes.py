"""Probes that take longer than they may: calls are the better witnesses, and what is slow is not taken for dead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager.errors import AuthError, CallError, ConnectionLostError, DeadlineExceededError, ProtocolError
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.types import CircuitState, ServerState

HEALTHY, DEGRADED, UNHEALTHY = ServerState.HEALTHY, ServerState.DEGRADED, ServerState.UNHEALTHY
HEALTH = {"interval_s": 10.0, "timeout_s": 2.0, "unhealthy_interval_s": 5.0, "jitter": 0.0}
SILENT = 10_000.0


class SlowPings(ScriptedFleet):
    """A server that takes ``ping_s`` for a ping and ``call_s`` for whatever else."""

    def __init__(self, ping_s: float, **settings: Any) -> None:
        defaults: dict[str, Any] = {"health": HEALTH, "breaker": {}, "retry": {"attempts": 1}, "connect": "eager"}
        super().__init__(**(defaults | settings))
        self.ping_s = ping_s
        self.call_s = 0.001
        self.ping_error: Callable[[], CallError] | None = None

    async def play(self, index: int, session: int, message: dict[str, Any], exchange: Any) -> Any:
        self.acts_of[index].clear()
        is_ping = message["method"] == "ping"
        act = Act(self.ping_s, self.ping_error) if is_ping else Act(self.call_s)
        self.acts_of[index].append(act)
        return await super().play(index, session, message, exchange)

    @property
    def pings(self) -> int:
        return sum(each.method == "ping" for each in self.sent)


@contextlib.asynccontextmanager
async def probed(ping_s: float, **settings: Any) -> AsyncIterator[SlowPings]:
    fleet = SlowPings(ping_s, **settings)
    fleet.monitor.start()
    await fleet.connect()
    try:
        yield fleet
    finally:
        await fleet.aclose()


def kept(fleet: ScriptedFleet) -> tuple[ServerState, tuple[str, ...]]:
    """What is shown without anything being judged for the question."""
    standing = fleet.monitor.tally.standing(fleet.supervisor)
    assert standing is not None
    return standing.state, standing.reasons


def circuit(fleet: ScriptedFleet) -> CircuitState:
    backend = fleet.supervisor.instances[0].backend
    assert backend is not None
    return CircuitState(fleet.router.breaker_state(backend, fleet.loop.clock()))


def test_a_server_that_answers_calls_is_not_down_however_long_its_probes_take() -> None:
    async def work(ping_s: float, pause_s: float) -> None:
        async with probed(ping_s) as fleet:
            worst = HEALTHY
            for _ in range(60):
                await asyncio.sleep(pause_s)
                assert (await fleet.tool()).error_code is None
                # The news spreads within a second.
                await asyncio.sleep(1.5)
                state, reasons = kept(fleet)
                assert state in (HEALTHY, DEGRADED), (fleet.passed_s, reasons)
                assert circuit(fleet) is CircuitState.CLOSED
                worst = state if state is not HEALTHY else worst
            assert worst is DEGRADED
            assert kept(fleet) == (DEGRADED, ("slow probe",))
            assert fleet.pings > 10

    for ping_s in (3.0, 9.0, SILENT):
        for pause_s in (11.0, 14.0):
            run_in_virtual_time(work(ping_s, pause_s))


def test_a_probe_that_runs_out_while_calls_are_answered_is_no_step_towards_unhealthy() -> None:
    async def work() -> None:
        async with probed(SILENT) as fleet:
            while fleet.passed_s < 300:
                await asyncio.sleep(0.5)
                # Only while a ping is under way: else none would be sent.
                if fleet.under_way:
                    await fleet.tool()
                assert kept(fleet)[0] in (HEALTHY, DEGRADED)
                assert circuit(fleet) is CircuitState.CLOSED
            assert fleet.pings > 5
            assert kept(fleet) == (DEGRADED, ("slow probe",))

    run_in_virtual_time(work())


def test_the_limit_of_a_slow_probe_grows_to_that_of_calls_and_no_further() -> None:
    async def work() -> None:
        async with probed(SILENT, request_timeout_s=15.0) as fleet:
            watch = fleet.monitor._watches[fleet.supervisor.instances[0]]
            limits = [watch.limit_s]
            for second in range(1, 900):
                await asyncio.sleep(1.0)
                if second % 11 == 0:
                    await fleet.tool()
                if watch.limit_s != limits[-1]:
                    limits.append(watch.limit_s)
            # Two steps may fall into one second.
            assert limits == sorted({2.0, *limits, 15.0})
            assert set(limits) <= {2.0, 4.0, 8.0, 15.0}

    run_in_virtual_time(work())


def test_what_is_only_slow_recovers_without_a_call_and_what_answers_in_time_is_as_before() -> None:
    async def work() -> None:
        async with probed(5.0) as fleet:
            await asyncio.sleep(120)
            assert kept(fleet) == (DEGRADED, ("slow probe",))
            fleet.ping_s = 0.001
            await asyncio.sleep(120)
            assert kept(fleet) == (HEALTHY, ())
            watch = fleet.monitor._watches[fleet.supervisor.instances[0]]
            assert (watch.limit_s, watch.is_doubted) == (2.0, False)

    run_in_virtual_time(work())


def test_a_single_slow_probe_of_a_busy_server_is_soon_forgotten() -> None:
    async def work() -> None:
        async with probed(3.0) as fleet:
            while not fleet.pings:
                await asyncio.sleep(0.5)
            await fleet.tool()
            fleet.ping_s = 0.001
            for _ in range(60):
                await asyncio.sleep(1)
                await fleet.tool()
            assert kept(fleet) == (HEALTHY, ())

    run_in_virtual_time(work())


def test_a_dead_server_is_still_found_to_be_as_soon_as_before() -> None:
    async def work() -> None:
        async with probed(0.001) as fleet:
            await fleet.tool()
            await asyncio.sleep(25)
            assert kept(fleet) == (HEALTHY, ())
            fleet.ping_s = fleet.call_s = SILENT
            began_s, pings = fleet.passed_s, fleet.pings
            while kept(fleet)[0] is not UNHEALTHY:
                await asyncio.sleep(0.1)
            assert fleet.pings - pings == 3
            # Half a minute of the idle interval at most, three limits, and the two pauses between.
            assert fleet.passed_s - began_s <= 20 + 3 * 2 + 5 + 10 + 1
            # And callers do not wait for it for ever, one after the other.
            while circuit(fleet) is not CircuitState.OPEN:
                await asyncio.sleep(1)
            assert kept(fleet)[0] is UNHEALTHY

    run_in_virtual_time(work())


def test_a_circuit_that_probes_alone_have_opened_is_tried_by_calls() -> None:
    async def work() -> None:
        async with probed(SILENT) as fleet:
            while circuit(fleet) is not CircuitState.OPEN:
                await asyncio.sleep(1)
            answered = refused = 0
            for _ in range(20):
                try:
                    await fleet.tool()
                    answered += 1
                except CallError as error:
                    refused += 1
                    assert error.retry_after_s is not None
                    await asyncio.sleep(error.retry_after_s)
            assert refused <= 2
            assert answered >= 18
            assert circuit(fleet) is CircuitState.CLOSED
            await asyncio.sleep(2)
            assert kept(fleet) == (DEGRADED, ("slow probe",))

    run_in_virtual_time(work())


@pytest.mark.parametrize(
    "error",
    [
        lambda: ProtocolError("HTTP 500", delivery="unknown"),
        lambda: ConnectionLostError("reset", delivery="unknown"),
        lambda: AuthError("HTTP 401"),
    ],
    ids=["HTTP 500", "reset", "HTTP 401"],
)
def test_whatever_probes_meet_a_server_that_answers_calls_is_not_down(error: Callable[[], CallError]) -> None:
    async def work() -> None:
        async with probed(0.001) as fleet:
            fleet.ping_error = error
            for number in range(60):
                # Sparse enough for many probes in between, at first.
                await asyncio.sleep(12.0 + number)
                assert (await fleet.tool()).error_code is None, fleet.passed_s
                assert circuit(fleet) is CircuitState.CLOSED
                await asyncio.sleep(1.5)
                assert kept(fleet)[0] is not UNHEALTHY
            assert kept(fleet) == (DEGRADED, ("probe failed",))
            fleet.ping_error = None
            await asyncio.sleep(120)
            assert kept(fleet) == (HEALTHY, ())

    run_in_virtual_time(work())


def test_where_calls_run_out_as_well_a_probe_that_does_is_believed() -> None:
    async def work() -> None:
        async with probed(SILENT) as fleet:
            fleet.call_s = SILENT
            while circuit(fleet) is not CircuitState.OPEN:
                with pytest.raises(DeadlineExceededError):
                    await fleet.tool(timeout_s=3.0)
            calls = len(fleet.sent) - fleet.pings
            await asyncio.sleep(300)
            # Probes try it, and no call has to.
            assert kept(fleet)[0] is UNHEALTHY
            assert circuit(fleet) is not CircuitState.CLOSED
            assert len(fleet.sent) - fleet.pings == calls
            assert fleet.pings > 3

    run_in_virtual_time(work())
