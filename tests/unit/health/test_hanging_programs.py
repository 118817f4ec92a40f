"""A program that hangs is replaced, and one that is only busy is not; a session that is stuck is made anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.scripted_fleet import Act, ScriptedFleet

from mcp_manager.errors import CallError, DeadlineExceededError, ServerExitedError
from mcp_manager.observe.views import server_view
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.types import ServerState

HEALTH = {
    "interval_s": 10.0,
    "timeout_s": 2.0,
    "unhealthy_interval_s": 5.0,
    "unhealthy_interval_max_s": 20.0,
    "jitter": 0.0,
    "settle_s": 0.0,
}
RESTART = {"initial_s": 1.0, "jitter": 0.0}
FALL = 3
SILENT = 10_000.0
# Three probes in a row, each with the time that it may take.
SOON_S = 90.0


class Programs(ScriptedFleet):
    """Programs that can hang, by their sessions, be busy until a time, or ignore pings."""

    def __init__(self, **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "command": "program",
            "health": HEALTH,
            "restart": RESTART,
            "breaker": {},
            "retry": {"attempts": 1},
            "connect": "eager",
        }
        super().__init__(**(defaults | settings))
        self.hung: set[int] = set()
        self.busy_until_s = 0.0
        self.ignores_pings = False

    async def play(self, index: int, session: int, message: dict[str, Any], exchange: Any) -> Any:
        is_ignored = self.ignores_pings and message["method"] == "ping"
        self.acts_of[index].clear()
        takes_s = SILENT if session in self.hung or is_ignored else max(self.busy_until_s - self.passed_s, 0.0)
        if takes_s:
            self.acts_of[index].append(Act(takes_s))
        return await super().play(index, session, message, exchange)

    def asked(self, session: int) -> list[str]:
        """What a session was asked."""
        return [each.method for each in self.sent if each.session == session]

    def shown(self) -> tuple[ServerState, tuple[str, ...]]:
        return self.monitor.state(self.supervisor)

    @property
    def last_error(self) -> str:
        return server_view(self.supervisor, self.monitor.state, self.router, self.loop.clock()).last_error or ""


@contextlib.asynccontextmanager
async def probed(capabilities: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Programs]:
    fleet = Programs(**settings)
    if capabilities is not None:
        fleet.capabilities = capabilities
    fleet.monitor.start()
    await fleet.connect()
    try:
        yield fleet
    finally:
        await fleet.aclose()


async def ended(fleet: Programs, within_s: float = SOON_S) -> None:
    """Wait until another session was closed."""
    before = len(fleet.ended)
    end_s = fleet.passed_s + within_s
    while len(fleet.ended) == before:
        assert fleet.passed_s < end_s, fleet.sent
        await asyncio.sleep(0.1)


def test_one_that_hangs_is_killed_after_so_many_probes_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with probed() as fleet:
            await fleet.tool()
            fleet.hung.add(1)
            await ended(fleet)
            assert fleet.ended == [1]
            assert fleet.asked(1) == ["tools/call", "ping", "ping", "tools/list"]
            assert fleet.shown() == (ServerState.UNHEALTHY, ("restarting",))
            assert "did not answer 3 probes in a row and was killed" in fleet.last_error
            assert "it is started again in" in fleet.last_error
            error = await fleet.failure("tools/list")
            assert "did not answer 3 probes in a row" in error.message and "started again in" in error.message
            assert (error.delivery, error.retryable) == ("not_sent", True)
            [told] = [each for each in caplog.records if getattr(each, "event", "") == "child_exited"]
            assert "did not answer 3 probes in a row" in told.getMessage() and "'a'" in told.getMessage()
            killed_s = fleet.passed_s
            await asyncio.sleep(1.5)
            assert [round(at_s - killed_s) for _, at_s in fleet.starts[1:]] == [1]
            assert (await fleet.tool()).error_code is None
            assert fleet.supervisor.restarts == {"hang": 1}
            # The next one is another one: what this one left unanswered is not held against it.
            await asyncio.sleep(600)
            assert fleet.ended == [1] and fleet.shown() == (ServerState.HEALTHY, ())

    caplog.set_level(logging.WARNING, logger="mcp_manager")
    run_in_virtual_time(work())


def test_one_that_hangs_again_and_again_waits_longer_each_time() -> None:
    async def work() -> None:
        async with probed(restart={**RESTART, "max_s": 4.0, "stable_after_s": 3600.0}) as fleet:
            fleet.hung.update(range(1, 100))
            waits: list[float] = []
            for number in range(4):
                await ended(fleet, 300.0)
                killed_s = fleet.passed_s
                await asyncio.sleep(4.5)
                waits.append(round(fleet.starts[number + 1][1] - killed_s))
            assert waits == [1, 2, 4, 4]
            assert fleet.supervisor.restarts == {"hang": 4}

    run_in_virtual_time(work())


def test_it_can_be_turned_off() -> None:
    async def work() -> None:
        async with probed(restart={**RESTART, "on_hang": False}) as fleet:
            fleet.hung.add(1)
            await asyncio.sleep(3600)
            assert fleet.ended == [] and len(fleet.starts) == 1
            assert fleet.shown()[0] is ServerState.UNHEALTHY

    run_in_virtual_time(work())


def test_a_busy_one_is_not_a_dead_one() -> None:
    async def work() -> None:
        async with probed() as fleet:
            await fleet.tool()
            fleet.busy_until_s = fleet.passed_s + 500.0
            calling = asyncio.create_task(fleet.tool(timeout_s=600.0))
            await asyncio.sleep(499.0)
            assert len([each for each in fleet.sent if each.failure is not None]) >= FALL
            assert fleet.ended == [] and not calling.done()
            assert (await calling).error_code is None
            await asyncio.sleep(100)
            assert fleet.ended == [] and fleet.shown() == (ServerState.HEALTHY, ())

    run_in_virtual_time(work())


@pytest.mark.parametrize("busy_s", [30.0, 60.0, 120.0, 240.0])
def test_one_that_hangs_after_a_long_call_is_found_as_soon_as_any_other(busy_s: float) -> None:
    async def work() -> None:
        async with probed(health={**HEALTH, "idle_interval_s": 10.0}) as fleet:
            await fleet.tool()
            fleet.busy_until_s = fleet.passed_s + busy_s
            await fleet.tool(timeout_s=300.0)
            fleet.hung.add(1)
            # Three probes with 2 s each: the first within 20 s, the others 5 and 10 s later.
            await ended(fleet, 42.0)

    run_in_virtual_time(work())


def test_one_that_goes_on_when_its_call_is_over_is_dead() -> None:
    async def work() -> None:
        async with probed() as fleet:
            fleet.hung.add(1)
            error = await fleet.failure("tools/call", {"name": "loop"}, timeout_s=300.0)
            assert isinstance(error, DeadlineExceededError)
            assert fleet.ended == []
            await ended(fleet, 40.0)

    run_in_virtual_time(work())


def test_whatever_message_it_writes_is_a_sign_of_life() -> None:
    async def work() -> None:
        async with probed() as fleet:
            fleet.hung.add(1)
            for _ in range(600):
                await asyncio.sleep(1.0)
                # Progress of something, or a log message.
                fleet.running[0].messages += 1
            assert fleet.ended == []
            await ended(fleet, 200.0)

    run_in_virtual_time(work())


def test_one_that_comes_back_in_time_is_left_alone() -> None:
    async def work() -> None:
        async with probed() as fleet:
            await asyncio.sleep(30)
            for _ in range(5):
                fleet.hung.add(1)
                failed = len([each for each in fleet.sent if each.failure is not None])
                while len([each for each in fleet.sent if each.failure is not None]) < failed + FALL - 1:
                    await asyncio.sleep(0.1)
                fleet.hung.clear()
                await asyncio.sleep(60)
            assert fleet.ended == [] and fleet.shown() == (ServerState.HEALTHY, ())

    run_in_virtual_time(work())


def test_one_of_three_is_replaced_and_the_others_serve() -> None:
    async def work() -> None:
        async with probed(instances=3) as fleet:
            others = fleet.supervisor.instances[0].session, fleet.supervisor.instances[2].session
            fleet.hung.add(2)
            await ended(fleet)
            assert fleet.ended == [2]
            for _ in range(10):
                assert (await fleet.tool()).error_code is None
            assert (fleet.supervisor.instances[0].session, fleet.supervisor.instances[2].session) == others
            await asyncio.sleep(5)
            assert [index for index, _ in fleet.starts] == [0, 1, 2, 1]

    run_in_virtual_time(work())


def test_one_that_ignores_pings_is_asked_for_what_it_offers() -> None:
    async def work() -> None:
        async with probed() as fleet:
            fleet.ignores_pings = True
            await asyncio.sleep(600)
            assert fleet.ended == []
            assert fleet.asked(1)[:3] == ["ping", "ping", "tools/list"]
            assert set(fleet.asked(1)[3:]) == {"tools/list"}
            assert fleet.shown() == (ServerState.HEALTHY, ())
            # It is not taken for alive whatever it does.
            fleet.hung.add(1)
            await ended(fleet)

    run_in_virtual_time(work())


@pytest.mark.parametrize("fall", [1, 3])
def test_one_that_offers_no_list_and_ignores_pings_is_asked_for_one_all_the_same(fall: int) -> None:
    async def work() -> None:
        async with probed(capabilities={}, health=HEALTH | {"fall": fall}) as fleet:
            fleet.ignores_pings = True
            await asyncio.sleep(600)
            assert fleet.ended == []
            assert fleet.asked(1)[:3] == ["ping", "ping", "tools/list"]
            fleet.hung.add(1)
            await ended(fleet)

    run_in_virtual_time(work())


def test_that_nobody_looked_for_the_answer_says_nothing_of_it() -> None:
    async def work() -> None:
        async with probed() as fleet:
            fleet.hung.add(1)
            for _ in range(20):
                while not fleet.under_way:
                    await asyncio.sleep(0.1)
                # This process was halted, or its loop blocked.
                fleet.loop._sleepless.passed_s += 30.0
                await asyncio.sleep(0.1)
            assert len(fleet.sent) >= 20
            assert fleet.ended == [] and fleet.shown() == (ServerState.HEALTHY, ())

    run_in_virtual_time(work())


def test_one_that_is_starting_does_not_hang() -> None:
    async def work() -> None:
        fleet = Programs(start_timeout_s=600.0)
        fleet.start_s = 500.0
        fleet.monitor.start()
        starting = asyncio.create_task(fleet.monitor.probe(fleet.supervisor.instances[0]))
        await asyncio.sleep(499.0)
        assert fleet.shown() == (ServerState.INITIALIZING, ("starting",))
        assert await starting
        assert len(fleet.starts) == 1 and fleet.ended == []
        await fleet.aclose()

    run_in_virtual_time(work())


def test_a_bug_in_a_probe_is_told_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(Programs):
        bugs = 2

        async def play(self, index: int, session: int, message: dict[str, Any], exchange: Any) -> Any:
            if self.bugs:
                self.bugs -= 1
                raise KeyError("a bug")
            return await super().play(index, session, message, exchange)

    async def work() -> None:
        fleet = Buggy()
        fleet.monitor.start()
        await fleet.connect()
        await asyncio.sleep(200)
        assert fleet.asked(1)[-1] == "ping" and fleet.shown() == (ServerState.HEALTHY, ())
        assert any("KeyError: 'a bug'" in each.getMessage() for each in caplog.records)
        await fleet.aclose()

    run_in_virtual_time(work())


# Servers that are not ours to end

URL = {"command": None, "url": "http://127.0.0.1:9/mcp"}


@contextlib.asynccontextmanager
async def reached(**settings: Any) -> AsyncIterator[Programs]:
    class Servers(Programs):
        def __init__(self, **given: Any) -> None:
            ScriptedFleet.__init__(
                self, **{"health": HEALTH, "breaker": {}, "retry": {"attempts": 1}, "connect": "eager", **given}
            )
            self.hung, self.busy_until_s, self.ignores_pings = set(), 0.0, False

    fleet = Servers(**settings)
    fleet.monitor.start()
    await fleet.connect()
    try:
        yield fleet
    finally:
        await fleet.aclose()


def test_a_session_that_is_stuck_is_made_anew() -> None:
    async def work() -> None:
        async with reached() as fleet:
            await asyncio.sleep(30)
            fleet.hung.add(1)
            await ended(fleet, 200.0)
            assert fleet.ended == [1]
            assert (await fleet.tool()).error_code is None
            assert fleet.sent[-1].session == 2
            await asyncio.sleep(600)
            assert fleet.ended == [1] and fleet.shown() == (ServerState.HEALTHY, ())

    run_in_virtual_time(work())


def test_a_session_whose_server_is_silent_as_a_whole_stays() -> None:
    async def work() -> None:
        async with reached(connect_timeout_s=5.0, start_timeout_s=5.0) as fleet:
            await asyncio.sleep(30)
            fleet.hung.add(1)
            fleet.start_s = SILENT
            await asyncio.sleep(600)
            assert len(fleet.starts) > 1
            [instance] = fleet.supervisor.instances
            assert instance.session is not None and instance.generation == 1
            fleet.hung.clear()
            await asyncio.sleep(120)
            assert fleet.shown() == (ServerState.HEALTHY, ())
            assert fleet.sent[-1].session == 1

    run_in_virtual_time(work())


@pytest.mark.parametrize("why", ["a call is under way", "it never answered a ping", "turned off"])
def test_a_session_that_may_be_well_is_not_made_anew(why: str) -> None:
    async def work() -> None:
        settings: dict[str, Any] = {"restart": {"on_hang": False}} if why == "turned off" else {}
        async with reached(**settings) as fleet:
            if why == "it never answered a ping":
                fleet.ignores_pings = True
            else:
                await asyncio.sleep(30)
                fleet.hung.add(1)
            calling = asyncio.create_task(fleet.tool(timeout_s=500.0)) if why == "a call is under way" else None
            await asyncio.sleep(490)
            assert fleet.ended == [] and len(fleet.starts) == 1
            if calling is not None:
                with pytest.raises(CallError):
                    await calling

    run_in_virtual_time(work())


def test_what_hung_is_told_from_what_ended() -> None:
    async def work() -> None:
        async with probed() as fleet:
            fleet.kill()
            await asyncio.sleep(5)
            fleet.hung.add(2)
            await ended(fleet)
            error = fleet.supervisor.instances[0].last_error
            assert isinstance(error, ServerExitedError) and error.has_hung
            assert fleet.supervisor.restarts == {"exit": 1, "hang": 1}

    run_in_virtual_time(work())
