"""Calls that take long are made a second time elsewhere: when, of what, how many, and nothing of the loser is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.calls import CALM, echo, text_of
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager import McpManager
from mcp_manager.errors import CallError, ConnectError, ConnectionLostError, DeadlineExceededError, OverloadedError
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.types import CallStatus

HEDGE: dict[str, Any] = {"enabled": True, "min_samples": 10, "max_share": 1.0, "quantile": 0.5}


def hedged_test(
    test: Callable[[ScriptedFleet], Coroutine[Any, Any, None]],
    *,
    instances: int = 2,
    hedge: dict[str, Any] | None = None,
    **settings: Any,
) -> None:
    """Run a test with a fleet that has answered twenty calls in 100 ms each; nothing may be left over."""

    async def run() -> None:
        fleet = ScriptedFleet(
            instances=instances,
            hedge={**HEDGE, **(hedge or {})},
            **{"retry": {"attempts": 1, "tools": {"echo": "safe"}}, **settings},
        )
        try:
            await fleet.connect()
            fleet.acts.extend([Act(takes_s=0.1)] * 20)
            await asyncio.gather(*(fleet.tool() for _ in range(20)))
            # What was looked up is fresh for a second.
            await asyncio.sleep(1.5)
            fleet.sent.clear()
            fleet.began_s = fleet.loop.time()
            before = set(asyncio.all_tasks())
            await test(fleet)
            assert set(asyncio.all_tasks()) == before
            assert fleet.under_way == 0
            assert fleet.supervisor.record.inflight == 0
        finally:
            await fleet.aclose()

    run_in_virtual_time(run())


def lost() -> CallError:
    return ConnectionLostError("lost")


def test_a_slow_call_is_made_again_elsewhere_and_the_first_result_is_taken() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=20.0), Act(takes_s=0.05)])
        await fleet.tool()
        first, second = fleet.sent
        assert first.instance != second.instance
        assert second.at_s == pytest.approx(0.1, rel=0.05)
        assert fleet.passed_s == pytest.approx(second.at_s + 0.05)
        assert fleet.abandoned == 1
        assert fleet.supervisor.recoveries == {"hedge": 1}

    hedged_test(test)


def test_the_first_may_still_win() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=0.2), Act(takes_s=20.0)])
        await fleet.tool()
        assert len(fleet.sent) == 2
        assert fleet.passed_s == pytest.approx(0.2)
        assert fleet.abandoned == 1

    hedged_test(test)


def test_a_quick_call_is_made_once() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(takes_s=0.05))
        await fleet.tool()
        assert len(fleet.sent) == 1

    hedged_test(test)


def test_a_failure_has_the_second_one_made_at_once() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=0.01, error=lost), Act(takes_s=0.01)])
        await fleet.tool()
        assert fleet.passed_s == pytest.approx(0.02)

    hedged_test(test)


def test_a_failure_waits_for_the_other() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=5.0), Act(takes_s=0.1, error=lost)])
        await fleet.tool()
        assert fleet.passed_s == pytest.approx(5.0)

    hedged_test(test)


def test_an_error_reply_waits_for_the_other() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=5.0), Act(takes_s=0.1, rpc_error=-32603)])
        assert (await fleet.tool()).result is not None
        fleet.acts.extend([Act(takes_s=1.0, rpc_error=-32001), Act(takes_s=2.0, error=lost)])
        assert (await fleet.tool()).error_code == -32001

    hedged_test(test)


def test_two_failures_are_told_as_one() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=1.0, error=lost), Act(takes_s=2.0, error=lambda: ConnectError("down"))])
        error = await fleet.failure("tools/call", {"name": "echo"})
        assert (type(error), error.attempts, error.delivery) == (ConnectError, 2, "unknown")

    hedged_test(test)


@pytest.mark.parametrize("passes", range(8))
@pytest.mark.parametrize("fails_first", [True, False])
def test_no_failure_is_lost_with_a_caller_that_gives_up_in_that_moment(passes: int, fails_first: bool) -> None:
    async def test(fleet: ScriptedFleet) -> None:
        loop = asyncio.get_running_loop()
        callers: list[asyncio.Task[Any]] = []

        def cancel_after(left: int) -> None:
            if left:
                loop.call_soon(cancel_after, left - 1)
            else:
                callers[0].cancel()

        def fails() -> CallError:
            cancel_after(passes)
            return lost()

        slow, failing = Act(takes_s=20.0), Act(takes_s=1.0, error=fails)
        fleet.acts.extend([failing, slow] if fails_first else [slow, failing])
        reports: list[str] = []
        loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
        callers.append(asyncio.create_task(fleet.tool()))
        with pytest.raises(asyncio.CancelledError):
            await callers[0]
        assert len(fleet.sent) == 2
        # What may have been lost is held by tracebacks, and by the step of the loop that told of the end.
        callers.clear()
        fleet.sent.clear()
        await asyncio.sleep(0)
        gc.collect()
        assert reports == []

    hedged_test(test)


def test_a_hedge_counts_as_an_attempt() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=0.5, error=lambda: OverloadedError("limited"))] * 9)
        error = await fleet.failure("tools/call", {"name": "echo"})
        assert error.attempts == len(fleet.sent) == 3

    hedged_test(test, retry={"attempts": 3, "tools": {"echo": "safe"}})


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("off", {"hedge": {"enabled": False}}),
        ("unsafe", {"retry": {"attempts": 1}}),
        ("too few samples", {"hedge": {"min_samples": 100}}),
        ("no other instance", {"instances": 1}),
        ("no budget", {"retry": {"tools": {"echo": "safe"}, "budget": {"ratio": 0.0, "min_per_s": 0.0}}}),
        ("too many hedges", {"hedge": {"max_share": 0.001}}),
        ("not that long", {"hedge": {"min_delay_s": 10.0}}),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_not_hedged(why: str, changes: dict[str, Any]) -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(takes_s=5.0))
        await fleet.tool()
        assert len(fleet.sent) == 1, why

    hedged_test(test, **changes)


def test_no_hedge_where_the_other_circuit_is_open() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        backend = fleet.supervisor.instances[1].backend
        assert backend is not None
        fleet.router.trip(backend, fleet.loop.clock())
        fleet.acts.append(Act(takes_s=5.0))
        await fleet.tool()
        assert [each.instance for each in fleet.sent] == [0]
        (series,) = [each for each in fleet.router.server_counts("a", 0).methods if each.method == "tools/call"]
        assert series.counts[CallStatus.CANCELLED] == 0

    hedged_test(test, breaker={"open_s": 100.0})


def test_a_hedge_goes_elsewhere_though_the_first_instance_would_be_chosen_again() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        first, second = (each.backend for each in fleet.supervisor.instances)
        assert first is not None
        assert second is not None
        fleet.router.set_weight(first, 1000.0)
        fleet.router.set_weight(second, 0.001)
        fleet.acts.extend([Act(takes_s=20.0), Act(takes_s=0.05)])
        await fleet.tool()
        assert [each.instance for each in fleet.sent] == [0, 1]

    hedged_test(test)


@pytest.mark.parametrize(("min_samples", "requests"), [(20, 2), (21, 1)])
def test_twenty_calls_are_enough_where_twenty_are_asked_for(min_samples: int, requests: int) -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=0.5), Act(takes_s=0.05)])
        await fleet.tool()
        assert len(fleet.sent) == requests

    hedged_test(test, hedge={"min_samples": min_samples})


def test_no_hedge_at_the_deadline() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=20.0)] * 2)
        with pytest.raises(DeadlineExceededError):
            await fleet.tool(timeout_s=0.5)
        assert len(fleet.sent) == 1

    hedged_test(test, hedge={"min_delay_s": 0.5})


def test_hedges_pause_above_their_share() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts_of[0].extend([Act(takes_s=0.3)] * 200)
        fleet.acts_of[1].extend([Act(takes_s=0.3)] * 200)
        for _ in range(40):
            await fleet.tool()
        assert 0 < len(fleet.sent) - 40 <= 0.1 * 60 + 1

    hedged_test(test, hedge={"max_share": 0.1})


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.5])
def test_whoever_gives_up_cancels_both(after_s: float) -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.extend([Act(takes_s=20.0)] * 2)
        call = asyncio.create_task(fleet.tool())
        await asyncio.sleep(after_s)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert fleet.abandoned == len(fleet.sent)

    hedged_test(test)


async def test_a_server_that_hangs_is_hedged_over_real_connections() -> None:
    with ScriptedServer() as first, ScriptedServer() as second:
        async with McpManager() as manager:
            settings = {"hedge": {**HEDGE, "min_samples": 5}, "retry": {"tools": {"echo": "safe"}}}
            await manager.deploy("a", {"url": [first.url, second.url], "instances": 2, **CALM, **settings})
            for _ in range(10):
                await manager.execute_raw("a", echo("warm"))
            # What was looked up is fresh for a second.
            await asyncio.sleep(1.05)
            held = faults.Hold()
            first.script_always("tools/call", held)
            for number in range(4):
                assert text_of(await manager.execute_raw("a", echo(f"{number}"), timeout=5)) == f"{number}"
            assert [f"{number}" in second.executed for number in range(4)] == [True] * 4
