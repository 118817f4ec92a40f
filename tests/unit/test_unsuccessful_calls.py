"""A server that answers every ping and refuses every call is shown for what it is, on a clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from support.scripted_fleet import Act, ScriptedFleet
from support.virtual_time import run_in_virtual_time

from mcp_manager.errors import AuthError, ConnectionLostError, ProtocolError
from mcp_manager.types import ServerState

HEALTHY, DEGRADED = ServerState.HEALTHY, ServerState.DEGRADED
REASON = "no call succeeds"
REFUSED = Act(error=lambda: ProtocolError("refused", delivery="rejected"))


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[ScriptedFleet]:
    fleet = ScriptedFleet(
        health={"interval_s": 1e6, "idle_interval_s": 1e6, "settle_s": 0.0},
        breaker={"enabled": False},
        retry={"attempts": 1},
        connect="eager",
    )
    fleet.monitor.start()
    await fleet.connect()
    try:
        yield fleet
    finally:
        await fleet.aclose()


def shown(fleet: ScriptedFleet) -> tuple[ServerState, tuple[str, ...]]:
    standing = fleet.monitor.tally.standing(fleet.supervisor)
    assert standing is not None
    return standing.state, standing.reasons


async def tried(fleet: ScriptedFleet, act: Act, times: int = 1) -> None:
    for _ in range(times):
        fleet.acts.append(act)
        with contextlib.suppress(ProtocolError, AuthError, ConnectionLostError):
            await fleet.tool()


@pytest.mark.parametrize(
    "act",
    [
        REFUSED,
        Act(error=lambda: AuthError("refused")),
        Act(error=lambda: ProtocolError("no reply", delivery="unknown")),
        Act(rpc_error=-32001),
        Act(rpc_error=7),
    ],
)
def test_calls_that_are_all_answered_in_vain_show(act: Act) -> None:
    async def work() -> None:
        async with connected() as fleet:
            await tried(fleet, Act(), 100)
            await tried(fleet, act, 4)
            await asyncio.sleep(2.0)
            assert shown(fleet) == (HEALTHY, ())
            await tried(fleet, act)
            await asyncio.sleep(0.2)
            assert shown(fleet) == (DEGRADED, (REASON,))
            # A ping is not a call.
            await fleet.monitor.probe(fleet.supervisor.instances[0])
            assert shown(fleet) == (DEGRADED, (REASON,))
            await tried(fleet, Act())
            await asyncio.sleep(1.1)
            assert shown(fleet) == (HEALTHY, ())

    run_in_virtual_time(work())


def test_one_success_among_them_begins_the_count_anew() -> None:
    async def work() -> None:
        async with connected() as fleet:
            for _ in range(20):
                await tried(fleet, REFUSED, 4)
                await tried(fleet, Act())
            await asyncio.sleep(2.0)
            assert shown(fleet) == (HEALTHY, ())

    run_in_virtual_time(work())


def test_it_is_forgotten_with_time() -> None:
    async def work() -> None:
        async with connected() as fleet:
            await tried(fleet, REFUSED, 10)
            await asyncio.sleep(299.0)
            assert shown(fleet) == (DEGRADED, (REASON,))
            await asyncio.sleep(3.0)
            assert shown(fleet) == (HEALTHY, ())
            # From the beginning.
            await tried(fleet, REFUSED, 4)
            await asyncio.sleep(2.0)
            assert shown(fleet) == (HEALTHY, ())

    run_in_virtual_time(work())


def test_what_was_not_answered_is_the_circuits_business() -> None:
    async def work() -> None:
        async with connected() as fleet:
            await tried(fleet, Act(error=lambda: ConnectionLostError("reset", delivery="unknown")), 10)
            await asyncio.sleep(2.0)
            assert REASON not in shown(fleet)[1]

    run_in_virtual_time(work())
