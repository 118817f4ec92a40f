"""Whatever a call waits for, it waits no longer when its server is removed or the manager stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.scripted_fleet import Act, ScriptedFleet
from support.waiting import Floor

from mcp_manager.errors import CallError, ConnectError, ConnectionLostError, OverloadedError
from mcp_manager.testing.virtual_time import run_in_virtual_time

GRACE_S = 3.0


def lost() -> CallError:
    return ConnectionLostError("reset")


def ended_test(
    test: Callable[[ScriptedFleet], Coroutine[Any, Any, None]], *, is_connected: bool = True, **settings: Any
) -> None:
    """Run a test with a fleet whose server it ends; no task may be left of it."""

    async def run() -> None:
        fleet = ScriptedFleet(**settings)
        try:
            if is_connected:
                await fleet.connect()
            await test(fleet)
            assert fleet.under_way == 0
            assert fleet.supervisor.record.inflight == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}
        finally:
            await fleet.aclose()

    run_in_virtual_time(run())


RETRIES = {"attempts": 4, "backoff_s": 5.0, "backoff_max_s": 5.0}


def test_no_pause_begins_when_the_server_is_being_stopped() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(takes_s=1.0, error=lost))
        failing = asyncio.create_task(fleet.failure("tools/list"))
        await asyncio.sleep(0.5)
        await fleet.supervisor.aclose(GRACE_S)
        error = await failing
        assert fleet.passed_s == pytest.approx(1.0)
        assert (type(error), error.delivery, error.attempts) == (ConnectionLostError, "unknown", 1)
        assert not error.retryable and "not retried" in error.hint

    ended_test(test, retry=RETRIES)


def test_a_pause_under_way_ends_and_says_why() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(error=lambda: OverloadedError("limited")))
        failing = asyncio.create_task(fleet.failure("tools/list"))
        await asyncio.sleep(0.5)
        await fleet.supervisor.aclose(GRACE_S)
        error = await failing
        assert fleet.passed_s == pytest.approx(0.5)
        assert (error.delivery, error.retryable) == ("rejected", False)
        assert "not retried" in error.hint

    ended_test(test, retry=RETRIES)


def test_whoever_waits_for_a_session_learns_at_once_that_there_will_be_none() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        failing = asyncio.create_task(fleet.failure("tools/list"))
        await asyncio.sleep(1.0)
        await fleet.supervisor.aclose(GRACE_S)
        error = await failing
        assert fleet.passed_s == pytest.approx(1.0)
        assert (type(error), error.delivery, error.retryable) == (ConnectError, "not_sent", False)
        assert error.message == "the server is being stopped"
        assert not fleet.running and not fleet.sent

    async def slow(fleet: ScriptedFleet) -> None:
        fleet.start_s = 20.0
        await test(fleet)

    ended_test(slow, is_connected=False, connect="eager", connect_timeout_s=30.0)


def test_no_session_is_made_for_a_call_that_loses_its_own_while_the_server_is_being_stopped() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(takes_s=1.0))
        calling = asyncio.create_task(fleet.call("tools/list"))
        await asyncio.sleep(0.5)
        ending = asyncio.create_task(fleet.supervisor.aclose(GRACE_S))
        await asyncio.sleep(0)
        [instance] = fleet.supervisor._draining
        assert instance.session is not None
        instance.lose(instance.session, ConnectionLostError("its stream ended"))
        with pytest.raises(ConnectError, match="being stopped"):
            await instance.ready_session(1 << 62)
        # What was under way has its moment all the same.
        assert (await calling).error_code is None
        await ending
        assert len(fleet.starts) == 1

    ended_test(test)


def test_whoever_waits_for_a_turn_waits_no_longer() -> None:
    async def test(fleet: ScriptedFleet) -> None:
        fleet.acts.append(Act(takes_s=2.0))
        under_way = asyncio.create_task(fleet.call("tools/list"))
        failing = [asyncio.create_task(fleet.failure("tools/list")) for _ in range(3)]
        await asyncio.sleep(0.5)
        ending = asyncio.create_task(fleet.supervisor.aclose(GRACE_S))
        for error in await asyncio.gather(*failing):
            assert fleet.passed_s == pytest.approx(0.5)
            assert (type(error), error.delivery, error.message) == (
                ConnectError,
                "not_sent",
                "the server is being stopped",
            )
        assert (await under_way).error_code is None
        await ending

    ended_test(test, limits={"max_concurrent": 1, "max_waiting": 8, "max_wait_s": 20.0})


@pytest.mark.parametrize("is_stopped", [True, False])
def test_no_hedge_is_made_when_the_server_is_being_stopped(is_stopped: bool) -> None:
    async def test(fleet: ScriptedFleet) -> None:
        await asyncio.gather(*(fleet.tool() for _ in range(20)))
        await asyncio.sleep(1.5)
        fleet.sent.clear()
        fleet.acts.append(Act(takes_s=2.0))
        calling = asyncio.create_task(fleet.tool())
        await asyncio.sleep(0.5)
        if is_stopped:
            await fleet.supervisor.aclose(GRACE_S)
        # It was under way, and has its moment.
        assert (await calling).error_code is None
        assert len(fleet.sent) == (1 if is_stopped else 2)

    hedge = {"enabled": True, "min_samples": 1, "max_share": 1.0, "min_delay_s": 1.0}
    ended_test(test, instances=2, hedge=hedge, retry={"attempts": 1, "tools": {"echo": "safe"}})


def test_whoever_waits_behind_the_calls_of_other_servers_waits_no_longer() -> None:
    async def run() -> None:
        floor = Floor({"a": {}, "b": {}}, max_concurrent=1, max_waiting=8, max_wait_s=60.0)
        lease = await floor.enter("a")
        first = asyncio.create_task(floor.enter("a"))
        await asyncio.sleep(0)
        behind = asyncio.create_task(floor.enter("b"))
        await asyncio.sleep(1.0)
        cast(SimpleNamespace, floor.servers["b"]).is_over = True
        on_slot = floor.servers["b"].record.on_slot
        assert on_slot is not None
        on_slot()
        with pytest.raises(ConnectError, match="being stopped"):
            await behind
        assert not first.done()
        floor.end(lease)
        floor.end(await first)
        floor.assert_empty()

    run_in_virtual_time(run())
